"""The check on a GPU is rehearsed without one, and its page never holds a number that was not measured."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).parent))

from gpu_rows import ROWS, Measured, chosen_rows, page
from gpu_wheels import REQUIREMENTS, names

CHECK = Path(__file__).parent / "gpu_check.py"


def cells(text: str, title: str, tokens: str = "4,096") -> list[str]:
    """Return the cells of a row of the page."""
    (line,) = (line for line in text.splitlines() if line.startswith(f"| {title} | {tokens} |"))
    return [cell.strip() for cell in line.strip("|").split("|")]


def test_a_rehearsal_leaves_no_number() -> None:
    found = {row.name: Measured(tokens_per_second=123.0, first_loss=4.56) for row in ROWS[1:]}
    text = page(found, machine="no GPU", gpu=False, date="2026-01-01")

    assert "Nothing here was measured" in text
    assert not re.search(r"123|4\.56", text)
    assert text.count("not measured") == len(ROWS)
    assert f"{len(ROWS) - 1} of\n{len(ROWS)} rows ran" in text


def test_what_was_not_measured_says_why() -> None:
    found = {
        "lora": Measured(micro_batch=2, tokens_per_second=12345.6, mfu=0.41, peak_gib=61.25, first_loss=12.5),
        "hf": Measured(reason="out of memory"),
    }
    text = page(found, machine="NVIDIA H100", gpu=True, date="2026-01-01")

    assert cells(text, "8B LoRA")[1:6] == ["4,096", "2", "12,346", "41.0%", "61.25"]
    assert cells(text, "8B, Hugging Face + PEFT")[2] == "not measured: out of memory"
    assert cells(text, "8B QLoRA")[2] == "not measured: not asked for"
    assert len({line.count("|") for line in text.splitlines() if line.startswith("|")}) == 1


def test_rows_have_names() -> None:
    assert [row.name for row in chosen_rows(["qlora"])] == ["qlora"]
    with pytest.raises(SystemExit, match="--rows lroa: choose from cpu, lora,"):
        chosen_rows(["lroa"])


def test_a_stopped_run_has_the_rate_of_the_uninterrupted_one() -> None:
    stopped = [row for row in ROWS if any("trainer.max_steps=2" in more for more in row.again)]

    assert stopped
    assert all({"optim.min_lr_ratio=1", "optim.warmup_ratio=0"} <= set(row.overrides) for row in stopped)


def test_what_a_machine_has_need_not_be_carried() -> None:
    wanted = names(REQUIREMENTS.read_text())

    assert wanted["nemo-toolkit"].startswith("nemo-toolkit==2.7")
    assert not wanted.keys() & {"torch", "nemo-reasoning"}
    assert names("NumPy==1.26.4\n# said\nnemo_toolkit[llm]>=2\n").keys() == {"numpy", "nemo-toolkit"}


@pytest.mark.slow
def test_the_commands_run_without_a_gpu(tmp_path: Path) -> None:
    command = [sys.executable, str(CHECK), "--folder", str(tmp_path), "--page", str(tmp_path / "gpu.md")]
    done = subprocess.run(
        [*command, "--rows", "qlora", "hf"],
        env={**os.environ, "CUDA_VISIBLE_DEVICES": ""},
        capture_output=True,
        text=True,
        check=True,
    )

    assert "the commands of 1 of" in done.stdout
    assert "Did not run: hf: lora left no rows" in done.stdout
    assert '"first_loss": null' not in done.stdout.splitlines()[0]
