"""The notebook runs from top to bottom, on a tiny model and with few steps."""

import os
from pathlib import Path

import nbformat
import pytest
from launch import ROOT, TINY, environment
from nbclient import NotebookClient

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),  # of what starts a kernel
]


def test_the_notebook_runs(tmp_path: Path, shared_llama: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    own = [*TINY, f"model.source={shared_llama}", f"cache_dir={shared_llama.parent / 'cache'}"]
    more = {"NOTEBOOK_STEPS": "2", "NOTEBOOK_MODEL": " ".join(own)}
    for key in os.environ.keys() - environment().keys():
        monkeypatch.delenv(key)
    for key, value in {**environment(), **more, "IPYTHONDIR": str(tmp_path)}.items():
        monkeypatch.setenv(key, value)
    notebook = nbformat.read(ROOT / "docs" / "train_and_ask.ipynb", as_version=4)
    assert not any(cell.get("outputs") for cell in notebook.cells)  # nothing that went stale

    NotebookClient(notebook, timeout=300, resources={"metadata": {"path": str(tmp_path)}}).execute()

    streams = [
        [output for output in cell.get("outputs", []) if output.get("name") == "stdout"] for cell in notebook.cells
    ]
    printed = ["".join(output.text for output in outputs) for outputs in streams if outputs]
    assert printed[0].startswith("hf_local lora 2 steps")
    assert printed[-1].count("thinking o") == 4
