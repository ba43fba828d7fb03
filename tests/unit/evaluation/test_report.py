"""The report of a run folder: its numbers, its page, its pictures and its table."""

import json
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from matplotlib.image import imread
from scripted import Script, ScriptedEngine

from nemo_reasoning.artifacts import write_json
from nemo_reasoning.data.builtin import held_out
from nemo_reasoning.errors import DataError
from nemo_reasoning.evaluation.report.training import (
    evaluation_path,
    load_report,
    report_table,
    sample_dialogues,
    write_report,
)
from nemo_reasoning.evaluation.runner import evaluate_problems
from nemo_reasoning.reasoning.messages import Mode
from nemo_reasoning.reasoning.tags import with_thinking
from nemo_reasoning.terminal import plain_console
from nemo_reasoning.training.usage import USAGE_FILE

PROBLEMS = held_out(count=12, seed=3)
_BY_PROMPT = {problem.prompt: problem for problem in PROBLEMS}
_ATTACK = '<script>alert("x")</script> & the answer is 0.'
_GIB = 2**30


def untrained(prompt: str, mode: Mode) -> str:
    return _ATTACK


def trained(prompt: str, mode: Mode) -> str:
    problem = _BY_PROMPT[prompt]
    if mode == "off":
        return problem.final if problem.family == "product" else _ATTACK
    final = "The answer is <b>1</b>." if problem is PROBLEMS[-1] else problem.final
    return with_thinking(problem.trace + " <img src=x>", final)


def steps() -> list[dict[str, Any]]:
    """Twenty steps; the first takes three times as long as the others."""
    records: list[dict[str, Any]] = []
    for step in range(1, 21):
        seconds = 3.0 if step == 1 else 1.0
        records.append(
            {
                "step": step,
                "loss": 2.5 / step,
                "lr": 1e-3,
                "tokens_per_second": 900 / seconds,
                "supervised_tokens_per_second": 600 / seconds,
                "step_seconds": seconds,
                "rss_bytes": 2 * _GIB,
            }
        )
        if step % 10 == 0:
            records.append({"step": step, "val_loss": 2.6 / step})
    return records


def fill(folder: Path, records: list[dict[str, Any]], *, base: Script = untrained) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "metrics.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
    for stage, script in (("base", base), ("trained", trained)):
        evaluation = evaluate_problems(ScriptedEngine(script), PROBLEMS, max_new_tokens=1000)
        evaluation.save(evaluation_path(folder, stage))
    write_json(folder / USAGE_FILE, {"wall_seconds": 425.4, "peak_rss_bytes": 3_400_000_000})
    return folder


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = fill(tmp_path_factory.mktemp("runs") / "demo", steps())
    write_report(folder)
    return folder


class Page(HTMLParser):
    """The tags and the visible text of a page; an unclosed or misplaced tag is an error."""

    VOID = frozenset({"meta", "img", "br", "link"})

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.text = ""
        self.feed(html)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


@pytest.fixture(scope="module")
def page(run: Path) -> Page:
    return Page((run / "report.html").read_text(encoding="utf-8"))


def test_report_json_holds_the_counts_of_both_models_and_modes(run: Path) -> None:
    report = json.loads((run / "report.json").read_text())
    assert set(report) == {
        "base", "trained", "wall_seconds", "peak_rss_bytes", "supervised_tokens_per_second"
    }  # fmt: skip
    counts = {
        (stage, mode): tuple(report[stage][mode][key] for key in ("n", "correct", "well_formed"))
        for stage in ("base", "trained")
        for mode in ("on", "off")
    }
    assert counts == {
        ("base", "on"): (12, 0, 0),
        ("base", "off"): (12, 0, 12),
        ("trained", "on"): (12, 11, 12),
        ("trained", "off"): (12, 4, 12),
    }
    assert report["base"]["on"]["mean_tokens"] == len(_ATTACK)
    assert report["trained"]["on"]["families"]["total"] == {"n": 4, "correct": 3}
    low, high = report["trained"]["on"]["accuracy_interval"]
    assert (low, high) == (pytest.approx(0.6461, abs=1e-4), pytest.approx(0.9851, abs=1e-4))  # R: prop.test
    assert (report["wall_seconds"], report["peak_rss_bytes"]) == (425.4, 3_400_000_000)


def test_speed_is_tokens_over_time_and_not_the_mean_of_rates(run: Path) -> None:
    assert load_report(run).supervised_tokens_per_second == pytest.approx(600 * 20 / 22)


def test_the_page_needs_nothing_but_itself(run: Path, page: Page) -> None:
    sources = [attrs["src"] for _, attrs in page.tags if "src" in attrs]
    assert len(sources) == 3
    assert all(source is not None and source.startswith("data:image/png;base64,") for source in sources)
    assert not any("href" in attrs for _, attrs in page.tags)
    assert not re.search(r"https?:|@import|url\(", (run / "report.html").read_text())


