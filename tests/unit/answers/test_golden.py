"""Hand-checked completions: what our extraction and equality make of them, and what NVIDIA's does."""

import json
import re
from pathlib import Path
from typing import Any

import pytest

from nemo_reasoning.answers import (
    answers_equal,
    extract_choice,
    extract_final_answer,
    extract_number,
    first_final_letter,
)
from nemo_reasoning.reasoning.tags import split_thinking

_FILE = Path(__file__).parents[2] / "data" / "answers_golden.jsonl"
GOLDEN = [json.loads(line) for line in _FILE.read_text(encoding="utf-8").splitlines()]


def ours(case: dict[str, Any]) -> bool:
    """Return our verdict on a completion."""
    answer = split_thinking(case["text"], "on").answer
    if case["kind"] == "choice":
        return extract_choice(answer, choices=case["choices"]) == case["expected"]
    if case["kind"] == "number":
        found = extract_number(answer)
    else:
        found = extract_final_answer(answer, last_number=case["kind"] == "math")
    return found is not None and answers_equal(found, case["expected"])


def nvidia(case: dict[str, Any]) -> bool:
    """Return the verdict of the tutorial's pattern; for other kinds than letters, of the same idea."""
    if case["kind"] == "choice":
        return first_final_letter(case["text"]) == case["expected"]
    match = re.search(r"The final answer is ([^\n]+?)\.?(?:\n|$)", case["text"])
    return match is not None and match[1] == case["expected"]


@pytest.mark.parametrize("case", GOLDEN, ids=lambda case: f"{case['kind']}: {case['text'][:60]!r}")
def test_the_verdict_is_the_one_made_by_hand(case: dict[str, Any]) -> None:
    assert ours(case) == case["right"]


def test_the_set_is_large_and_has_both_verdicts_of_every_kind() -> None:
    assert len(GOLDEN) >= 150
    found = {(case["kind"], case["right"]) for case in GOLDEN}
    assert found == {(kind, right) for kind in ("choice", "number", "math", "text") for right in (True, False)}


@pytest.mark.parametrize("kinds", [("choice",), ("choice", "number", "math", "text")])
def test_it_beats_the_single_pattern(kinds: tuple[str, ...]) -> None:
    cases = [case for case in GOLDEN if case["kind"] in kinds]
    right = {judge.__name__: sum(judge(case) == case["right"] for case in cases) for judge in (ours, nvidia)}
    print(f"{' '.join(kinds)}: of {len(cases)} verdicts right: {right}")
    assert right["ours"] == len(cases)
    assert right["nvidia"] < 0.6 * len(cases)
