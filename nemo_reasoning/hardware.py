"""Find out what machine this is, before anything heavy is imported."""

import os
import re
import subprocess
from dataclasses import dataclass
from functools import cache
from itertools import takewhile
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from nemo_reasoning.config import group_names, read_group
from nemo_reasoning.config.adapter import of_adapter
from nemo_reasoning.errors import BackendError

_CGROUPS, _OWN_GROUP = Path("/sys/fs/cgroup"), Path("/proc/self/cgroup")
_FILES = {"": ("memory.max", "memory.current"), "memory": ("memory.limit_in_bytes", "memory.usage_in_bytes")}


def visible_gpus() -> list[str] | None:
    """Return the numbers and names of GPUs that CUDA_VISIBLE_DEVICES leaves to this process; None for all there are.

    As CUDA reads it, nothing counts behind what is no GPU, such as -1.
    """
    asked = os.environ.get("CUDA_VISIBLE_DEVICES")
    if asked is None:
        return None
    return list(takewhile(re.compile(r"\d+|(GPU|MIG)-[\w/-]+").fullmatch, map(str.strip, asked.split(","))))


def nvidia_smi(*arguments: str) -> str | None:
    """Return what `nvidia-smi` answers, None where it is missing or fails."""
    try:
        done = subprocess.run(["nvidia-smi", *arguments], capture_output=True, text=True, timeout=20, check=True)
    except (OSError, subprocess.CalledProcessError, subprocess.TimeoutExpired):
        return None
    return done.stdout


def count_gpus() -> int | None:
    """Return how many GPUs this process may use; None where `nvidia-smi` knows of none."""
    visible, answer = visible_gpus(), nvidia_smi("--list-gpus")
    if answer is None or not answer.strip():
        return None
    return sum(line.startswith("GPU ") for line in answer.splitlines()) if visible is None else len(visible)


def first_gpu() -> tuple[float, str] | None:
    """Return memory in GiB and name of the first visible GPU as `nvidia-smi` reports them, or None without a GPU.

    Raises:
        BackendError: There is a GPU, but `nvidia-smi` does not know its memory, as where it shares the CPU's or is a
            part of another (MIG).
    """
    visible, query = visible_gpus(), ("--query-gpu=memory.total,name", "--format=csv,noheader,nounits")
    if visible == []:
        return None
    first = "0" if visible is None else visible[0]
    answer = nvidia_smi(*query, f"--id={first}")
    if answer is None and visible is not None and nvidia_smi(*query) is not None:
        raise BackendError(
            f"nvidia-smi knows no GPU {first}, the first that CUDA_VISIBLE_DEVICES names; correct it, or name the "
            "hardware yourself: hardware=gpu_24gb, or another of conf/hardware"
        )
    if answer is None:
        return None
    memory, _, name = answer.strip().partition(",")
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


def open_layout(devices: Any, nodes: Any, accelerator: Any) -> int | str:
    """Return how many ranks share a model where nobody says it: 1, or auto where several GPUs could."""
    several = all(isinstance(count, int) for count in (devices, nodes)) and devices * nodes > 1
    return "auto" if several and accelerator == "gpu" else 1


def register_resolvers() -> None:
    """Make `${detected_hardware:key}` available to conf/hardware/auto.yaml, others to conf/peft and conf/trainer."""
    OmegaConf.register_new_resolver("of_adapter", of_adapter, replace=True)
    OmegaConf.register_new_resolver("open_layout", open_layout, replace=True)
    OmegaConf.register_new_resolver("detected_hardware", lambda key: _detected()[key], replace=True)


@dataclass(frozen=True)
class MainMemory:
    """Bytes of main memory.

    Attributes:
        total: What the machine has, or a smaller limit of a container or a job.
        free: What of it may still be taken; pages that only cache files are free.
    """

    total: int
    free: int


def main_memory(cgroups: Path = _CGROUPS, own_group: Path = _OWN_GROUP) -> MainMemory:
    """Return what this process may use: of the machine, within the limits of its control groups.

    Args:
        cgroups: Where the kernel shows control groups, of either version.
        own_group: The file that names the groups of this process.
    """
    import psutil  # what answers without the amount, such as --help, needs no such package

    machine = psutil.virtual_memory()
    total, free = machine.total, machine.available
    for folder, limit_file, usage_file in _groups(cgroups, own_group):
        limit = _number(folder / limit_file)
        if limit is not None and limit < machine.total:
            used = (_number(folder / usage_file) or 0) - _cached(folder / "memory.stat")
            total, free = min(total, limit), min(free, max(0, limit - used))
    return MainMemory(total=total, free=free)


def _groups(cgroups: Path, own_group: Path) -> list[tuple[Path, str, str]]:
    """Return the folders that may limit this process, its own group's and all above, with their two files."""
    lines = own_group.read_text(encoding="utf-8").splitlines() if own_group.is_file() else []
    found = []
    for controllers, path in [("", "/"), ("memory", "/"), *(line.split(":", 2)[1:] for line in lines)]:
        version = "memory" if "memory" in controllers.split(",") else controllers
        if version in _FILES:
            own = cgroups / version / path.strip("/")
            top = cgroups / version
            above = [own, *(folder for folder in own.parents if folder.is_relative_to(top))]
            found += [(folder, *_FILES[version]) for folder in above]
    return found


def _number(file: Path) -> int | None:
    text = file.read_text(encoding="utf-8").strip() if file.is_file() else ""
    return int(text) if text.isdigit() else None


def _cached(file: Path) -> int:
    """Return the bytes of pages that cache files and can be given up, of a group and all below it."""
    lines = file.read_text(encoding="utf-8").splitlines() if file.is_file() else []
    values = dict(line.split(" ", 1) for line in lines)
    return int(values.get("total_inactive_file", values.get("inactive_file", 0)))
