"""Two models on three benchmarks: the report's numbers, its page and pictures, lm-eval's files, and comparisons."""

import json
from html.parser import HTMLParser
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from matplotlib.image import imread
from rich.console import Console
from scripted import ScriptedEngine
from settings_of import evaluate_settings, gold

from nemo_reasoning.config.evaluate import EvaluateSettings, validate
from nemo_reasoning.errors import ConfigError, DataError, TemplateError
from nemo_reasoning.evaluation import candidates as candidate_models
from nemo_reasoning.evaluation import evaluate
from nemo_reasoning.evaluation.candidates import Candidate, candidates
from nemo_reasoning.evaluation.compare import compare
from nemo_reasoning.inference.openai_client import OpenAIEngine, RemoteModel
from nemo_reasoning.inference.request import GenerationRequest
from nemo_reasoning.reasoning.messages import Message, Mode
from nemo_reasoning.reasoning.tags import with_thinking

BENCHMARKS = ["mmlu", "math500", "gsm8k"]
_ATTACK = '<script>alert("x")</script> I cannot answer this.'


class Models:
    """A base model that answers a third of the questions, and a trained one that answers all with thinking."""

    def __init__(self, settings: EvaluateSettings) -> None:
        self.answers = gold(settings)
        self.engines: dict[str, ScriptedEngine] = {}

    def candidates(self, settings: EvaluateSettings) -> list[Candidate]:
        return [
            Candidate(name=name, identity=name, load=lambda name=name: self.load(name))
            for name in ("base", "trained")
        ]  # fmt: skip

    def load(self, name: str) -> ScriptedEngine:
        def script(prompt: str, mode: Mode) -> str:
            place, answer = next(
                (place, answer) for place, (text, answer) in enumerate(self.answers.items()) if text in prompt
            )
            right = mode == "on" if name == "trained" else place % 3 == 0
            final = f"The answer is {answer}." if right else _ATTACK
            return with_thinking("step " * (place + 1), final) if mode == "on" else final

        self.engines[name] = ScriptedEngine(script)
        return self.engines[name]


def measured(folder: Path, *overrides: str) -> tuple[Models, str]:
    """Measure both models; return them, and what was printed."""
    settings = evaluate_settings(BENCHMARKS, f"output_dir={folder}", "checkpoint=demo", *overrides)
    models, printed = Models(settings), StringIO()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(evaluate, "candidates", models.candidates)
        evaluate.evaluate_models(settings, Console(file=printed, width=160))
    return models, printed.getvalue()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("runs") / "demo"
    measured(path)
    return path


@pytest.fixture(scope="module")
def report(folder: Path) -> Any:
    return json.loads((folder / "report.json").read_text())


def row(report: Any, benchmark: str, model: str, mode: str) -> Any:
    rows = report["benchmarks"][benchmark]["scores"]
    return next(found for found in rows if (found["model"], found["mode"]) == (model, mode))


def test_the_report_holds_scores_gains_and_how_it_was_measured(report: Any) -> None:
    trained, base = row(report, "mmlu", "trained", "on"), row(report, "mmlu", "base", "on")
    assert (trained["n"], trained["correct"], trained["refused"]) == (24, 24, 0)
    assert (base["correct"], base["refused"], base["unanswered"]) == (8, 16, 16)
    [on, off] = report["benchmarks"]["mmlu"]["gain"]
    assert (on["difference"], on["gained"], on["lost"]) == (pytest.approx(2 / 3), 16, 0)
    assert on["p_value"] == pytest.approx(2**-15)
    assert (off["mode"], off["difference"]) == ("off", pytest.approx(-1 / 3))
    [base_thinks, trained_thinks] = report["benchmarks"]["mmlu"]["thinking_gain"]
    assert (base_thinks["difference"], trained_thinks["difference"]) == (0, 1)
    assert report["settings"]["protocol"]["max_tokens"] == 16384
    assert len(report["origins"]["mmlu"]["files"]["test-00000-of-00001.parquet"]) == 64


