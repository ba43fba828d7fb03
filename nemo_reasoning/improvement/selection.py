"""What of a model's own answers is worth training on."""

from collections import Counter
from collections.abc import Sequence
from typing import Any

from nemo_reasoning.evaluation.samples import Sample
from nemo_reasoning.reasoning.switch import THINK_SYSTEM
from nemo_reasoning.reasoning.tags import with_thinking

_LONGER = 1.25  # times the tokens of the preferred answer: a right one of that length is the worse of a pair
Rows = list[dict[str, Any]]


def answers(samples: Sequence[Sample], *, keep: int, drop_longest: float) -> tuple[Rows, dict[str, int]]:
    """Return the right answers to imitate, the short ones: rejection sampling (arXiv 2308.01825).

    Args:
        samples: Answers with thinking, in the order of their questions.
        keep: Most answers to a question: those with the fewest tokens.
        drop_longest: Share of what is left that goes too: those with most thinking tokens.

    Returns:
        Rows in the schema of nvidia/Llama-Nemotron-Post-Training-Dataset, and answers by what became of them; they
        add up to those sampled.
    """
    right, found = _different(samples)
    short: list[Sample] = []
    for one in right.values():
        short += one[:keep]
        found["longer than those kept"] += len(one[keep:])
    longest = sorted(short, key=_thinking)[len(short) - int(drop_longest * len(short)) :]
    found["among the longest"] = len(longest)
    dropped = {sample.key for sample in longest}
    kept = [sample for sample in short if sample.key not in dropped]
    rows = [_row(sample) | {"output": with_thinking(sample.reasoning, sample.answer)} for sample in kept]
    return rows, _counted(samples, len(kept), found)


def pairs(samples: Sequence[Sample], *, keep: int, drop_longest: float) -> tuple[Rows, dict[str, int]]:
    """Return pairs of answers to a question: a short right one against a wrong one, or one that is much longer.

    Args:
        samples: As for `answers`.
        keep: Most pairs of a question; every one has another worse answer, wrong ones first.
        drop_longest: Share of the pairs that is dropped, those whose preferred answer thinks longest.

    Returns:
        Rows with `prompt`, `chosen` and `rejected`, and answers by what became of them.
    """
    right, found = _different(samples)
    wrong: dict[str, list[Sample]] = {}
    for sample in samples:
        if not (sample.correct or sample.truncated) and sample.well_formed and sample.reasoning.strip():
            wrong.setdefault(sample.question, []).append(sample)
    chosen: list[tuple[Sample, Sample]] = []
    for question, (best, *others) in right.items():
        longer = [one for one in reversed(others) if one.completion_tokens >= _LONGER * best.completion_tokens]
        worse = [*{_text(one): one for one in wrong.get(question, [])}.values(), *longer]
        chosen += [(best, one) for one in worse[:keep]]
        found["questions without a worse answer"] += not worse
    chosen.sort(key=lambda pair: _thinking(pair[0]))
    kept = chosen[: len(chosen) - int(drop_longest * len(chosen))]
    said = [(one, [with_thinking(half.reasoning, half.answer) for half in (one, other)]) for one, other in kept]
    rows = [_row(one) | {"chosen": better, "rejected": worse} for one, (better, worse) in said]
    against_wrong = sum(not other.correct for _, other in kept)
    counts = _counted(samples, len(kept), found)
    return rows, counts | {"of the pairs, against a wrong answer": against_wrong}


def _different(samples: Sequence[Sample]) -> tuple[dict[str, list[Sample]], Counter[str]]:
    """Return the right answers to each question, the shortest first and none twice, and what is wrong with others."""
    found: Counter[str] = Counter()
    by_question: dict[str, dict[tuple[str, str], Sample]] = {}
    for sample in samples:
        if fault := _fault(sample):
            found[fault] += 1
        elif _text(sample) in (same := by_question.setdefault(sample.question, {})):
            found["said before"] += 1
        else:
            same[_text(sample)] = sample
    return {question: sorted(one.values(), key=_length) for question, one in by_question.items()}, found


def _counted(samples: Sequence[Sample], kept: int, found: Counter[str]) -> dict[str, int]:
    return {"sampled": len(samples), "kept": kept, **{name: count for name, count in found.items() if count}}


def _fault(sample: Sample) -> str | None:
    """Return what is wrong with an answer; None if it is right, whole, and was thought about."""
    if sample.truncated:
        return "cut at the limit"
    if not sample.correct:
        return "wrong"
    if not (sample.well_formed and sample.reasoning.strip()):
        return "not in the format"
    return None


def _text(sample: Sample) -> tuple[str, str]:
    return " ".join(sample.reasoning.split()), " ".join(sample.answer.split())


def _length(sample: Sample) -> tuple[int, int]:
    return sample.completion_tokens, sample.index


def _thinking(sample: Sample) -> int:
    return sample.completion_tokens if sample.reasoning_tokens is None else sample.reasoning_tokens


def _row(sample: Sample) -> dict[str, Any]:
    return {
        "input": [{"role": "user", "content": sample.prompt}],
        "category": sample.family,
        "reasoning": "on",
        "system_prompt": THINK_SYSTEM["on"],
        "expected_answer": sample.expected,
    }
