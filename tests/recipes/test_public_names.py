"""The public names: which they are, that importing them is lazy, and that the page about them runs."""

import re
from pathlib import Path
from textwrap import indent

import pytest
from launch import ROOT, environment, tiny_overrides, warm

import nemo_reasoning

BLOCKS = re.findall(r"```python\n(.*?)```", (ROOT / "docs" / "api.md").read_text(encoding="utf-8"), re.DOTALL)


def test_the_public_names() -> None:
    assert sorted(nemo_reasoning.__all__) == [
        *("GenerationRequest", "Message", "NemoReasoningError", "Run", "answers_equal", "compose_settings"),
        *("estimate_batch_size", "export_run", "find_switch", "fine_tune", "fit_to_memory", "load_engine"),
        "resolve_checkpoint",
    ]
    for name in nemo_reasoning.__all__:
        assert getattr(nemo_reasoning, name).__doc__, name
        assert any(f"nr.{name}" in block for block in BLOCKS), f"docs/api.md does not show {name}"
    with pytest.raises(AttributeError, match="no_such_name"):
        _ = nemo_reasoning.no_such_name


@pytest.mark.slow
def test_the_page_about_them_runs(tmp_path: Path, shared_llama: Path) -> None:
    short = tiny_overrides(
        shared_llama, tmp_path / "demo", "name=demo", "trainer.max_steps=4", "trainer.eval_interval=2"
    )
    script = "\n".join(BLOCKS).replace('"experiment=demo"', ", ".join(map(repr, short)))
    guarded = 'if __name__ == "__main__":\n' + indent(script, "    ")
    (tmp_path / "page.py").write_text(guarded, encoding="utf-8")
    code, text, errors = warm().run([str(tmp_path / "page.py")], environment())
    assert code == 0, text + errors
    printed = text.splitlines()
    assert printed[0] == "64 ['linear_qkv', 'linear_proj', 'linear_fc1', 'linear_fc2']"
    assert "- model=llama3_8bb: there is no such choice; did you mean llama3_8b?" in printed
    assert "demo 4" in text
    assert printed[-1] == "True True False"
