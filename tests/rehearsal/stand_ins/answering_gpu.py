"""A GPU that answers questions and does no work, on torch's CPU build: shows what code that declines a GPU still asks.

Whatever would compute on it fails where it stands. As a driver does, it hides from CUDA_VISIBLE_DEVICES="".
"""

import os
from types import SimpleNamespace
from typing import Any

import torch

PROPERTIES = SimpleNamespace(
    **{"name": "NVIDIA H100 80GB HBM3", "major": 9, "minor": 0, "multi_processor_count": 132},
    **{"total_memory": 80 * 2**30, "gcnArchName": "", "warp_size": 32},
)


class _Generator:
    """Random numbers of the device; keeps a state like a GPU's, which no CPU generator accepts."""

    def __init__(self) -> None:
        self.state = torch.zeros(16, dtype=torch.uint8)

    def manual_seed(self, seed: int) -> "_Generator":
        return self

    def get_state(self) -> torch.Tensor:
        return self.state

    def set_state(self, state: torch.Tensor) -> None:
        if state.shape != self.state.shape:
            raise RuntimeError("RNG state is wrong size")

    def initial_seed(self) -> int:
        return 0


def install() -> None:
    """Answer as one H100, unless no device is visible."""
    if os.environ.get("CUDA_VISIBLE_DEVICES") == "":
        return
    cuda: Any = torch.cuda
    answers: dict[str, Any] = {
        "is_available": lambda: True,
        "device_count": lambda: 1,
        "is_initialized": lambda: True,
        "is_bf16_supported": lambda *_, **__: True,
        "_lazy_init": lambda: None,
        "_is_in_bad_fork": lambda: False,
        "_get_device_properties": lambda index: PROPERTIES,
        "reset_peak_memory_stats": lambda *_, **__: None,
    }
    for kind in ("allocated", "reserved"):
        answers[f"memory_{kind}"] = answers[f"max_memory_{kind}"] = lambda *_, **__: 0
    for name, answer in answers.items():
        setattr(cuda, name, answer)
    cuda._initialized = True
    cuda.random.device_count = answers["device_count"]
    cuda.default_generators = (_Generator(),)
    compiled: Any = torch._C
    compiled._cuda_getDevice = lambda: 0
    compiled._cuda_setDevice = lambda index: None
    compiled._cuda_getCurrentRawStream = lambda index: 0
    compiled._cuda_emptyCache = lambda: None
