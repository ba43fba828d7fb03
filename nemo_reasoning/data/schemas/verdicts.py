"""Choose one of several answers to a question, by the verdicts that stand beside them."""

from collections.abc import Mapping, Sequence
from typing import Any

from nemo_reasoning.data.schemas.columns import EMPTY
from nemo_reasoning.data.schemas.tools import decoded
from nemo_reasoning.errors import RowError
from nemo_reasoning.reasoning.trace import is_blank

# Whether an answer is right: one that says so is enough, as judges are asked where a checker fails.
CORRECT = ("correctness_math_verify", "correctness_llama", "correctness", "verified", "is_correct", "is_verified")
# Whether an answer is whole.
COMPLETE = ("is_reasoning_complete", "finish_reasons", "finish_reason")
VERDICTS = (*CORRECT, *COMPLETE)

_YES = frozenset({"true", "yes", "correct", "right", "pass", "passed", "1", "1.0"})
_NO = frozenset({"false", "no", "incorrect", "wrong", "fail", "failed", "0", "0.0"})
_CUT = frozenset({"length", "max_tokens", "max_length"})


def _verdict(value: Any, column: str) -> bool | None:
    """Return what a verdict says; None if nothing.

    Raises:
        RowError: Nobody knows its word.
    """
    word = str(value).strip().lower()
    if value is None or not word:
        return None
    if column.startswith("finish_reason"):
        return word not in _CUT
    if word not in _YES | _NO:
        raise RowError(f"unknown verdict: {column}={value!r} is neither true nor false")
    return word in _YES


def right_answer(answer: Any, row: Mapping[str, Any]) -> Any:
    """Return the only answer to a question.

    Raises:
        RowError: A verdict calls it wrong or cut.
    """
    for column in VERDICTS:
        told = row.get(column)
        if isinstance(told, list):
            told = told[0] if len(told) == 1 else None  # more of them judge answers beside this one
        if told not in EMPTY and _verdict(told, column) is False:
            raise RowError(f"no right answer: {column} is {told}")
    return answer


def choose_answer(answers: Sequence[str | None], row: Mapping[str, Any]) -> tuple[str, int]:
    """Return the first of several answers that is right and whole, and how many stood beside it.

    Where no verdict says anything about any of them, the first that is not empty is taken.

    Raises:
        RowError: None is right, or a verdict does not fit the answers.
    """
    given = [place for place, answer in enumerate(answers) if answer is not None and not is_blank(answer)]
    if not given:
        raise RowError(f"empty answer: none of {len(answers)} says anything")
    correct, complete = ([_verdicts(row, name, len(answers)) for name in names] for names in (CORRECT, COMPLETE))
    judged = any(said is not None for column in correct for said in column)
    for place in given:
        said = [column[place] for column in correct if column]
        if all(column[place] is not False for column in complete if column) and (True in said or not judged):
            return str(answers[place]), len(given) - 1
    told = ", ".join(name for name in VERDICTS if row.get(name) not in EMPTY)
    raise RowError(f"no right answer: {told} call none of {len(answers)} right")


def _verdicts(row: Mapping[str, Any], column: str, count: int) -> list[bool | None]:
    """Return a column's verdict on each of some answers; empty if it says nothing."""
    told = row.get(column)
    if isinstance(told, str) and told.lstrip().startswith("["):
        told = decoded(told, column)
    if told in EMPTY:
        return []
    if not isinstance(told, list):
        return [_verdict(told, column)] * count
    if len(told) != count:
        raise RowError(f"unknown verdict: {column} has {len(told)} for {count} answers")
    return [_verdict(value, column) for value in told]
