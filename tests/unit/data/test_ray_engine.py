import multiprocessing
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from prepared_rows import corpus, digests, prepared
from ray_workers import dies, dies_once, refuses

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
        assert list(executors.run(square, inputs, workers=workers)) == expected


def test_a_worker_that_dies_is_named() -> None:
    with pytest.raises(DataError, match=r"a worker was killed.*fewer data\.workers"):
        list(executors.run(dying, range(8), workers=2))


@pytest.fixture(scope="module")
def ray_cluster() -> Iterator[None]:
    import ray

    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("PYTHONPATH", str(Path(__file__).parent))
        ray.init("local", log_to_driver=False, include_dashboard=False, num_cpus=2)
    yield
    ray.shutdown()


def on_cluster(function: Callable[[Path], Any], folder: Path, count: int = 4) -> list[Any]:
    from nemo_reasoning.data.prepare.ray_cluster import joined, run

    with joined(folder):
        return list(run(function, [folder / str(number) for number in range(count)], workers=2))


def test_a_cluster_that_is_not_there_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_ADDRESS", "127.0.0.1:1")
    with pytest.raises(
        DataError, match=r"\Adata.engine=ray: the cluster at RAY_ADDRESS=127.0.0.1:1 cannot be used \(.*\Z"
    ):
        on_cluster(dies_once, tmp_path)


@pytest.mark.slow
@pytest.mark.usefixtures("ray_cluster")
def test_a_cluster_writes_the_same_bytes_as_processes(tmp_path: Path) -> None:
    path = corpus(tmp_path / "rows.jsonl", 1500)
    chosen = ("data=jsonl", f"data.paths=[{path}]", "data.rows=1000", "data.shard_mb=1", "data.fast_tokenizer=false")
    for engine in ("local", "ray"):
        prepared(tmp_path / engine / "out", *chosen, f"data.engine={engine}", "data.workers=2")
    assert digests(tmp_path / "local" / "out") == digests(tmp_path / "ray" / "out")


@pytest.mark.slow
@pytest.mark.usefixtures("ray_cluster")
def test_what_a_lost_worker_had_is_done_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from nemo_reasoning.data.prepare import ray_cluster

    assert on_cluster(dies_once, tmp_path) == ["0", "1", "2", "3"]
    monkeypatch.setattr(ray_cluster, "_ATTEMPTS", 2)
    with pytest.raises(DataError, match=r"^2 workers were lost over the same part of the rows \(.*run again"):
        on_cluster(dies, tmp_path, count=1)


@pytest.mark.usefixtures("ray_cluster")
def test_errors_of_workers_are_one_line_and_name_the_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from nemo_reasoning.data.prepare import ray_cluster

    with pytest.raises(DataError, match=r"\Aon [\d.]+: 0 cannot be read\Z"):
        on_cluster(refuses, tmp_path)
    monkeypatch.setattr(ray_cluster, "write_text", lambda path, word: path.write_text("another machine's"))
    with pytest.raises(DataError, match=rf"\A[\d.]+, a machine of the Ray cluster, does not see {tmp_path.parent} "):
        on_cluster(dies_once, tmp_path)
