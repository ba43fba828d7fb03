"""Benchmarks are read from the layouts of the hub, and ordered by a recorded seed."""

import json
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub.errors import GatedRepoError
from requests import Response
from settings_of import DATA, evaluate_settings

from nemo_reasoning.config.evaluate import BenchmarkSettings
from nemo_reasoning.errors import ConfigError, DataError
from nemo_reasoning.evaluation.benchmarks.load import Benchmark, load_benchmark


def settings(name: str, **changes: Any) -> BenchmarkSettings:
    """Return the settings of conf/benchmark, at our copy."""
    found = evaluate_settings([name]).benchmark[name]
    for key, value in changes.items():
        setattr(found, key, value)
    return found


def load(name: str, *, limit: int | None = None, as_nvidia: bool = False, **changes: Any) -> Benchmark:
    return load_benchmark(name, settings(name, **changes), seed=0, limit=limit, as_nvidia=as_nvidia)


@pytest.mark.parametrize(
    ("name", "count", "answer", "kind", "subject"),
    [
        ("gpqa_diamond", 6, None, "choice", "Physics"),
        ("gpqa_main", 12, None, "choice", "Physics"),
        ("mmlu", 24, None, "choice", "elementary_mathematics"),
        ("mmlu_nvidia", 37, None, "choice", ""),
        ("mmlu_pro", 4, "C", "choice", "physics"),
        ("gsm8k", 6, None, "number", "gsm8k"),
        ("math500", 4, "\\left( 3, \\frac{\\pi}{2} \\right)", "math", "Precalculus"),
        ("aime24", 3, "049", "math", "train-00000-of-00001"),
        ("aime25", 3, "243", "math", "test"),
        ("jsonl", 5, "42", "number", "mine"),
        ("builtin", 120, None, "number", "product"),
    ],
)
def test_every_benchmark_is_read(name: str, count: int, answer: str | None, kind: str, subject: str) -> None:
    benchmark = load(name)
    first = benchmark.questions[0]
    assert (len(benchmark.questions), first.kind, first.subject) == (count, kind, subject)
    assert len({question.id for question in benchmark.questions}) == count
    assert answer is None or first.answer == answer
    for question in benchmark.questions:
        assert question.extract(f"The answer is {question.answer}.") is not None
        assert question.accepts(question.answer)
        assert all(choice == choice.strip() for choice in question.choices)


def test_the_gold_choice_keeps_its_letter_through_the_shuffling() -> None:
    gpqa = load("gpqa_main").questions
    assert gpqa[0].choices[ord(gpqa[0].answer) - 65] == "8 m/s"
    assert len({question.answer for question in gpqa}) > 2
    mmlu = {question.text: question for question in load("mmlu", shuffle=True).questions}
    question = mmlu["Which of these is the capital of France?"]
    assert question.choices[ord(question.answer) - 65] == "Paris"


def test_the_order_of_choices_depends_on_the_question_and_the_seed_alone() -> None:
    main = {question.id: question for question in load("gpqa_main").questions}
    assert all(main[question.id] == question for question in load("gpqa_diamond").questions)
    assert all(main[question.id] == question for question in load("gpqa_main", limit=5).questions)
    other = load_benchmark("gpqa_main", settings("gpqa_main"), seed=1, limit=None).questions
    assert [question.choices for question in other] != [question.choices for question in main.values()]


def test_nvidias_order_is_one_stream_of_seed_42() -> None:
    from random import Random

    found = load("gpqa_main", as_nvidia=True).questions
    stream = Random(42)
    for question, unshuffled in zip(found, load("gpqa_main", shuffle=False).questions, strict=True):
        answers = [(choice, place == 0) for place, choice in enumerate(unshuffled.choices)]
        stream.shuffle(answers)
        assert [choice for choice, _ in answers] == list(question.choices)
        assert answers[ord(question.answer) - 65][1]


def test_the_authors_csv_files_hold_the_same_questions_as_the_hub() -> None:
    hub = load("mmlu").questions
    csv = load("mmlu", source=str(DATA / "mmlu_csv"), files=["data/test/*_test.csv"]).questions
    assert [(q.text, q.choices, q.answer, q.subject) for q in csv] == [
        (q.text, q.choices, q.answer, q.subject) for q in hub
    ]


