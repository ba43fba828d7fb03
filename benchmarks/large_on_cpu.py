"""Take the true shape of Llama 3 8B through everything on a CPU, with random weights, and measure the memory.

    python benchmarks/large_on_cpu.py --folder /tmp/8b     # 48 GB of disk, which are freed again
    python benchmarks/large_on_cpu.py --quick              # the same with two small layers
    python benchmarks/large_on_cpu.py --folder /tmp/8b --stages train    # one stage, which leaves its result

A base is written, imported, trained with QLoRA for a step of 128 tokens, resumed for another one, and exported as
adapter and merged. Each stage is a process of its own, whose peak resident memory is what counts. Logits are not
compared, which takes 21 GB; instead one linear of the first and the last layer is merged here again, in the last stage,
"compare", whose last line is a JSON object. The folder stays until then; a stage that failed can be run again.
"""

import argparse
import json
import os
import shutil
import sys
import tempfile
import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from hydra import compose, initialize_config_dir
from random_base import write_base
from rich.console import Console
from rich.table import Table

from nemo_reasoning.config import CONF_DIR, load_settings
from nemo_reasoning.config.model import Architecture
from nemo_reasoning.config.train import SftSettings
from nemo_reasoning.hardware import register_resolvers
from nemo_reasoning.models.hub import PACKAGED_MODEL, fetch_base
from nemo_reasoning.training.loggers import read_metrics
from nemo_reasoning.training.memory.estimate import estimate_memory
from nemo_reasoning.training.memory.workload import workload_of

ROOT = Path(__file__).resolve().parents[1]
CACHE = Path("~/.cache/nemo_reasoning").expanduser()
GB = 1e9
_IMPORT = "import sys; from pathlib import Path; from nemo_reasoning.models.importer import import_base; "
_IMPORT += "from nemo_reasoning.models.hub import fetch_base; cache = Path(sys.argv[2]); "
_IMPORT += "import_base(fetch_base(sys.argv[1], revision=None, cache_dir=cache), dtype='bfloat16', cache_dir=cache)"


@dataclass(frozen=True)
class Stage:
    """What a process took.

    Attributes:
        seconds: From start to end.
        peak: Peak resident bytes, those of the processes it started included.
    """

    seconds: float
    peak: int


STAGES = ("base", "import", "train", "resume", "hf_peft", "merged", "compare")


