import multiprocessing
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from prepared_rows import corpus, digests, prepared

from nemo_reasoning.config.data import Executor
from nemo_reasoning.data.prepare import executors
from nemo_reasoning.errors import DataError


def square(number: int) -> int:
    return number * number


def dying(number: int) -> int:
    if number == 3 and multiprocessing.parent_process() is not None:
        os._exit(9)
    return number


def test_results_keep_their_order() -> None:
    inputs = list(range(50))
    expected = [square(number) for number in inputs]
    for workers in (1, 3):
        assert list(executors.run(square, inputs, engine=Executor.local, workers=workers)) == expected


def test_a_worker_that_dies_is_named() -> None:
    with pytest.raises(DataError, match=r"a worker was killed.*fewer data\.workers"):
        list(executors.run(dying, range(8), engine=Executor.local, workers=2))


@pytest.fixture
def ray_address() -> Iterator[None]:
    yield
    import ray

    ray.shutdown()


@pytest.mark.slow
@pytest.mark.usefixtures("ray_address")
def test_a_cluster_writes_the_same_bytes_as_processes(tmp_path: Path) -> None:
    path = corpus(tmp_path / "rows.jsonl", 1500)
    chosen = ("data=jsonl", f"data.paths=[{path}]", "data.rows=1000", "data.shard_mb=1", "data.fast_tokenizer=false")
    for engine in ("local", "ray"):
        prepared(tmp_path / engine / "out", *chosen, f"data.engine={engine}", "data.workers=2")
    assert digests(tmp_path / "local" / "out") == digests(tmp_path / "ray" / "out")
