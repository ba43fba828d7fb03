"""What a model answered, and the verdicts: one line of a file each."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

from nemo_reasoning.artifacts import write_text
from nemo_reasoning.errors import DataError
from nemo_reasoning.reasoning.messages import Mode

Key = tuple[str, Mode, int | None, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """One question, what the model wrote, and the verdict.

    Attributes:
        question: Its id in the benchmark.
        family: Kind of problem, or subject.
        mode: Whether the model was asked to think.
        budget: Most thinking tokens allowed; None for no limit.
        index: Of the sample among those of the question in this mode and budget.
        prompt: The whole user turn.
        expected: The right answer.
        extracted: The answer found in the text; None if there is none.
        correct: Whether the two are equal, however the text is formed.
        well_formed: Whether the text has the format of its mode and came to its end.
        truncated: Whether it was cut at the token limit.
        refused: Whether it gives no answer and says so.
        reasoning: Content of the thinking block.
        answer: Text after it.
        text: All the model wrote.
        completion_tokens: Tokens generated, the end-of-turn token included.
        reasoning_tokens: Those of the thinking block; None where a server did not count them.
        max_new_tokens: Limit in force: the protocol's, or what the context left; None in files of earlier versions.
        seconds: Its share of the time its batch took; the clock's, so it differs from run to run.
    """

    question: str
    family: str
    mode: Mode
    budget: int | None
    index: int
    prompt: str
    expected: str
    extracted: str | None
    correct: bool
    well_formed: bool
    truncated: bool
    refused: bool
    reasoning: str
    answer: str
    text: str
    completion_tokens: int
    reasoning_tokens: int | None
    max_new_tokens: int | None = None
    seconds: float = field(compare=False)

    @property
    def key(self) -> Key:
        """What tells it from every other sample of a model on a benchmark."""
        return self.question, self.mode, self.budget, self.index

    def to_line(self) -> str:
        """Return it as one line of JSON."""
        return json.dumps(asdict(self), ensure_ascii=False) + "\n"


@dataclass(frozen=True, slots=True)
class Evaluation:
    """All samples of a model, in the order they were asked."""

    samples: tuple[Sample, ...]

    def of(self, mode: Mode) -> list[Sample]:
        """Return the samples of a mode."""
        return [sample for sample in self.samples if sample.mode == mode]

    def at(self, mode: Mode, budget: int | None) -> list[Sample]:
        """Return the samples of a mode and a budget."""
        return [sample for sample in self.samples if (sample.mode, sample.budget) == (mode, budget)]

    def save(self, path: Path) -> None:
        """Write one JSON object a line, atomically."""
        write_text(path, "".join(sample.to_line() for sample in self.samples))

    @classmethod
    def load(cls, path: Path) -> "Evaluation":
        """Read what `save` wrote.

        Raises:
            DataError: There is no such file, or a line of it is no sample.
        """
        try:
            lines = path.read_text(encoding="utf-8").split("\n")
        except FileNotFoundError:
            raise DataError(f"{path} does not exist; evaluate the model first") from None
        return cls(_parsed(lines, path))


def _parsed(lines: Sequence[str], path: Path) -> tuple[Sample, ...]:
    try:
        return tuple(Sample(**json.loads(line)) for line in lines if line)
    except (ValueError, RecursionError, TypeError) as error:
        raise DataError(f"{path} holds a line that is no sample ({error}); evaluate again") from error


def limits_not_kept(samples: Sequence[Sample], max_tokens: int) -> list[str]:
    """Return in words which limits a context lowered, and which budgets of thinking were not kept or not counted."""
    notes = []
    lowered = [
        one.max_new_tokens for one in samples if one.max_new_tokens is not None and one.max_new_tokens < max_tokens
    ]
    if lowered:
        notes.append(
            f"{len(lowered)} of {len(samples)} answers had less than protocol.max_tokens={max_tokens}: the model's "
            f"context left them {min(lowered)} to {max(lowered)} tokens"
        )
    off = [one for one in samples if one.mode == "off"]
    if thought := sum(bool(one.reasoning or one.reasoning_tokens) for one in off):
        notes.append(
            f"{thought} of {len(off)} answers without thinking thought all the same; if the server's chat template has "
            "a switch of its own, as Qwen3's has, name the template: template=qwen3"
        )
    limited = [one for one in samples if one.budget is not None]
    over = [one for one in limited if one.reasoning_tokens is not None and one.reasoning_tokens > (one.budget or 0)]
    if over:
        longest = max(one.reasoning_tokens or 0 for one in over)
        notes.append(f"{len(over)} of {len(limited)} answers thought longer than their budget, up to {longest} tokens")
    uncounted = sum(one.reasoning_tokens is None for one in limited)
    if uncounted:
        notes.append(
            f"for {uncounted} of {len(limited)} answers the server counts no thinking tokens: whether it kept "
            "their budget is not known"
        )
    return notes


class SampleLog:
    """A growing file of samples; what a killed run left half written is taken off when it is opened.

    Attributes:
        samples: All in the file, by key.
    """

    def __init__(self, path: Path) -> None:
        """Read the file, if there is one.

        Raises:
            DataError: A complete line of it is no sample.
        """
        self._path = path
        text = path.read_bytes() if path.is_file() else b""
        whole = text[: text.rfind(b"\n") + 1]
        if whole != text:
            with path.open("r+b") as file:
                file.truncate(len(whole))
        self.samples = {sample.key: sample for sample in _parsed(whole.decode("utf-8").split("\n"), path)}

    def append(self, samples: Sequence[Sample]) -> None:
        """Write samples to the end of the file, with one write."""
        self._path.parent.mkdir(parents=True, exist_ok=True)
        with self._path.open("ab", buffering=0) as file:
            file.write("".join(sample.to_line() for sample in samples).encode())
        self.samples |= {sample.key: sample for sample in samples}