def test_padding_choices_of_mmlu_pro_are_dropped() -> None:
    assert [len(question.choices) for question in load("mmlu_pro").questions] == [10, 10, 4, 3]


def test_subjects_and_limits() -> None:
    chosen = load("mmlu", subjects=["high_school_biology"])
    assert {question.subject for question in chosen.questions} == {"high_school_biology"}
    drawn = load("mmlu", limit=7).questions
    assert drawn == load("mmlu", limit=7).questions
    assert len(drawn) == 7
    assert len({question.subject for question in drawn}) > 1
    with pytest.raises(ConfigError, match=r"benchmark.mmlu.subjects: alchemy not found; there are elementary"):
        load("mmlu", subjects=["alchemy"])


def test_examples_come_from_the_subject_of_the_question() -> None:
    examples = load("mmlu", few_shot=2).examples
    assert {subject: len(shown) for subject, shown in examples.items()} == {
        "": 2, "elementary_mathematics": 2, "high_school_biology": 2, "high_school_geography": 2
    }  # fmt: skip
    assert {question.subject for question in examples["high_school_biology"]} == {"high_school_biology"}
    with pytest.raises(ConfigError, match="has no examples"):
        load("math500", few_shot=2)


def test_files_are_recorded_with_their_hashes() -> None:
    origin = load("gpqa_diamond").origin
    assert list(origin["files"]) == ["gpqa_diamond.csv"]
    assert len(origin["files"]["gpqa_diamond.csv"]) == 64


def test_a_copy_in_one_folder_will_do(tmp_path: Path) -> None:
    name = "test-00000-of-00001.parquet"
    (tmp_path / name).write_bytes((DATA / "mmlu" / "all" / name).read_bytes())
    assert len(load("mmlu", source=str(tmp_path)).questions) == 24


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ({"question": "What?"}, "row 0: not in the layout 'jsonl'"),
        ({"question": "What?", "answer": "C", "choices": ["x", "y"]}, "choice 2 of 2 is right"),
        ({"question": "What?", "answer": "1", "kind": "poem"}, "kind is 'poem'"),
    ],
)
def test_a_row_that_is_no_question_is_named(tmp_path: Path, line: dict[str, Any], message: str) -> None:
    (tmp_path / "own.jsonl").write_text(json.dumps(line) + "\n")
    with pytest.raises(DataError, match=message):
        load("jsonl", source=str(tmp_path))


def test_files_that_cannot_be_used_are_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"holds no \*\.jsonl"):
        load("jsonl", source=str(tmp_path))
    (tmp_path / "own.jsonl").write_text("{")
    with pytest.raises(DataError, match=r"own\.jsonl cannot be read"):
        load("jsonl", source=str(tmp_path))
    (tmp_path / "own.jsonl").write_text('{"question": "What?", "answer": "1", "id": 7}\n' * 2)
    with pytest.raises(DataError, match="1 ids occur more than once, such as '7'"):
        load("jsonl", source=str(tmp_path))
    with pytest.raises(ConfigError, match="benchmark.jsonl.source=null"):
        load("jsonl", source=None)
    (tmp_path / "broken.parquet").write_text("no parquet")
    with pytest.raises(DataError, match=r"broken\.parquet cannot be read"):
        load("mmlu", source=str(tmp_path), files=["broken.parquet"])


def test_a_gated_set_says_what_to_accept(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args: Any, **options: Any) -> None:
        raise GatedRepoError("403", response=Response())

    monkeypatch.setattr("huggingface_hub.snapshot_download", refuse)
    with pytest.raises(DataError, match=r"accept its terms at https://huggingface.co/datasets/Idavidrein/gpqa, .*HF"):
        load("gpqa_diamond", source="Idavidrein/gpqa")


def test_without_a_network_the_remedy_is_a_copy() -> None:
    with pytest.raises(
        DataError, match=r"download all/test-\*\.parquet .*from https://huggingface.co/datasets/cais/mmlu"
    ):
        load("mmlu", source="cais/mmlu")