def main() -> None:
    """Run the stages; the last one prints a table and a JSON object."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="two layers of 256 instead of 32 of 4,096")
    parser.add_argument("--folder", type=Path, help="where to work; removed by the last stage")
    parser.add_argument("--stages", nargs="+", choices=STAGES, default=STAGES, help="only these, of the same folder")
    arguments = parser.parse_args()
    if arguments.folder is None and arguments.stages != STAGES:
        parser.error("--stages needs --folder, which holds what earlier stages left")
    folder = arguments.folder or Path(tempfile.mkdtemp(prefix="large-"))
    try:
        for name in arguments.stages:
            take(folder, name, quick=arguments.quick)
    finally:
        if arguments.folder is None:
            shutil.rmtree(folder, ignore_errors=True)


def take(folder: Path, name: str, *, quick: bool) -> None:
    """Run a stage, and record what it took in the folder."""
    shape, base, record = _shape(quick=quick), folder / "base", folder / "stages.json"
    if name == "base":
        write_base(base, shape, tokenizer=fetch_base(PACKAGED_MODEL, revision=None, cache_dir=CACHE).path)
        return
    overrides = [
        *("model=hf_local", f"model.source={base}", "model.template=chatml", "model.dtype=bfloat16", "peft=qlora"),
        *("hardware=cpu", "data=builtin", "data.rows=40", "trainer.seq_length=128", "trainer.micro_batch_size=1"),
        *("trainer.global_batch_size=1", "trainer.eval_interval=1", "callbacks.samples_interval=0", "logger=none"),
        *("data.validation_share=0.05", f"cache_dir={folder / 'cache'}", f"output_dir={folder / 'run'}"),
    ]
    stages = json.loads(record.read_text(encoding="utf-8")) if record.is_file() else {}
    if name == "compare":
        losses = [line["loss"] for line in read_metrics(folder / "run" / "metrics.jsonl") if "loss" in line]
        taken = {known: Stage(**stage) for known, stage in stages.items()}
        _report(taken, _planned(overrides, shape), losses, _merged_difference(folder, shape))
        shutil.rmtree(folder)
        return
    train = [str(ROOT / "recipes" / "sft_lora.py"), *overrides]
    export = [str(ROOT / "recipes" / "export.py"), f"checkpoint={folder / 'run'}", "verify=false"]
    commands = {
        "import": ["-c", _IMPORT, str(base), str(folder / "cache")],
        "train": [*train, "trainer.max_steps=1"],
        "resume": [*train, "trainer.max_steps=2"],
        "hf_peft": [*export, "formats=[hf_peft]", f"output_dir={folder / 'hf_peft'}"],
        "merged": [*export, "formats=[merged]", f"output_dir={folder / 'merged'}"],
    }
    stage = _run(commands[name])
    print(name, stage, file=sys.stderr, flush=True)
    record.write_text(json.dumps({**stages, name: asdict(stage)}), encoding="utf-8")


def _shape(*, quick: bool) -> Architecture:
    shape = _settings(["model=llama3_8b"]).model.architecture
    assert shape is not None
    if not quick:
        return shape
    small = {"num_layers": 2, "hidden_size": 256, "ffn_hidden_size": 512, "num_attention_heads": 4}
    return replace(shape, **small, num_query_groups=2, head_dim=64)


def _settings(overrides: list[str]) -> SftSettings:
    register_resolvers()
    with initialize_config_dir(str(CONF_DIR), version_base="1.3"):
        return load_settings(compose("sft_lora", overrides), SftSettings)


def _planned(overrides: list[str], shape: Architecture) -> Any:
    return estimate_memory(workload_of(_settings([*overrides, "trainer.max_steps=2"]), shape))


def _run(arguments: list[str]) -> Stage:
    began = time.monotonic()
    pid = os.posix_spawn(sys.executable, [sys.executable, *arguments], {**os.environ, "PYTHONPATH": str(ROOT)})
    _, status, usage = os.wait4(pid, 0)
    if status:
        sys.exit(f"{arguments[0]} failed with {os.waitstatus_to_exitcode(status)}")
    return Stage(time.monotonic() - began, usage.ru_maxrss * 1024)


def _merged_difference(folder: Path, shape: Architecture) -> float:
    """Return the largest difference between merged weights and W + scale * B A computed here, over the largest."""
    import torch
    from safetensors.torch import load_file

    from nemo_reasoning.models.weight_files import read_weights
    from nemo_reasoning.peft.nf4 import as_trained, nf4_base
    from nemo_reasoning.training.run_dir import Run

    settings = Run.open(folder / "run").settings
    nf4 = nf4_base(settings)
    assert nf4 is not None
    base, merged = (read_weights(folder / name, "float32") for name in ("base", "merged/merged"))
    adapter = load_file(folder / "hf_peft" / "hf_peft" / "adapter_model.safetensors")
    worst = 0.0
    for layer in (0, shape.num_layers - 1):
        module = f"model.layers.{layer}.mlp.down_proj"
        a, b = (adapter[f"base_model.model.{module}.lora_{one}.weight"].float() for one in "AB")
        expected = as_trained(base(f"{module}.weight"), target="linear_fc2", base=nf4) + settings.peft.scale * b @ a
        found = merged(f"{module}.weight")
        worst = max(worst, float((found - expected.to(torch.bfloat16).float()).abs().max() / expected.abs().max()))
    return worst


def _report(stages: dict[str, Stage], planned: Any, losses: list[float], difference: float) -> None:
    table = Table("stage", "seconds", "peak RSS, GB")
    for name, stage in stages.items():
        table.add_row(name, f"{stage.seconds:.0f}", f"{stage.peak / GB:.2f}")
    Console().print(table)
    result = {
        "peak_gb": {name: round(stage.peak / GB, 2) for name, stage in stages.items()},
        "seconds": {name: round(stage.seconds) for name, stage in stages.items()},
        "planned_static_gb": round(planned.static.total / GB, 2),
        "planned_weights_gb": round(planned.static.weights / GB, 2),
        "planned_peak_gb": round(planned.total / GB, 2),
        "losses": [round(loss, 4) for loss in losses],
        "merged_difference": difference,
    }
    print(json.dumps(result))


if __name__ == "__main__":
    main()
