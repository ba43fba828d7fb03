"""Fixtures shared by all tests. Nothing here reaches a network or a model hub."""

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

settings.register_profile("untimed", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("untimed")
os.environ.setdefault("HF_HUB_OFFLINE", "1")
sys.path.insert(0, str(Path(__file__).parent))


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put files with slow tests first, so that no process is left with one of them when the others are done."""
    slow = {item.path for item in items if item.get_closest_marker("slow")}
    items.sort(key=lambda item: item.path not in slow)


@pytest.fixture(scope="session")
def cache_dir() -> Path:
    """Return where converted and imported base models are kept between test runs."""
    path = Path(os.environ.get("NEMO_REASONING_CACHE", "~/.cache/nemo_reasoning")).expanduser()
    path.mkdir(parents=True, exist_ok=True)
    return path


@pytest.fixture(scope="session")
def smollm2_hf(cache_dir: Path) -> Path:
    """Return the Hugging Face directory of the packaged 135M model."""
    from nemo_reasoning.models.hub import PACKAGED_MODEL, fetch_base

    return fetch_base(PACKAGED_MODEL, revision=None, cache_dir=cache_dir).path


@pytest.fixture
def tiny_llama(tmp_path: Path) -> Path:
    """Return the directory of a random two-layer Llama with a ChatML tokenizer."""
    from tiny import save_tiny_llama

    return save_tiny_llama(tmp_path / "tiny")


@pytest.fixture(scope="session")
def shared_llama(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the directory of that model once for all test processes, which keep its import beside it."""
    from tiny import save_tiny_llama

    from nemo_reasoning.artifacts import cached_folder

    base = tmp_path_factory.getbasetemp()
    shared = base.parent if "PYTEST_XDIST_WORKER" in os.environ else base
    return cached_folder(shared / "shared" / "tiny", save_tiny_llama)


@pytest.fixture
def nemo_cpu() -> Iterator[None]:
    """Run a test with NeMo on the CPU and torch layers."""
    from nemo_reasoning.backend.runtime import backend

    with backend(cuda=False, transformer_engine=False):
        yield
