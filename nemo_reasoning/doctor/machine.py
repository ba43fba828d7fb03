"""Find out what this machine is."""

import os
import platform
import re
import shutil
from dataclasses import replace
from pathlib import Path

from nemo_reasoning.artifacts import installed_version
from nemo_reasoning.backend.versions import DISTRIBUTIONS, find_problems, found_version
from nemo_reasoning.config.doctor import DoctorSettings
from nemo_reasoning.doctor.facts import OWN_CONTAINER, Disk, Gpu, Machine, Torch
from nemo_reasoning.doctor.sources import find_sources, has_token
from nemo_reasoning.hardware import main_memory, nvidia_smi, visible_gpus
from nemo_reasoning.models.importer import FORMAT

GIB = 2**30
PACKAGES = (
    *("nemo_toolkit", "megatron-core", "torch", "lightning", "transformers", "nemo_run", "peft"),
    *("transformer-engine", "bitsandbytes", "hydra-core", "huggingface_hub"),
)


def look_around(settings: DoctorSettings) -> Machine:
    """Return the facts about this machine that matter for a training."""
    gpus = find_gpus()
    memory = main_memory()
    driver, driver_cuda = _driver() if gpus else (None, None)
    return Machine(
        gpus=gpus,
        driver=driver,
        driver_cuda=driver_cuda,
        nvlink=_nvlink() if len(gpus) > 1 else None,
        visible=os.environ.get("CUDA_VISIBLE_DEVICES"),
        torch=_torch() if gpus else None,
        ram_gb=memory.total / GIB,
        ram_free_gb=memory.free / GIB,
        cores=len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1,
        python=platform.python_version(),
        container=_container(),
        packages={name: _version(name) for name in PACKAGES},
        problems=find_problems(),
        outputs=_disk(Path(settings.output_dir)),
        cache=_disk(Path(settings.cache_dir).expanduser()),
        downloads=_disk(_hub_cache()),
        imported=_imported(settings),
        token=has_token(),
        sources=find_sources(settings),
    )


def find_gpus() -> tuple[Gpu, ...]:
    """Return the GPUs that nvidia-smi reports and CUDA_VISIBLE_DEVICES leaves; none without it."""
    visible, query = visible_gpus(), ("--query-gpu=name,memory.total,compute_cap", "--format=csv,noheader,nounits")
    if visible is None:
        return _gpus(nvidia_smi(*query))
    known = nvidia_smi(*query, f"--id={','.join(visible)}") if visible else ""
    if known is not None:
        return _gpus(known)
    whole = _gpus(nvidia_smi(*query))[: len(visible)]  # parts of GPUs (MIG), which nvidia-smi does not tell about
    return tuple(replace(gpu, memory_gb=None) for gpu in whole)


def _gpus(answer: str | None) -> tuple[Gpu, ...]:
    gpus = []
    for line in (answer or "").splitlines():
        fields = [field.strip() for field in line.split(",")]
        if len(fields) == 3:
            gpus.append(Gpu(name=fields[0], memory_gb=_gib(fields[1]), capability=_capability(fields[2])))
    return tuple(gpus)


def _gib(mebibytes: str) -> float | None:
    return int(mebibytes) / 1024 if mebibytes.isdigit() else None


def _capability(text: str) -> tuple[int, int] | None:
    match = re.fullmatch(r"(\d+)\.(\d+)", text)
    return (int(match[1]), int(match[2])) if match else None


def _driver() -> tuple[str | None, str | None]:
    answer = nvidia_smi() or ""
    driver = re.search(r"Driver Version: *([\d.]+)", answer)
    cuda = re.search(r"CUDA Version: *([\d.]+)", answer)
    return driver and driver[1], cuda and cuda[1]


def _nvlink() -> bool | None:
    answer = nvidia_smi("nvlink", "--status")
    return None if answer is None else "GB/s" in answer


def _torch() -> Torch | None:
    try:
        import torch
    except ImportError:
        return None
    available = torch.cuda.is_available()
    return Torch(
        version=str(torch.__version__),
        cuda=torch.version.cuda,
        available=available,
        bf16=available and torch.cuda.is_bf16_supported(),
    )


def _container() -> str | None:
    release = os.environ.get("NVIDIA_PRODUCT_NAME")
    if release:
        return f"{release} {os.environ.get('NVIDIA_BUILD_ID', '')}".strip()
    if os.environ.get("NVIDIA_BUILD_ID"):
        return f"NVIDIA's, build {os.environ['NVIDIA_BUILD_ID']}"
    isolated = Path("/.dockerenv").exists() or Path("/run/.containerenv").exists()
    return OWN_CONTAINER if isolated else None


def _version(name: str) -> str | None:
    return found_version(name) if name in DISTRIBUTIONS else installed_version(name)


def _imported(settings: DoctorSettings) -> bool:
    """Return whether `models.importer` has been here before."""
    stem = Path(settings.model.source).name.removesuffix(".gguf").lower()
    return any(Path(settings.cache_dir).expanduser().glob(f"nemo/{stem}-*-{settings.model.dtype}-v{FORMAT}"))


def _hub_cache() -> Path:
    try:
        from huggingface_hub.constants import HF_HUB_CACHE
    except ImportError:  # reported with the packages
        return Path("~/.cache/huggingface/hub").expanduser()
    return Path(HF_HUB_CACHE)


def _disk(folder: Path) -> Disk:
    place = folder.absolute()
    while not place.exists():
        place = place.parent
    usable = place.is_dir() and os.access(place, os.W_OK | os.X_OK)
    problem = "" if usable else f"{place} cannot be written to" if place.is_dir() else f"{place} is no folder"
    size = shutil.disk_usage(place)
    return Disk(path=str(folder), free_gb=size.free / GIB, device=place.stat().st_dev, problem=problem)