class Page(HTMLParser):
    """Tags and visible text."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(html)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text += data


def test_the_page_shows_the_table_and_obeys_nothing_a_model_wrote(folder: Path) -> None:
    page = Page((folder / "report.html").read_text(encoding="utf-8"))
    for shown in ("+66.7", "8/24", "16 won, 0 lost", "refused", "Accuracy against thinking", "greedy", "100.0 %"):
        assert shown in page.text
    assert _ATTACK in page.text
    assert "script" not in {tag for tag, _ in page.tags}
    sources = [attributes["src"] for tag, attributes in page.tags if tag == "img"]
    assert len(sources) == 4
    assert all(source is not None and source.startswith("data:image/png;base64,") for source in sources)


def test_the_pictures_are_drawn(folder: Path) -> None:
    names = {path.stem for path in (folder / "plots").iterdir()}
    assert names == {"modes", "thinking", "subjects_mmlu", "subjects_math500"}
    for name in names:
        pixels = imread(folder / "plots" / f"{name}.png")
        assert (pixels[..., :3].min(axis=-1) < 0.8).mean() > 0.005


def test_lm_evals_files_are_written_too(folder: Path) -> None:
    [path] = (folder / "lm_eval" / "trained").glob("results_*.json")
    results = json.loads(path.read_text())
    assert results["results"]["mmlu_thinking_on"]["exact_match,none"] == 1.0
    assert results["n-samples"]["mmlu_thinking_off"] == {"original": 24, "effective": 24}
    date = path.stem.removeprefix("results_")
    lines = (path.parent / f"samples_mmlu_thinking_on_{date}.jsonl").read_text().splitlines()
    sample = json.loads(lines[0])
    assert len(lines) == 24
    assert (sample["exact_match"], sample["filtered_resps"]) == (1.0, [sample["target"]])


def test_a_finished_evaluation_asks_nothing_and_reports_the_same(folder: Path, report: Any) -> None:
    before = (folder / "report.json").read_bytes()
    models, printed = measured(folder)
    assert models.engines == {}
    assert (folder / "report.json").read_bytes() == before
    assert len(list((folder / "lm_eval" / "base").glob("results_*.json"))) == 1
    assert "+66.7" in printed


def test_several_samples_give_pass_and_majority(tmp_path: Path) -> None:
    measured(tmp_path, "samples=4", "reasoning=[on]", "limit=3")
    report = json.loads((tmp_path / "report.json").read_text())
    found = row(report, "mmlu", "trained", "on")
    assert (found["n"], found["questions"]) == (12, 3)
    assert found["pass_at"] == found["majority_at"] == {"1": 1.0, "2": 1.0, "4": 1.0}
    assert found["accuracy_interval"] == [pytest.approx(0.4385, abs=1e-4), 1.0]  # three questions, not twelve
    assert "maj@k" in (tmp_path / "report.html").read_text()


def test_two_evaluations_are_compared_on_common_questions(folder: Path, tmp_path: Path) -> None:
    measured(tmp_path / "few", "limit=4")
    printed = StringIO()
    compare([folder, tmp_path / "few"], seed=0, console=Console(file=printed, width=200))
    line = next(line for line in printed.getvalue().splitlines() if line.startswith("│ mmlu"))
    assert " 4 " in line
    assert "+0.0" in line
    with pytest.raises(ConfigError, match="give two folders"):
        compare([folder], seed=0, console=Console(file=printed))
    with pytest.raises(DataError, match=r"holds no report\.json"):
        compare([folder, tmp_path], seed=0, console=Console(file=printed))


def test_contaminated_questions_are_named_and_left_out(tmp_path: Path) -> None:
    settings = evaluate_settings(["mmlu"], f"output_dir={tmp_path / 'out'}", f"checkpoint={tmp_path}")
    models = Models(settings)
    text = "Which of these is the capital of France?"
    (tmp_path / "data").mkdir()
    (tmp_path / "config.yaml").touch()  # what tells a run
    rows = {"messages": [{"role": "user", "content": text}]}
    (tmp_path / "data" / "training.jsonl").write_text(json.dumps(rows) + "\n")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(evaluate, "candidates", models.candidates)
        evaluate.evaluate_models(settings, Console(file=StringIO()))
    report = json.loads((tmp_path / "out" / "report.json").read_text())
    assert report["benchmarks"]["mmlu"]["contaminated"] == ["test-00000-of-00001/16"]
    assert row(report, "mmlu", "base", "on")["accuracy_without_contaminated"] == pytest.approx(8 / 23, abs=1 / 23)
    assert "1 of 24" in (tmp_path / "out" / "report.html").read_text()


def test_an_engine_is_opened_once_if_at_all_and_closed() -> None:
    opened: list[OpenAIEngine] = []

    def load() -> OpenAIEngine:
        opened.append(
            OpenAIEngine(
                RemoteModel(url="http://localhost/v1", name="m", concurrency=1, api_key_variable="NO_SUCH_KEY")
            )
        )
        return opened[-1]

    with evaluate.opened_once(load) as engine:
        assert opened == []
        assert engine() is engine()
    assert len(opened) == 1
    with pytest.raises(RuntimeError, match="shutdown"):
        opened[0].submit(GenerationRequest(messages=(Message("user", "?"),), mode="on", max_new_tokens=1), print)


@pytest.fixture
def plain() -> EvaluateSettings:
    return evaluate_settings(["builtin"])


def test_settings_that_cannot_be_measured_are_refused(plain: EvaluateSettings) -> None:
    plain.checkpoint, plain.samples, plain.concurrency, plain.budget = "x", 2, 0, [-1]
    with pytest.raises(ConfigError) as refused:
        validate(plain)
    problems = str(refused.value).splitlines()
    assert len(problems) == 3
    for problem, parts in zip(
        problems, ("concurrency=0", "budget=[-1]", "protocol.thinking_off.temperature"), strict=True
    ):
        assert parts in problem


@pytest.mark.parametrize(
    ("checkpoint", "url", "name", "problem"),
    [
        (None, None, None, "give either checkpoint="),
        ("outputs/demo", "http://localhost/v1", "m", "give either checkpoint="),
        (None, "http://localhost/v1", None, "model_name=null"),
        (None, "localhost:8000/v1", "m", "url=localhost:8000/v1: begin with http://"),
    ],
)
def test_models_that_are_not_named_are_refused(
    plain: EvaluateSettings, checkpoint: str | None, url: str | None, name: str | None, problem: str
) -> None:
    plain.checkpoint, plain.url, plain.model_name = checkpoint, url, name
    with pytest.raises(ConfigError) as refused:
        validate(plain)
    assert problem in str(refused.value)


def test_a_server_is_one_model(plain: EvaluateSettings) -> None:
    plain.url, plain.model_name = "http://localhost/v1", "m"
    validate(plain)
    (found,) = candidates(plain)
    assert found.name == "model"
    plain.template = "chatml"  # with no switch of its own
    assert candidates(plain)[0].identity == found.identity


def test_a_server_is_switched_by_its_template(plain: EvaluateSettings, monkeypatch: pytest.MonkeyPatch) -> None:
    plain.url, plain.model_name, plain.template = "http://localhost/v1", "m", "qwen3"
    asked: list[RemoteModel] = []
    monkeypatch.setattr(candidate_models, "_load", lambda where, settings: asked.append(where))
    (found,) = candidates(plain)
    found.load()
    assert asked[0].arguments == ("enable_thinking",)
    plain.template = None
    assert candidates(plain)[0].identity != found.identity
    plain.template = "no_such"
    with pytest.raises(TemplateError, match="no_such is neither a file nor one of"):
        candidates(plain)


def test_a_directory_is_one_model(plain: EvaluateSettings, tiny_llama: Path, tmp_path: Path) -> None:
    plain.checkpoint, plain.cache_dir = str(tiny_llama), str(tmp_path)
    assert [found.name for found in candidates(plain)] == ["model"]
