"""What a stage of a run leaves behind."""

import threading
import weakref
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from rich.console import Console
from taught import random_model

from nemo_reasoning import pipeline
from nemo_reasoning.data.chat import load_template
from nemo_reasoning.evaluation.report.training import evaluation_path
from nemo_reasoning.inference.hf import engine

__all__ = ["random_model"]


def test_the_measured_model_is_gone_before_training(
    random_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    models: list[weakref.ref[Any]] = []

    class Noted(engine.HFEngine):
        def __init__(self, *args: Any, **kwargs: Any) -> None:
            super().__init__(*args, **kwargs)
            models.append(weakref.ref(self.model))

    monkeypatch.setattr(engine, "HFEngine", Noted)
    settings = SimpleNamespace(
        evaluate=1, measured_before=1, data=SimpleNamespace(seed=1), trainer=SimpleNamespace(seq_length=256)
    )
    run: Any = SimpleNamespace(path=tmp_path, settings=settings)
    inputs: Any = SimpleNamespace(tokenizer=random_model, formatter=SimpleNamespace(template=load_template("chatml")))
    path = evaluation_path(tmp_path, "base")
    before = set(threading.enumerate())
    pipeline._measure("base", run, inputs, console=Console(quiet=True))
    assert path.is_file()
    assert [model() for model in models] == [None]
    assert "inference" not in {thread.name for thread in set(threading.enumerate()) - before}
