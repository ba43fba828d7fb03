"""What a machine is: plain values, found by `machine.py` and judged by `checks.py`."""

from dataclasses import dataclass
from enum import Enum

OWN_CONTAINER = "not NVIDIA's"


@dataclass(frozen=True, kw_only=True)
class Gpu:
    """One GPU, as its driver reports it.

    Attributes:
        name: Of the product.
        memory_gb: In GiB; None where the driver does not know it.
        capability: Of its arithmetic, such as (9, 0).
    """

    name: str
    memory_gb: float | None
    capability: tuple[int, int] | None


@dataclass(frozen=True, kw_only=True)
class Torch:
    """What torch sees.

    Attributes:
        version: Of torch.
        cuda: Release of CUDA it was built for; None for a CPU build.
        available: Whether it can use a GPU here.
        bf16: Whether that GPU computes in bfloat16.
    """

    version: str
    cuda: str | None
    available: bool
    bf16: bool


@dataclass(frozen=True, kw_only=True)
class Disk:
    """Room below a folder, which need not exist yet.

    Attributes:
        path: The folder.
        free_gb: In GiB.
        device: Identifies the file system.
        problem: Why nothing can be written there; empty where something can.
    """

    path: str
    free_gb: float
    device: int
    problem: str = ""


class Access(Enum):
    """Whether a repository or directory can be read."""

    here = "on this machine"
    granted = "the hub grants it"
    gated = "gated"
    missing = "not found"
    offline = "the hub does not answer"


@dataclass(frozen=True, kw_only=True)
class Source:
    """Where something comes from.

    Attributes:
        key: The setting that names it.
        name: Hub id, directory or pypi:package/file.
        access: What came of asking for it.
        detail: Why, where that needs saying.
    """

    key: str
    name: str
    access: Access
    detail: str = ""


@dataclass(frozen=True, kw_only=True)
class Machine:
    """Everything the doctor looks at.

    Attributes:
        gpus: In the driver's order.
        driver: Version of NVIDIA's driver.
        driver_cuda: Newest release of CUDA that it serves.
        nvlink: Whether GPUs are connected by it; None where nobody can tell.
        visible: CUDA_VISIBLE_DEVICES, None where it is not set.
        torch: None where there is no GPU to ask about, or no torch.
        ram_gb: Main memory, in GiB.
        ram_free_gb: What of it is free.
        cores: CPU cores of this process.
        python: Version.
        container: Name of NVIDIA's container, or what else isolates this process; None outside of any.
        packages: Version by distribution, None where it is not installed.
        problems: Why NeMo or Megatron-Core will not do, by distribution.
        outputs: Where data and checkpoints go.
        cache: Where imported models go.
        downloads: Where the hub's files go.
        imported: Whether the base model lies in NeMo's format already.
        token: Whether there is a token for the hub.
        sources: Of model and data.
    """

    gpus: tuple[Gpu, ...]
    driver: str | None
    driver_cuda: str | None
    nvlink: bool | None
    visible: str | None
    torch: Torch | None
    ram_gb: float
    ram_free_gb: float
    cores: int
    python: str
    container: str | None
    packages: dict[str, str | None]
    problems: dict[str, str]
    outputs: Disk
    cache: Disk
    downloads: Disk
    imported: bool
    token: bool
    sources: tuple[Source, ...]
