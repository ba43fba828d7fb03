import json
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from prepared_rows import data_settings, formatter

from nemo_reasoning.data.prepare.filters import FilteredOut, Filters, Languages
from nemo_reasoning.data.schemas.dialogue import turned_off
from nemo_reasoning.errors import DataError, RowError
from nemo_reasoning.reasoning.tags import THINK_CLOSE, THINK_OPEN

OFF = (
    "empty_think=false",
    "unclosed_think=false",
    "think_in_off_row=false",
    "no_think_in_on_row=false",
    "missing_box=false",
)


@cache
def filters(*overrides: str, seq_length: int = 1000) -> Filters:
    chosen = [f"data.filters.{override}" for override in overrides]
    return Filters(data_settings(*chosen).filters, seq_length=seq_length)


def row(output: str, **columns: Any) -> dict[str, Any]:
    return {"input": [{"role": "user", "content": "What is 2 + 2?"}], "output": output, **columns}


THOUGHT = "<think>\n2 + 2 = 4\n</think>\n\nIt is 4."
BOXED = [{"role": "user", "content": "What is 2 + 2? Put it into \\boxed{}."}]
CASES = {
    "empty_think": row("<think>\n\n</think>\n\nIt is 4.", reasoning="on"),
    "unclosed_think": row("<think>\n2 + 2 = 4"),
    "think_in_off_row": row(THOUGHT, reasoning="off"),
    "no_think_in_on_row": row("It is 4.", system_prompt="detailed thinking on"),
    "missing_box": {**row("<think>\n\\boxed{4}\n</think>\n\nIt is 4."), "input": BOXED},
}


@pytest.mark.parametrize("name", CASES)
def test_each_fault_is_named_and_its_filter_can_be_switched_off(name: str) -> None:
    with pytest.raises(FilteredOut, match=f"^{name}$"):
        filters().read(CASES[name], origin="a:1")
    others = filters(f"{name}=false")
    if name == "unclosed_think":  # nobody knows where the answer begins
        with pytest.raises(RowError, match="malformed thinking"):
            others.read(CASES[name], origin="a:1")
        return
    kept = others.read(CASES[name], origin="a:1")
    assert kept.mode == ("on" if THINK_OPEN in kept.messages[-1].content else "off")
    assert kept.messages[0].content == f"detailed thinking {kept.mode}"


def test_own_instructions_stay_where_the_answer_decides_the_mode() -> None:
    found = filters("think_in_off_row=false").read(
        row(THOUGHT, system_prompt="detailed thinking off\nBe brief."), origin="a:1"
    )
    assert found.messages[0].content == "detailed thinking on\n\nBe brief."


@pytest.mark.parametrize(
    ("override", "columns", "kept"),
    [
        ("used_in_training=nano", {"used_in_training": ["Super", "Nano"]}, True),
        ("used_in_training=nano", {"used_in_training": "Llama, Nano"}, True),
        ("used_in_training=nano", {"used_in_training": "yes"}, True),
        ("used_in_training=nano", {"used_in_training": "no"}, False),
        ("used_in_training=nano", {"used_in_training": ["nanobot"]}, False),
        ("used_in_training=nano", {}, False),
        ("licenses=[MIT]", {"license": "MIT"}, True),
        ("licenses=[MIT]", {"license": "GPL"}, False),
        ("licenses=[MIT]", {}, False),
        ("generators=[R1]", {"generator": "R1"}, True),
        ("generators=[R1]", {"generator": "Qwen"}, False),
    ],
)
def test_allow_lists(override: str, columns: dict[str, Any], kept: bool) -> None:
    chosen = filters(override)
    if kept:
        assert chosen.read(row(THOUGHT, **columns), origin="a:1").mode == "on"
        return
    with pytest.raises(FilteredOut, match=override.split("=")[0]):
        chosen.read(row(THOUGHT, **columns), origin="a:1")


FRENCH = "Combien de pommes restent dans le panier quand nous en avons mangé trois ce matin ?"
ENGLISH = "How many apples are left in the basket once we have eaten three of them this morning?"


