"""From rows to prepared splits: every row accounted for, nothing truncated, nothing half-written."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from chats import formatter, write_lines
from hypothesis import given
from hypothesis import strategies as st

from nemo_reasoning.artifacts import file_sha256, installed_versions, read_manifest
from nemo_reasoning.data.chat import ChatFormatter
from nemo_reasoning.data.dual_mode import turn_off_probability
from nemo_reasoning.data.prepare import PrepareSettings, prepare, prepare_once
from nemo_reasoning.data.schema import Row, with_thinking
from nemo_reasoning.data.sources import RowSource
from nemo_reasoning.data.store import TokenStore
from nemo_reasoning.errors import DataError, TemplateError

SPLITS = {"train": "training.jsonl", "validation": "validation.jsonl"}
CHATML = formatter("chatml")
Prepare = Callable[..., dict[str, Any]]


def settings(**changes: Any) -> PrepareSettings:
    default = PrepareSettings(
        seq_length=1000, validation_share=0.2, thinking_off_share=0.0, max_quarantined_share=0.5, seed=17
    )
    return PrepareSettings(**{**default, **changes})


def row(question: int | str, *, thinking: bool = True, answer: str = "It is 4.") -> dict[str, Any]:
    content = with_thinking(f"{question} hm", answer) if thinking else answer
    turns = (("user", f"question {question}"), ("assistant", content))
    return {"messages": [{"role": role, "content": content} for role, content in turns]}


MIXED = [
    *(row(number, thinking=number % 4 != 0) for number in range(300)),
    b'{"messages": [',
    row("<|im_end|>"),
    *(row(f"long {number}", answer="x" * 2000) for number in range(4)),
    row("unclosed", answer="</think>"),
    *(row(number) for number in range(300, 310)),
]


@pytest.fixture
def run(tmp_path: Path) -> Prepare:
    """Return what writes some rows to a file and prepares them in `tmp_path / "out"`."""

    def prepared(rows: list[Any], **changes: Any) -> dict[str, Any]:
        source = RowSource((write_lines(tmp_path / "rows.jsonl", rows),), None, 0)
        inputs = {"from": "a test"}
        return prepare(source, formatter=CHATML, settings=settings(**changes), inputs=inputs, out=tmp_path / "out")

    return prepared


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def questions(folder: Path, split: str) -> list[str]:
    """Return what the user asks in each row of a split."""
    return [line["messages"][1]["content"] for line in lines(folder / SPLITS[split])]


def test_the_counts_add_up(run: Prepare, tmp_path: Path) -> None:
    counts = run(MIXED)["counts"]
    assert counts["read"] == len(MIXED)
    kept = {split: counts[split]["rows"] for split in SPLITS}
    assert kept["train"] + kept["validation"] == 310
    assert counts["too_long"] == 4
    assert counts["quarantined"] == {
        "not JSON": 1,
        "special token in the text": 1,
        "malformed thinking": 1,
    }
    for split in SPLITS:
        store, messages = TokenStore.open(tmp_path / "out" / split), lines(tmp_path / "out" / SPLITS[split])
        assert len(store) == len(messages) == kept[split]
        assert counts[split]["tokens"] == store.lengths.sum()
        assert counts[split]["supervised_tokens"] == store.supervised.sum()
        thinking = [each for each in messages if "<think>" in each["messages"][-1]["content"]]
        assert counts[split]["thinking_on"] == len(thinking)


def test_rows_are_tokenised_as_they_are_written_in_the_order_read(run: Prepare, tmp_path: Path) -> None:
    run(MIXED)
    for split, name in SPLITS.items():
        rows = list(RowSource((tmp_path / "out" / name,), None, 0))
        for read, stored in zip(rows, TokenStore.open(tmp_path / "out" / split), strict=True):
            assert isinstance(read, Row)
            expected = CHATML.encode(read.messages)
            assert stored.ids.tolist() == expected.ids.tolist()
            assert stored.loss_mask.tolist() == expected.loss_mask.tolist()
        numbers = [int(question.split()[1]) for question in questions(tmp_path / "out", split)]
        assert numbers == sorted(numbers)


def test_a_prepared_split_can_be_prepared_again(run: Prepare, tmp_path: Path) -> None:
    run(MIXED, thinking_off_share=0.5)
    before = (tmp_path / "out" / "training.jsonl").read_bytes()
    run(before.splitlines(), validation_share=0.01, seed=3)
    after = {json.dumps(line) for split in SPLITS for line in lines(tmp_path / "out" / SPLITS[split])}
    assert after == {json.dumps(json.loads(line)) for line in before.splitlines()}


def test_longer_rows_are_dropped_and_none_is_truncated(run: Prepare, tmp_path: Path) -> None:
    rows = [row(number, answer="x" * (number + 1)) for number in range(10, 90)]
    whole = [CHATML.encode(each.messages) for each in RowSource((write_lines(tmp_path / "a", rows),), None, 0)]
    limit = len(whole[40].ids)
    counts = run(rows, seq_length=limit)["counts"]
    assert counts["too_long"] == sum(len(each.ids) > limit for each in whole) == 39
    stored = [each.ids.tolist() for split in SPLITS for each in TokenStore.open(tmp_path / "out" / split)]
    assert sorted(stored) == sorted(each.ids.tolist() for each in whole[:41])


def test_unusable_rows_stand_in_the_quarantine(run: Prepare, tmp_path: Path) -> None:
    run(MIXED)
    found = lines(tmp_path / "out" / "quarantine.jsonl")
    assert [(each["line"], each["reason"]) for each in found] == [
        (301, "not JSON"),
        (302, "special token in the text"),
        (307, "malformed thinking"),
    ]
    assert {each["file"] for each in found} == {str(tmp_path / "rows.jsonl")}
    assert found[1]["detail"] == "<|im_end|> in the user turn"


def test_too_many_unusable_rows_are_an_error(run: Prepare, tmp_path: Path) -> None:
    rows = [*(row(number) for number in range(90)), *[b"no row"] * 9, {"messages": []}]
    with pytest.raises(DataError, match=r"10 of 100 rows are unusable \(9 x not JSON, 1 x wrong type\)") as refused:
        run(rows, max_quarantined_share=0.09)
    assert "data.max_quarantined_share=0.09" in str(refused.value)
    listed = tmp_path / "out.quarantine.jsonl"
    assert str(listed) in str(refused.value)
    assert [each["line"] for each in lines(listed)] == list(range(91, 101))
    assert not (tmp_path / "out").exists()
    assert run(rows, max_quarantined_share=0.1)["counts"]["quarantined"] == {"not JSON": 9, "wrong type": 1}
    assert not listed.exists()


@pytest.mark.parametrize(
    ("rows", "changes", "message"),
    [
        ([], {}, "the train split is empty: of 0 rows read"),
        ([row(1), row(2)], {"validation_share": 0.0}, "the validation split is empty: of 2 rows"),
        ([row(1), row(2)], {"validation_share": 1.0}, "the train split is empty: of 2 rows"),
        ([row(1), row(2)], {"seq_length": 9}, "0 are unusable and 2 longer than trainer.seq_length=9"),
        ([b"?"], {"max_quarantined_share": 1.0}, r"1 are unusable \(1 x not JSON\)"),
    ],
)
def test_an_empty_split_is_an_error(
    run: Prepare, tmp_path: Path, rows: list[Any], changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(DataError, match=message):
        run(rows, **changes)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("share", [0.0, 0.25, 0.6, 1.0])
def test_the_share_without_thinking_is_reached(run: Prepare, tmp_path: Path, share: float) -> None:
    rows = [row(number, thinking=number % 4 != 0) for number in range(800)]  # 25 % do not think as it is
    counts = run(rows, thinking_off_share=share)["counts"]
    off = 800 - counts["train"]["thinking_on"] - counts["validation"]["thinking_on"]
    assert off == 200 + counts["turned_off"]
    assert off / 800 == pytest.approx(max(share, 0.25), abs=0.04)
    assert counts["turned_off"] == 0 or share > 0.25
    for line in lines(tmp_path / "out" / "training.jsonl"):
        system, _, answer = (turn["content"] for turn in line["messages"])
        assert system == f"detailed thinking {'on' if '<think>' in answer else 'off'}"


@given(on=st.integers(1, 1000), off=st.integers(0, 1000), share=st.floats(0, 1))
def test_the_probability_reaches_the_share(on: int, off: int, share: float) -> None:
    probability = turn_off_probability(on=on, off=off, share=share)
    assert 0 <= probability <= 1
    reached = (off + probability * on) / (on + off)
    assert reached == pytest.approx(max(share, off / (on + off)))


def test_nothing_is_turned_off_where_nothing_thinks() -> None:
    assert turn_off_probability(on=0, off=7, share=0.5) == 0
    assert turn_off_probability(on=0, off=0, share=0.5) == 0


def test_a_question_is_in_one_split_only(run: Prepare, tmp_path: Path) -> None:
    rows = [row(number % 100, answer=f"answer {number}", thinking=number % 3 > 0) for number in range(400)]
    run(rows, thinking_off_share=0.5)
    train, validation = (questions(tmp_path / "out", split) for split in SPLITS)
    assert not set(train) & set(validation)
    assert len(validation) / 400 == pytest.approx(0.2, abs=0.1)
    run([*rows[::-1], *(row(number) for number in range(100, 200))])  # neither order nor company matters
    assert set(train) <= set(questions(tmp_path / "out", "train"))
    assert set(validation) <= set(questions(tmp_path / "out", "validation"))
    run(rows, seed=18)
    assert set(questions(tmp_path / "out", "validation")) != set(validation)


def test_a_finished_folder_takes_the_place_of_an_earlier_one(run: Prepare, tmp_path: Path) -> None:
    run(MIXED)
    (tmp_path / "out" / "leftover").touch()
    run(MIXED[:200])
    assert not (tmp_path / "out" / "leftover").exists()
    assert read_manifest(tmp_path / "out")["counts"]["read"] == 200
    assert {path.name for path in tmp_path.iterdir()} == {"rows.jsonl", "out"}


def test_a_failure_leaves_an_earlier_folder_alone(run: Prepare, tmp_path: Path) -> None:
    manifest = run(MIXED)
    with pytest.raises(DataError):
        run([row(1)])
    source = RowSource((write_lines(tmp_path / "gone", MIXED),), None, 0)
    (tmp_path / "gone").unlink()
    with pytest.raises(FileNotFoundError):
        prepare(source, formatter=CHATML, settings=settings(), inputs={}, out=tmp_path / "out")
    assert read_manifest(tmp_path / "out") == manifest
    assert {path.name for path in tmp_path.iterdir()} == {"rows.jsonl", "out"}


def test_an_unsuitable_template_is_refused_before_anything_is_read(tmp_path: Path) -> None:
    unsuitable = ChatFormatter(
        CHATML.tokenizer, CHATML.template.replace("+ '<|im_end|>' -}}{%- endgen", "-}}{%- endgen")
    )
    with pytest.raises(TemplateError, match="end-of-turn"):
        prepare(RowSource((), 10, 0), formatter=unsuitable, settings=settings(), inputs={}, out=tmp_path / "out")
    assert not list(tmp_path.iterdir())


def test_the_manifest_says_what_went_in_and_came_out(run: Prepare, tmp_path: Path) -> None:
    manifest, folder = run(MIXED), tmp_path / "out"
    assert read_manifest(folder) == manifest
    assert (manifest["stage"], manifest["inputs"], manifest["settings"]) == ("prepare", {"from": "a test"}, settings())
    assert manifest["versions"] == installed_versions()
    arrays = {f"{split}/{name}.npy" for split in SPLITS for name in ("tokens", "loss_mask", "offsets")}
    assert set(manifest["files"]) == {*arrays, *SPLITS.values(), "quarantine.jsonl"}
    for name, recorded in manifest["files"].items():
        path = folder / name
        assert recorded == {"bytes": path.stat().st_size, "sha256": file_sha256(path)}


@pytest.mark.smoke
def test_the_builtin_problems_are_prepared(tmp_path: Path) -> None:
    source, wanted = RowSource((), 300, 17), settings(thinking_off_share=0.3, max_quarantined_share=0.0)
    counts = prepare(source, formatter=CHATML, settings=wanted, inputs={}, out=tmp_path / "new" / "out")["counts"]
    assert counts["train"]["rows"] + counts["validation"]["rows"] == counts["read"] == 300
    assert counts["turned_off"] / 300 == pytest.approx(0.3, abs=0.06)


def test_rows_are_prepared_once(tmp_path: Path) -> None:
    path, out = write_lines(tmp_path / "rows.jsonl", MIXED), tmp_path / "out"

    def prepared(formatter: ChatFormatter = CHATML, revision: str = "a", **changes: Any) -> bool:
        """Return whether the folder was written, not found."""
        arguments = {"formatter": formatter, "settings": settings(**changes), "tokenizer_revision": revision}
        manifest = prepare_once(RowSource((path,), None, 0), **arguments, out=out)
        assert manifest == read_manifest(out)
        written = not (out / "mark").exists()
        (out / "mark").touch()
        return written

    assert prepared()
    assert not prepared()
    assert prepared(seed=5)
    assert prepared(seed=5, revision="b")
    other_template = ChatFormatter(CHATML.tokenizer, CHATML.template + "{# #}")
    assert prepared(other_template, seed=5, revision="b")
    write_lines(path, MIXED[:100])
    assert prepared(other_template, seed=5, revision="b")
    assert not prepared(other_template, seed=5, revision="b")
