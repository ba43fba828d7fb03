"""The machine at hand decides the file of conf/hardware."""

from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest
from composing import composed
from omegaconf import OmegaConf

from nemo_reasoning import hardware
from nemo_reasoning.config import CONF_DIR, load_settings
from nemo_reasoning.config.train import SftSettings
from nemo_reasoning.errors import BackendError, ConfigError
from nemo_reasoning.hardware import first_gpu, main_memory, matching_hardware

NvidiaSmi = Callable[[str], None]


@pytest.fixture
def nvidia_smi(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[NvidiaSmi]:
    """Return a function that puts a script named nvidia-smi, with this body, alone on the PATH."""
    hardware._detected.cache_clear()
    monkeypatch.setenv("PATH", str(tmp_path))

    def install(body: str) -> None:
        script = tmp_path / "nvidia-smi"
        script.write_text(f"#!/bin/sh\n{body}\n")
        script.chmod(0o755)

    yield install
    hardware._detected.cache_clear()


@pytest.mark.parametrize(
    ("memory_gb", "name"),
    [
        (None, "cpu"),
        (11.0, "gpu_24gb"),
        (16.0, "gpu_24gb"),
        (22.5, "gpu_24gb"),  # A10, L4
        (24.0, "gpu_24gb"),
        (36.3, "gpu_24gb"),
        (39.4, "gpu_40gb"),  # A100 40GB
        (44.0, "gpu_48gb"),  # A40 and L40 with ECC
        (47.5, "gpu_48gb"),
        (79.6, "gpu_80gb"),
        (93.6, "gpu_80gb"),  # H100 NVL
        (140.4, "gpu_141gb"),  # H200
        (141.0, "gpu_141gb"),
        (192.0, "gpu_141gb"),
    ],
)
def test_the_largest_file_the_memory_covers(memory_gb: float | None, name: str) -> None:
    assert matching_hardware(memory_gb) == name
    assert (CONF_DIR / "hardware" / f"{name}.yaml").is_file()


def test_memory_is_read_from_the_first_gpu(nvidia_smi: NvidiaSmi) -> None:
    nvidia_smi(
        '[ "$*" = "--query-gpu=memory.total,name --format=csv,noheader,nounits --id=0" ] && echo 23028, NVIDIA A10'
    )

    assert first_gpu() == (pytest.approx(22.488, abs=1e-3), "NVIDIA A10")


def test_no_nvidia_smi_is_no_gpu(nvidia_smi: NvidiaSmi) -> None:
    assert first_gpu() is None


def test_a_driver_that_fails_is_no_gpu(nvidia_smi: NvidiaSmi) -> None:
    nvidia_smi("echo 'NVIDIA-SMI has failed'; exit 9")

    assert first_gpu() is None


@pytest.mark.parametrize("answer", ["[N/A], NVIDIA GB10", ""])
def test_a_gpu_of_unknown_memory_has_to_be_named(nvidia_smi: NvidiaSmi, answer: str) -> None:
    nvidia_smi(f"echo '{answer}'")

    with pytest.raises(BackendError, match="hardware=gpu_24gb"):
        first_gpu()
    with pytest.raises(ConfigError, match="hardware=gpu_24gb"):
        load_settings(composed("hardware=auto"), SftSettings)
    assert load_settings(composed("hardware=gpu_24gb"), SftSettings).hardware.memory_gb == 24


@pytest.mark.parametrize(
    ("mebibytes", "name", "memory_gb"), [(None, "cpu", None), (23028, "gpu_24gb", 22.5), (81559, "gpu_80gb", 79.6)]
)
def test_auto_is_the_file_it_finds_with_the_memory_it_finds(
    nvidia_smi: NvidiaSmi, mebibytes: int | None, name: str, memory_gb: float | None
) -> None:
    if mebibytes:
        nvidia_smi(f"echo {mebibytes}, NVIDIA X")
    found, chosen = (
        OmegaConf.to_container(composed(f"hardware={choice}").hardware, resolve=True) for choice in ("auto", name)
    )

    assert found == {**chosen, "memory_gb": memory_gb, "gpu": "NVIDIA X" if mebibytes else None}


def test_the_machine_is_asked_once(nvidia_smi: NvidiaSmi, tmp_path: Path) -> None:
    nvidia_smi(f"echo asked >> {tmp_path}/log; echo 81559, NVIDIA X")
    for _ in range(2):
        OmegaConf.to_container(composed("hardware=auto").hardware, resolve=True)

    assert (tmp_path / "log").read_text().split() == ["asked"]


@pytest.mark.parametrize(
    ("visible", "memory"), [(None, 24.0), ("", None), ("-1", None), ("1,0", 80.0), ("x", None), ("GPU-1b", 80.0)]
)
def test_the_gpu_is_the_first_that_cuda_may_see(
    nvidia_smi: NvidiaSmi, monkeypatch: pytest.MonkeyPatch, visible: str | None, memory: float | None
) -> None:
    nvidia_smi('case "$*" in *id=0) echo 24576, L4;; *id=1|*id=GPU-1b) echo 81920, H100;; *) exit 6;; esac')
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if visible is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)

    found = first_gpu()

    assert (found and found[0]) == memory


def test_a_part_of_a_gpu_is_to_be_named(nvidia_smi: NvidiaSmi, monkeypatch: pytest.MonkeyPatch) -> None:
    nvidia_smi('case "$*" in *id=*) exit 6;; *) echo 81920;; esac')
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "MIG-12")

    with pytest.raises(BackendError, match="knows no GPU MIG-12"):
        first_gpu()


@pytest.mark.parametrize(
    ("group", "files", "expected"),
    [
        ("0::/", {"memory.max": "max"}, None),
        ("0::/", {"memory.max": "3000000", "memory.current": "1000000"}, (3000000, 2000000)),
        ("0::/", {"memory.max": "3000000", "memory.current": "9000000"}, (3000000, 0)),
        (
            "0::/",
            {"memory.max": "3000000", "memory.current": "2500000", "memory.stat": "anon 5\ninactive_file 2000000"},
            (3000000, 2500000),
        ),
        ("0::/job/step", {"job/memory.max": "3000000", "job/step/memory.max": "max"}, (3000000, 3000000)),  # Slurm's
        ("4:cpu,memory:/docker/1", {"memory/docker/1/memory.limit_in_bytes": "4000000"}, (4000000, 4000000)),
        ("4:memory:/docker/1", {"memory/memory.limit_in_bytes": "5000000"}, (5000000, 5000000)),  # as seen inside
        ("4:memory:/", {"memory/memory.limit_in_bytes": "9223372036854771712"}, None),
        ("0::/../../gone", {}, None),
    ],
)
def test_a_containers_memory_is_what_it_may_use(
    tmp_path: Path, group: str, files: dict[str, str], expected: tuple[int, int] | None
) -> None:
    own_group = tmp_path / "group"
    own_group.write_text(f"{group}\n")
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(f"{text}\n")
    found = main_memory(tmp_path, own_group)

    assert (found.total, found.free) == expected or (expected is None and found.total == psutil.virtual_memory().total)
