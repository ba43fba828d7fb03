"""Count what a training step of Llama 3 8B computes, moves and launches, from a trace on the meta device.

Prints a table and last a JSON object. The layers are torch's, or Transformer Engine's with `--layers te`; then
.overlays/transformer-engine (from `make setup`) and tests/rehearsal/stand_ins have to be on PYTHONPATH. Nothing runs on
a GPU: the bound is what an H100 would take if every kernel reached the peak of the data sheet, and none waited.
"""

import argparse
import json
from importlib import import_module

from hydra import compose, initialize_config_dir
from tracing import Traced, trace_step, traced_device

from nemo_reasoning.config import CONF_DIR, load_settings
from nemo_reasoning.config.train import SftSettings
from nemo_reasoning.hardware import register_resolvers

CASES = (("lora", "none"), ("lora", "full"), ("qlora", "none"), ("qlora", "full"))
TOKENS = (4096, 8192)
HEADINGS = (
    *("layers", "peft", "recompute", "tokens", "TFLOP", "GB moved", "launches", "bound, ms", "tokens/s at the bound"),
    "us a launch",
)


def main() -> None:
    """Trace, print a table, and last of all one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--layers", choices=("torch", "te"), default="torch")
    parser.add_argument("--quick", action="store_true", help="LoRA of 4,096 tokens alone")
    arguments = parser.parse_args()
    te, found = arguments.layers == "te", []
    register_resolvers()
    print(f"| {' | '.join(HEADINGS)} |\n{'|---' * len(HEADINGS)}|", flush=True)
    with traced_device(te=te):
        logging = import_module("nemo.utils").logging
        logging.setLevel(40)
        for scheme, recompute in CASES[: 1 if arguments.quick else None]:
            if te and scheme == "qlora":
                continue  # its layers are torch's
            for tokens in TOKENS[: 1 if arguments.quick else None]:
                row = _row(trace_step(_settings(scheme, recompute, tokens), te=te), tokens)
                row = (arguments.layers, scheme, recompute, f"{tokens:,}", *row)
                found.append(dict(zip(HEADINGS, row, strict=True)))
                print(f"| {' | '.join(row)} |", flush=True)
    print(json.dumps(found))


def _settings(scheme: str, recompute: str, tokens: int) -> SftSettings:
    overrides = [
        *(
            "model=llama3_8b",
            "model.init=random",
            f"peft={scheme}",
            "hardware=gpu_141gb",
            f"trainer.seq_length={tokens}",
        ),
        *("trainer.micro_batch_size=1", "trainer.global_batch_size=1", f"trainer.recompute={recompute}"),
    ]
    with initialize_config_dir(str(CONF_DIR), version_base="1.3"):
        return load_settings(compose("sft_lora", overrides), SftSettings)


def _row(step: Traced, tokens: int) -> tuple[str, ...]:
    return (
        *(f"{step.flops / 1e12:.1f}", f"{step.moved / 1e9:.0f}", f"{step.launches:,}", f"{1e3 * step.bound:.0f}"),
        *(f"{tokens / step.bound:,.0f}", f"{1e6 * step.bound / step.launches:.0f}"),
    )


if __name__ == "__main__":
    main()