def test_the_page_fits_a_phone(page: Page) -> None:
    viewports = [attrs["content"] for tag, attrs in page.tags if attrs.get("name") == "viewport"]
    assert viewports == ["width=device-width, initial-scale=1"]


def test_what_the_model_wrote_is_shown_and_never_obeyed(page: Page) -> None:
    assert not {"script", "iframe"} & {tag for tag, _ in page.tags}
    assert sum(tag == "img" for tag, _ in page.tags) == 3
    assert "<img src=x>" in page.text
    assert "The answer is <b>1</b>." in page.text


def test_the_page_shows_numbers_thinking_and_answers(page: Page) -> None:
    for shown in ("11/12", "91.7 %", "64.6–98.5", "7 min 05 s", "3.40 GB", "545", "0.125", "0.130"):
        assert shown in page.text
    assert PROBLEMS[0].prompt in page.text
    assert PROBLEMS[0].trace in page.text
    assert PROBLEMS[0].final in page.text


def test_three_dialogues_show_both_modes_and_a_mistake(run: Path) -> None:
    samples = [sample for _, sample in sample_dialogues(load_report(run))]
    assert [(sample.mode, sample.correct) for sample in samples] == [
        ("on", True),
        ("off", True),
        ("on", False),
    ]
    assert samples[0].prompt == samples[1].prompt == PROBLEMS[0].prompt
    assert samples[2].prompt == PROBLEMS[-1].prompt


def test_the_plots_are_pictures_with_something_drawn(run: Path) -> None:
    for name in ("loss", "throughput", "memory"):
        pixels = imread(run / "plots" / f"{name}.png")
        assert pixels.shape[0] > 300
        assert pixels.shape[1] > 500
        assert 0.005 < (pixels[..., :3].min(axis=-1) < 0.8).mean() < 0.3


def test_gpu_memory_is_drawn_where_there_is_some(tmp_path: Path) -> None:
    records = [
        record | {f"vram_{kind}_bytes": 20 * _GIB for kind in ("peak", "reserved", "allocated")} for record in steps()
    ]
    write_report(fill(tmp_path / "gpu", records))
    write_report(fill(tmp_path / "cpu", steps()))
    on_gpu, on_cpu = ((tmp_path / kind / "plots" / "memory.png").read_bytes() for kind in ("gpu", "cpu"))
    assert on_gpu != on_cpu


def test_a_curve_that_was_not_recorded_is_named(tmp_path: Path) -> None:
    kept = [{key: value for key, value in record.items() if key != "rss_bytes"} for record in steps()]
    write_report(fill(tmp_path / "run", kept))
    assert "Memory while training: not recorded" in (tmp_path / "run" / "report.html").read_text()
    assert not (tmp_path / "run" / "plots" / "memory.png").exists()


def test_numbers_that_json_cannot_hold_leave_gaps(tmp_path: Path) -> None:
    records = steps()
    records[4] |= {"loss": None, "supervised_tokens_per_second": None}
    report = write_report(fill(tmp_path / "run", records))
    assert report.supervised_tokens_per_second == pytest.approx(600 * 19 / 21)


def test_the_report_is_rebuilt_from_files_alone(run: Path, tmp_path: Path) -> None:
    copy = tmp_path / "demo"
    for name in ("metrics.jsonl", "evaluation/base.jsonl", "evaluation/trained.jsonl", "evaluation/run.json"):
        (copy / name).parent.mkdir(parents=True, exist_ok=True)
        (copy / name).write_bytes((run / name).read_bytes())
    write_report(copy)
    for name in ("report.json", "report.html", "plots/loss.png", "plots/throughput.png", "plots/memory.png"):
        assert (copy / name).read_bytes() == (run / name).read_bytes()


def test_the_terminal_table_has_a_row_per_model_and_mode(run: Path) -> None:
    console = plain_console(width=140)
    with console.capture() as capture:
        console.print(report_table(load_report(run)))
    rows = [line for line in capture.get().splitlines() if "/12" in line]
    assert len(rows) == 4
    for shown in ("after", "on", "11/12", "91.7 %  [64.6–98.5]"):
        assert shown in rows[2]


@pytest.mark.parametrize("missing", ["metrics.jsonl", "evaluation/run.json", "evaluation/base.jsonl"])
def test_a_missing_file_is_named(tmp_path: Path, missing: str) -> None:
    folder = fill(tmp_path / "run", steps())
    (folder / missing).unlink()
    with pytest.raises(DataError, match=missing):
        write_report(folder)


def test_a_run_without_throughput_is_refused(tmp_path: Path) -> None:
    folder = fill(tmp_path / "run", [{"step": 1, "loss": 1.0}])
    with pytest.raises(DataError, match="throughput"):
        write_report(folder)
