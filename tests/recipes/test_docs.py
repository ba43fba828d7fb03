"""Pages that scripts write are those that the scripts would write now."""

import runpy

import pytest
from hydra.core.config_store import ConfigStore
from launch import ROOT


@pytest.mark.parametrize(("script", "made"), [("reference.py", "configuration.md"), ("rooms.py", "images/rooms.svg")])
def test_a_page_is_up_to_date(script: str, made: str) -> None:
    ConfigStore.instance().store(group="trainer", name="trainer", node={"devices": 1})  # as NeMo does when imported
    written = (ROOT / "docs" / made).read_text(encoding="utf-8")
    assert runpy.run_path(str(ROOT / "tools" / script))["page"]() == written, f"run tools/{script}"