@pytest.mark.parametrize(
    ("question", "answer", "kept"),
    [
        (ENGLISH, "There are four apples left in the basket.", True),
        (FRENCH, "There are four apples left in the basket.", False),
        (ENGLISH, "Il reste quatre pommes dans le panier ce matin.", False),
        (ENGLISH, f"<think>{FRENCH}</think>There are four apples left in the basket.", False),
        (ENGLISH, f"<think>{ENGLISH * 20} {FRENCH * 30}</think>There are four apples left in the basket.", False),
        ("四加四等于几？", "等于八。", False),
        ("$\\frac{a}{b} = \\sqrt{2}$?", "```python\nprint('pommes dans le panier')\n```", True),
    ],
)
def test_language_of_question_and_answer(question: str, answer: str, kept: bool) -> None:
    value = {"prompt": question, "response": answer}
    if kept:
        assert filters("languages=[en]").read(value, origin="a:1").question == question
    else:
        with pytest.raises(FilteredOut, match="languages"):
            filters("languages=[en]").read(value, origin="a:1")


def test_an_unknown_language_is_named() -> None:
    with pytest.raises(DataError, match="names english, xx, which is no known code"):
        Languages(["en", "english", "xx"], confidence=0.5)


def test_overlap_with_evaluation_problems(tmp_path: Path) -> None:
    long = "A train leaves the station at noon and travels north at sixty miles an hour for three hours."
    problems = tmp_path / "problems.jsonl"
    problems.write_text("\n".join(json.dumps(value) for value in ({"problem": long}, {"question": "What is 9 * 9?"})))
    chosen = filters(f"overlap_files=[{problems}]")
    for question in (f"Consider this: {long.upper()} How far does it get?", "Tell me: what is 9 * 9?"):
        with pytest.raises(FilteredOut, match="overlap"):
            chosen.read({"prompt": question, "response": "81"}, origin="a:1")
    for question in ("A train leaves the station at noon and travels south.", "What is 9 + 8 * 9?"):
        assert chosen.read({"prompt": question, "response": "81"}, origin="a:1")
    problems.write_text("[1]")
    with pytest.raises(DataError, match=r"problems\.jsonl:1: no text in any of the columns"):
        filters(f"overlap_files=[{problems}]", seq_length=9).read(row("4"), origin="a:1")


def test_token_limits() -> None:
    encoded = formatter().encode(filters().read(row(THOUGHT), origin="a:1").messages)
    total, completion = len(encoded.ids), int(encoded.loss_mask.sum())
    assert filters(f"max_completion_tokens={completion}", seq_length=total).too_long(encoded) is None
    assert str(filters(seq_length=total - 1).too_long(encoded)) == "max_tokens"
    assert str(filters(f"max_tokens={total - 1}").too_long(encoded)) == "max_tokens"
    assert str(filters(f"max_completion_tokens={completion - 1}").too_long(encoded)) == "max_completion_tokens"


TEXT = st.text(max_size=20)
PIECES = st.lists(st.one_of(st.sampled_from([THINK_OPEN, THINK_CLOSE, "\n", "It is 4."]), TEXT), max_size=6)


@settings(deadline=None)
@given(
    output=PIECES.map("".join),
    reasoning=st.sampled_from([None, "on", "off"]),
    system=st.sampled_from(["", "detailed thinking on", "detailed thinking off\nBe brief."]),
    switched_off=st.booleans(),
    seed=st.integers(0, 5),
)
def test_whatever_passes_is_well_formed_before_and_after_the_switch(
    output: str, reasoning: str | None, system: str, switched_off: bool, seed: int
) -> None:
    chosen = filters(*(OFF if switched_off else ()))
    try:
        found = chosen.read(row(output, reasoning=reasoning, system_prompt=system), origin="a:1")
    except (FilteredOut, RowError):
        return
    for kept in (found, turned_off(found, probability=0.5, seed=seed)):
        answer = kept.messages[-1].content
        assert (kept.last[0] is None) == (kept.mode == "off")
        assert answer.startswith(THINK_OPEN) == (kept.mode == "on")
        assert kept.messages[0].content.startswith(f"detailed thinking {kept.mode}")
        assert kept.last[1].strip()
        encoded = formatter().encode_all([kept.messages])[0]
        if not isinstance(encoded, RowError):
            supervised = formatter().tokenizer.decode(encoded.ids[encoded.loss_mask])
            assert supervised == f"{answer.strip()}<|im_end|>"
