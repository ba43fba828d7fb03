"""Which of a model's own answers are trained on."""

from collections.abc import Callable

import pytest

from nemo_reasoning.evaluation.samples import Sample
from nemo_reasoning.improvement.selection import answers, pairs

THINKING = "one two three four five six seven eight nine ten"


def sample(question: str, index: int, *, tokens: int = 20, text: str = "", **changes: object) -> Sample:
    """Return a right, whole answer of a length of its own."""
    reasoning = text or f"{question} {index} {THINKING}"
    facts = {
        **{
            "question": question,
            "family": "sums",
            "mode": "on",
            "budget": None,
            "index": index,
            "prompt": f"{question}?",
        },
        **{
            "expected": "2",
            "extracted": "2",
            "correct": True,
            "well_formed": True,
            "truncated": False,
            "refused": False,
        },
        **{"reasoning": reasoning, "answer": "It is 2.", "text": "", "completion_tokens": tokens},
        **{"reasoning_tokens": tokens - 5, "seconds": 0.0},
    }
    return Sample(**{**facts, **changes})  # type: ignore[arg-type]


MIXED = [
    *(sample("a", 0, tokens=30), sample("a", 1, tokens=10), sample("a", 2, tokens=20)),
    *(sample("b", 0, text="the same"), sample("b", 1, text="the  same\n"), sample("b", 2, correct=False)),
    *(sample("c", 0, truncated=True), sample("c", 1, well_formed=False), sample("c", 2, reasoning=" ")),
    sample("d", 0, tokens=90),
]


def test_the_short_right_answers_are_kept_and_the_others_counted() -> None:
    rows, counts = answers(MIXED, keep=2, drop_longest=0.25)

    assert counts == {
        **{"sampled": 10, "kept": 3, "said before": 1, "wrong": 1, "cut at the limit": 1, "not in the format": 2},
        **{"longer than those kept": 1, "among the longest": 1},
    }
    assert counts["sampled"] == sum(count for name, count in counts.items() if name != "sampled")
    assert [row["input"][0]["content"] for row in rows] == ["a?", "a?", "b?"]
    assert rows[0]["output"] == f"<think>\na 1 {THINKING}\n</think>\n\nIt is 2."
    assert {row["reasoning"] for row in rows} == {"on"}


def test_a_short_right_answer_is_preferred_to_a_wrong_and_to_a_long_one() -> None:
    rows, counts = pairs([*MIXED, sample("b", 3, correct=False, truncated=True)], keep=2, drop_longest=0.0)

    found = {
        (row["input"][0]["content"], row["chosen"].split("\n")[1][:8], row["rejected"].split("\n")[1][:8])
        for row in rows
    }
    assert found == {("a?", "a 1 one ", "a 0 one "), ("a?", "a 1 one ", "a 2 one "), ("b?", "the same", "b 2 one ")}
    assert counts["kept"] == 3
    assert counts["of the pairs, against a wrong answer"] == 1
    assert counts["questions without a worse answer"] == 1  # d


@pytest.mark.parametrize("choose", [answers, pairs])
def test_nothing_right_is_nothing_to_learn_from(choose: Callable[..., tuple[list[object], dict[str, int]]]) -> None:
    rows, counts = choose(
        [sample("a", 0, correct=False), sample("a", 1, refused=True, correct=False)], keep=2, drop_longest=0
    )
    assert rows == []
    assert counts == {"sampled": 2, "kept": 0, "wrong": 2} | (
        {} if choose is answers else {"of the pairs, against a wrong answer": 0}
    )
