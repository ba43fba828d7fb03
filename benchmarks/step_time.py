"""Fit the share of a GPU's peaks that training reaches to published measurements, and judge the prediction by others.

    python benchmarks/step_time.py

Every other measurement of the list is fitted, the others judge. Nothing runs on a GPU. What a source leaves open is
taken as its software's default: linears adapted, recomputation, lengths. The last line is a JSON object.
"""

import json
from dataclasses import dataclass, replace
from math import nan
from statistics import geometric_mean

from hydra import compose, initialize_config_dir

from nemo_reasoning.config import CONF_DIR, load_settings
from nemo_reasoning.config.model import LORA_TARGETS
from nemo_reasoning.config.train import SftSettings
from nemo_reasoning.hardware import register_resolvers
from nemo_reasoning.models.gpus import find_gpu
from nemo_reasoning.training.memory.workload import Workload, workload_of
from nemo_reasoning.training.step_time import REACHED, Rows, bound_seconds

TOKENS = 4096  # of a micro-batch, in all of them
H100, RTX_4090 = "H100 80GB HBM3", "GeForce RTX 4090"
ALL, QKV = f"peft.target_modules=[{','.join(LORA_TARGETS)}]", "peft.target_modules=[linear_qkv]"
FP8 = "trainer.fp8=delayed"
PLAIN = (ALL, "peft.dim=16", "peft.dropout=0")
RECOMPUTED = (ALL, "peft.dim=8", "peft.dropout=0", "trainer.recompute=full")
LLAMA_2_7B = dict(num_layers=32, hidden_size=4096, ffn_hidden_size=11_008, num_attention_heads=32, num_query_groups=32)


@dataclass(frozen=True)
class Published:
    """A measurement that somebody published.

    Attributes:
        source: Who, and of what.
        tokens_per_second: Of one GPU.
        overrides: What was trained.
        gpu: On what.
        length: Of a row, in tokens.
        shape: What differs from the model named.
    """

    source: str
    tokens_per_second: float
    overrides: tuple[str, ...]
    gpu: str = H100
    length: int = TOKENS
    shape: tuple[tuple[str, int], ...] = ()

    def bound(self) -> float:
        """Return the seconds of a micro-batch at the GPU's peaks."""
        gpu = find_gpu(self.gpu)
        assert gpu is not None
        return bound_seconds(self._work(), gpu, Rows(TOKENS, self.length)) or nan

    def _work(self) -> Workload:
        common = ("model.init=random", "hardware=gpu_141gb", "trainer.micro_batch_size=1", "trainer.recompute=none")
        settings = load_settings(compose("sft_lora", [*common, *self.overrides]), SftSettings)
        shape = settings.model.architecture
        assert shape is not None
        return workload_of(settings, replace(shape, **dict(self.shape)))


PUBLISHED = (
    Published("Automodel, Llama 3 8B, LoRA r16", 12_473, ("model=llama3_8b", *PLAIN)),
    Published("NeMo, Llama 3 8B, LoRA r8 of qkv", 17_809, ("model=llama3_8b", QKV, "peft.dim=8")),
    Published("the same in FP8", 24_094, ("model=llama3_8b", QKV, "peft.dim=8", FP8)),
    Published("torchtune, Llama 3 8B, LoRA", 3_083, ("model=llama3_8b", *RECOMPUTED), RTX_4090, 2048),
    Published("the same, QLoRA", 2_413, ("model=llama3_8b", "peft=qlora", *RECOMPUTED), RTX_4090, 2048),
    Published("Automodel, Qwen2.5 7B, LoRA r16", 14_110, ("model=qwen25_7b", *PLAIN)),
    Published(
        *("NeMo, Llama 2 7B, LoRA of qkv, FP8", 24_824, ("model=llama2_13b", QKV, "peft.dim=8", FP8)),
        shape=tuple(LLAMA_2_7B.items()),
    ),
    # published as 735 TFLOP/s: with four operations for a weight and token, by which the line above was counted
    Published("Bridge, Llama 3 70B, LoRA of qkv, FP8", 2_605, ("model=llama3_70b", QKV, "peft.dim=16", FP8)),
)


def main() -> None:
    """Fit, print the table, and last of all one JSON object."""
    register_resolvers()
    with initialize_config_dir(str(CONF_DIR), version_base="1.3"):
        bounds = [published.bound() for published in PUBLISHED]
    reached = [bound * each.tokens_per_second / TOKENS for bound, each in zip(bounds, PUBLISHED, strict=True)]
    share = geometric_mean(reached[::2])
    print("| measurement | GPU | published tokens/s | predicted | off | used |\n|---|---|---|---|---|---|")
    for place, published in enumerate(PUBLISHED):
        row = (published.source, published.gpu, f"{published.tokens_per_second:,.0f}")
        predicted = TOKENS / bounds[place] * share
        off = predicted / published.tokens_per_second - 1
        print(f"| {' | '.join(row)} | {predicted:,.0f} | {off:+.0%} | to {'judge' if place % 2 else 'fit'} |")
    judged = [round(share / each - 1, 3) for each in reached[1::2]]
    print(json.dumps({"reached": round(share, 3), "in use": REACHED, "judged": judged}))


if __name__ == "__main__":
    main()
