"""A checkpoint's context unpickles what NeMo writes, and nothing else."""

import io
import os
import pickle
import sys
from pathlib import Path

import pytest
import torch

from nemo_reasoning.backend.unpickling import limited_load, needed
from nemo_reasoning.errors import CheckpointError


class Attack:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.system, ("echo it ran",)


def test_what_nemo_writes_is_read() -> None:
    written = {"dtype": torch.bfloat16, "path": Path("nemo_tokenizer"), "activation": torch.nn.functional.silu}

    assert limited_load(io.BytesIO(pickle.dumps(written))) == written


def test_anything_else_is_refused_before_it_runs(capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(CheckpointError, match=r"context names (posix|os)\.system"):
        limited_load(io.BytesIO(pickle.dumps({"dtype": Attack()})))
    assert capfd.readouterr().out == ""


def test_the_installed_nemo_limits_itself_and_an_earlier_one_is_limited(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert needed() == ()

    package = tmp_path / "nemo" / "lightning" / "io"
    package.mkdir(parents=True)
    for folder in (package, package.parent, package.parent.parent):
        (folder / "__init__.py").touch()
    (package / "mixin.py").write_text("from cloudpickle import load as pickle_load\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    for name in [name for name in sys.modules if name.partition(".")[0] == "nemo"]:
        monkeypatch.delitem(sys.modules, name)
    (patch,) = needed()
    ((owner, attribute, value),) = patch.replacements()

    assert owner.__name__ == "nemo.lightning.io.mixin"
    assert (getattr(owner, attribute) is not value, value) == (True, limited_load)
