"""Find out what machine this is, before anything heavy is imported."""

import subprocess
from functools import cache
from typing import Any

from omegaconf import OmegaConf

from nemo_reasoning.config import group_names, read_group
from nemo_reasoning.config.adapter import of_adapter
from nemo_reasoning.errors import BackendError


def first_gpu() -> tuple[float, str] | None:
    """Return memory in GiB and name of the first GPU as `nvidia-smi` reports them, or None without a GPU.

    Raises:
        BackendError: There is a GPU, but `nvidia-smi` does not know its memory, as where it shares the CPU's.
    """
    query = ["nvidia-smi", "--query-gpu=memory.total,name", "--format=csv,noheader,nounits", "--id=0"]
    try:
        answer = subprocess.run(query, capture_output=True, text=True, timeout=20, check=True)
    except (FileNotFoundError, subprocess.CalledProcessError, subprocess.TimeoutExpired):
        return None
    memory, _, name = answer.stdout.strip().partition(",")
    try:
        return float(memory) / 1024, name.strip()
    except ValueError:
        raise BackendError(
            f"nvidia-smi reports {memory!r} MiB of GPU memory; name the hardware yourself: "
            "hardware=gpu_24gb, or another of conf/hardware"
        ) from None


def matching_hardware(memory_gb: float | None) -> str:
    """Return the name of the conf/hardware file for a GPU of this size, or "cpu".

    A card sold as n GB reports up to 9 % less (n is decimal, ECC takes its share), so a file matches
    from 91 % of its size.
    A GPU below the smallest file gets the smallest one.
    """
    if memory_gb is None:
        return "cpu"
    sizes = sorted(int(name[4:-2]) for name in group_names("hardware") if name.startswith("gpu_"))
    fitting = [size for size in sizes if memory_gb >= 0.91 * size]
    return f"gpu_{max(fitting, default=sizes[0])}gb"


@cache
def _detected() -> Any:
    gpu = first_gpu()
    found = read_group("hardware", matching_hardware(gpu and gpu[0]))
    if gpu is not None:
        found.memory_gb, found.gpu = round(gpu[0], 1), gpu[1]
    return found


def register_resolvers() -> None:
    """Make `${detected_hardware:key}` available to conf/hardware/auto.yaml, and `${of_adapter:...}` to conf/peft."""
    OmegaConf.register_new_resolver("of_adapter", of_adapter, replace=True)
    OmegaConf.register_new_resolver("detected_hardware", lambda key: _detected()[key], replace=True)
