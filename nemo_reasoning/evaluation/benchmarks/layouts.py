"""From a published row to a question: one function per layout."""

from collections.abc import Callable

from nemo_reasoning.answers.choices import LETTERS
from nemo_reasoning.answers.equality import as_number
from nemo_reasoning.config.evaluate import BenchmarkLayout
from nemo_reasoning.errors import DataError
from nemo_reasoning.evaluation.benchmarks.files import FileRow
from nemo_reasoning.evaluation.benchmarks.question import Kind, Question, choice_question

_KINDS: tuple[Kind, ...] = ("choice", "number", "math", "text")


def parse_question(row: FileRow, layout: BenchmarkLayout) -> Question:
    """Return the question in a row.

    Raises:
        DataError: A column is missing, or holds what the layout does not allow.
    """
    try:
        return _PARSERS[layout](row)
    except (KeyError, ValueError, TypeError, IndexError, AttributeError) as error:
        raise DataError(
            f"{row.file}, row {row.number}: not in the layout {layout.value!r} ({type(error).__name__}: {error}); "
            f"its columns are {sorted(row.values)}"
        ) from error


def _gpqa(row: FileRow) -> Question:
    """Idavidrein/gpqa: the right answer stands first, so its choices have to be shuffled."""
    values = row.values
    return choice_question(
        id=values.get("Record ID") or f"{row.file.stem}/{row.number}",
        text=values["Question"],
        choices=[values[name] for name in ("Correct Answer", *(f"Incorrect Answer {n}" for n in (1, 2, 3)))],
        right=0,
        subject=values["High-level domain"],
    )


def _mmlu(row: FileRow) -> Question:
    """cais/mmlu, or the authors' CSV files without a header, which carry the subject in their name."""
    values = row.values
    if "0" in values:
        subject = row.file.stem.rsplit("_", 1)[0]
        choices, right = [values[str(column)] for column in range(1, 5)], LETTERS.index(values["5"].strip())
        text = values["0"]
    else:
        subject, choices, right, text = values["subject"], values["choices"], values["answer"], values["question"]
    return choice_question(id=_place(row), text=text, choices=choices, right=int(right), subject=subject)


def _mmlu_pro(row: FileRow) -> Question:
    """TIGER-Lab/MMLU-Pro: up to ten choices; older revisions fill up with "N/A"."""
    values = row.values
    right = values["options"][int(values["answer_index"])]
    options = [option for option in values["options"] if option != "N/A"]
    return choice_question(
        id=str(values["question_id"]),
        text=values["question"],
        choices=options,
        right=options.index(right),
        subject=values["category"],
    )


def _gsm8k(row: FileRow) -> Question:
    """openai/gsm8k: the worked answer ends with "#### X"."""
    _, mark, answer = row.values["answer"].rpartition("####")
    if not mark:
        raise ValueError("the answer has no ####")
    return _open(row, text=row.values["question"], answer=answer, kind="number", subject="gsm8k")


def _math(row: FileRow) -> Question:
    """HuggingFaceH4/MATH-500, and AIME in its editions: `problem` or `question`, and `answer`."""
    values = {key.lower(): value for key, value in row.values.items()}
    return _open(
        row,
        text=values["problem"] if "problem" in values else values["question"],
        answer=str(values["answer"]),
        kind="math",
        subject=values.get("subject") or row.file.stem,
    )


def _jsonl(row: FileRow) -> Question:
    """A user's own: `question`, `answer`, and if wanted `choices`, `kind`, `subject` and `id`."""
    values = row.values
    subject = str(values.get("subject") or row.file.stem)
    if choices := values.get("choices"):
        by_text = values["answer"] in choices
        right = choices.index(values["answer"]) if by_text else LETTERS.index(values["answer"])
        question_id = str(values.get("id") or _place(row))
        return choice_question(id=question_id, text=values["question"], choices=choices, right=right, subject=subject)
    answer = str(values["answer"])
    kind = values.get("kind") or ("number" if as_number(answer) is not None else "text")
    if kind not in _KINDS:
        raise ValueError(f"kind is {kind!r}, not one of {', '.join(_KINDS)}")
    return _open(row, text=values["question"], answer=answer, kind=kind, subject=subject)


def _open(row: FileRow, *, text: str, answer: str, kind: Kind, subject: str) -> Question:
    known = {key.lower(): value for key, value in row.values.items()}
    question_id = next((str(known[key]) for key in ("unique_id", "id") if known.get(key) is not None), _place(row))
    return Question(id=question_id, text=text.strip(), choices=(), answer=answer.strip(), kind=kind, subject=subject)


def _place(row: FileRow) -> str:
    return f"{row.file.stem}/{row.number}"


_PARSERS: dict[BenchmarkLayout, Callable[[FileRow], Question]] = {
    BenchmarkLayout.gpqa: _gpqa,
    BenchmarkLayout.mmlu: _mmlu,
    BenchmarkLayout.mmlu_pro: _mmlu_pro,
    BenchmarkLayout.gsm8k: _gsm8k,
    BenchmarkLayout.math: _math,
    BenchmarkLayout.jsonl: _jsonl,
}
