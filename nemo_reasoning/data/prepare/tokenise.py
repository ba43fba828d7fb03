"""Tokenise dialogues: fast with `tokie` where it proves equal to `tokenizers`, the reference.

tokie 0.1.4 differs from `tokenizers` on a tab before 's, 'll and the like, and on more than some 8,000
characters without a blank or of nothing but blanks: rows with the former or with runs of 4,096 always go
to the reference. Everything else is proven on the user's own rows before the run, and again on a part of
every batch.
"""

import random
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise
from pathlib import Path
from typing import Any, Protocol, cast

import numpy as np
from numpy.typing import NDArray

from nemo_reasoning.data.chat import ChatFormatter, fixed_templates
from nemo_reasoning.data.schemas.dialogue import fraction
from nemo_reasoning.data.special_tokens import cut_at_breaks
from nemo_reasoning.data.store import Encoded
from nemo_reasoning.errors import RowError
from nemo_reasoning.reasoning.messages import Message, Role

_DOUBTFUL = "\t\v\f"  # before an apostrophe
_LONGEST_RUN, _WINDOW = 4096, 2048  # a run of that length covers a whole window
_RUNS = ("a", "ab", "\n", "\t", "-", "1", "中", "é", "x1y", "=\n", "😀")
_AUDITED_SHARE, _EXCERPT = 1 / 256, 64
_MADE_UP = 2000
_PIECES = (
    *("\n", " ", "  ", "\r\n", "\u00a0", "\u3000", "'", "'re", "'s", "’", "a", "The", "1", "234", "é", "e\u0301"),
    *("中文", "😀", "👩‍👧", "\u200b", "\ufeff", "$", "\\frac{", "}", "^2", "_", "—", "(", ")", ".", "...", "²", "٣"),
    *("हिन्दी", "ไทย", "한국어", "<think>", "</think>", "`", '"', "'ll", "'D", "#", "def ", "==", "\x7f", "\u2028", "𝔸"),
)


# A stand-in for what a turn says: a number between white space that a template's trim removes.
_STAND_IN = "\u2003\ue000{}\ue001\u2003"
_FOUND = re.compile("(\u2003?)\ue000(\\d+)\ue001\u2003?")


@dataclass(frozen=True)
class Cut:
    """A rendered dialogue in pieces.

    Attributes:
        texts: The pieces.
        marks: Whether each is a target.
    """

    texts: list[str]
    marks: list[bool]


@dataclass(frozen=True)
class _Gap:
    """Where a template of ours puts what a turn says.

    Attributes:
        turn: Number of the turn.
        trimmed: Whether without the white space around it.
    """

    turn: int
    trimmed: bool

    def fill(self, messages: Sequence[Message]) -> str:
        content = messages[self.turn].content
        return content.strip() if self.trimmed else content


class Renderer:
    """Renders with the template of a formatter.

    What templates of the package without a switch write around the turns depends on the roles alone, so it is
    rendered once for each sequence of roles; any other template is asked for every dialogue.
    """

    def __init__(self, formatter: ChatFormatter) -> None:
        """Take the formatter."""
        self._formatter = formatter
        self._fixed = formatter.template in fixed_templates()
        self._frame = lru_cache(maxsize=1024)(self._make_frame)

    def cut(self, messages: Sequence[Message]) -> Cut | None:
        """Return a dialogue in pieces; None if the template refuses it or marks other stretches than its turns."""
        written = self._formatter.special.as_text(messages) or messages
        texts = self._filled(written) if self._fixed else self._formatter.cut(written)
        turns = sum(message.role == "assistant" for message in messages)
        if texts is None or len(texts) != 2 * turns + 1:
            return None
        return Cut(*cut_at_breaks(texts, self._formatter.targets(messages, texts[1::2])))

    def _filled(self, messages: Sequence[Message]) -> list[str] | None:
        frame = self._frame(tuple(message.role for message in messages))
        if frame is None:
            return None
        return ["".join([part if isinstance(part, str) else part.fill(messages) for part in parts]) for parts in frame]

    def _make_frame(self, roles: tuple[str, ...]) -> list[list[str | _Gap]] | None:
        """Return what stands around and between turns of these roles, with gaps for what they say."""
        turns = [Message(cast(Role, role), _STAND_IN.format(number)) for number, role in enumerate(roles)]
        texts = self._formatter.cut(turns)
        return None if texts is None else [_with_gaps(text) for text in texts]


def _with_gaps(text: str) -> list[str | _Gap]:
    literal, *rest = _FOUND.split(text)
    pieces: list[str | _Gap] = [literal]
    for space, number, behind in zip(rest[::3], rest[1::3], rest[2::3], strict=True):
        pieces += [_Gap(int(number), trimmed=not space), behind]
    return pieces


class Encoder(Protocol):
    """Turns dialogues into tokens with a mask, each as good as alone."""

    def encode_all(self, dialogues: Sequence[Sequence[Message]]) -> list[Encoded | RowError]:
        """Return the tokens of each dialogue, or why it cannot be trained on."""
        ...


class FastEncoder:
    """Does what `ChatFormatter.encode_all` does, with tokie.

    The pieces of a rendered dialogue are encoded one by one; that this gives the ids of the whole text is part
    of what the checks prove.

    Attributes:
        reference: What it must be equal to.
        encoded_again: Dialogues that went to the reference because an audit found a difference.
    """

    def __init__(self, reference: ChatFormatter, *, tokenizer_json: Path) -> None:
        """Take the reference, and the file its tokenizer was saved to.

        Raises:
            ImportError: tokie is not installed, or transformers is too old.
            Exception: tokie cannot read the file.
        """
        import tokie

        self.reference, self.encoded_again, self._renderer = reference, 0, Renderer(reference)
        self._tokie: Any = tokie.Tokenizer.from_json(str(tokenizer_json))

    def encode_all(self, dialogues: Sequence[Sequence[Message]]) -> list[Encoded | RowError]:
        """Return the tokens of each dialogue, all by the reference if an audited one differs from it."""
        try:
            results = self.encode_unaudited(dialogues)
        except TokiePanicError:
            self.encoded_again += len(dialogues)
            return self.reference.encode_all(dialogues)
        audited = [number for number, messages in enumerate(dialogues) if _audited(messages)]
        expected = self.reference.encode_all([dialogues[number] for number in audited])
        if not all(same(results[number], wanted) for number, wanted in zip(audited, expected, strict=True)):
            self.encoded_again += len(dialogues)
            return self.reference.encode_all(dialogues)
        return results

    def encode_unaudited(self, dialogues: Sequence[Sequence[Message]]) -> list[Encoded | RowError]:
        """Return the tokens of each dialogue, by the reference where tokie is known to differ."""
        cuts = [self._cut(messages) for messages in dialogues]
        doubtful = [messages for messages, cut in zip(dialogues, cuts, strict=True) if cut is None]
        by_reference = iter(self.reference.encode_all(doubtful))
        by_tokie = self._encoded([cut for cut in cuts if isinstance(cut, Cut)])
        return [cut if isinstance(cut, RowError) else next(by_tokie if cut else by_reference) for cut in cuts]

    def _cut(self, messages: Sequence[Message]) -> Cut | RowError | None:
        """Return the pieces of a dialogue, why it cannot be trained on, or None if the reference has to say."""
        if messages[0].tools or any(_is_doubtful(message.content) for message in messages):
            return None
        if (error := self.reference.unusable(messages)) is not None:
            return error
        cut = self._renderer.cut(messages)
        if cut is not None and not any(cut.marks):
            return RowError("no supervised token: of the turns to learn the chat template keeps none in its mode")
        return cut

    def _encoded(self, cuts: Sequence[Cut]) -> Iterator[Encoded]:
        ids, lengths = self._ids([text for cut in cuts for text in cut.texts])
        loss_mask = np.repeat(np.array([mark for cut in cuts for mark in cut.marks], dtype=np.bool_), lengths)
        pieces = np.cumsum([0, *(len(cut.texts) for cut in cuts)])
        edges = np.concatenate([[0], np.cumsum(lengths)])[pieces]
        for start, end in pairwise(edges):
            yield Encoded(ids[start:end], loss_mask[start:end])

    def _ids(self, texts: list[str]) -> tuple[NDArray[np.int32], NDArray[np.int64]]:
        """Return the ids of all texts, one behind the other, and how many each has."""
        try:
            ids, lengths = self._tokie.encode_batch_flat(texts, add_special_tokens=False)
        except BaseException as error:
            if type(error).__name__ != "PanicException":  # Rust's, which is no Exception
                raise
            raise TokiePanicError(f"panics: {error}") from error
        return ids.view(np.int32), lengths.astype(np.int64)


class TokiePanicError(Exception):
    """tokie could not tokenise a text at all."""


def _is_doubtful(text: str) -> bool:
    return any(sign in text and f"{sign}'" in text for sign in _DOUBTFUL) or _has_long_run(text)


def _has_long_run(text: str) -> bool:
    """Tell whether a text has a long stretch without a blank, or of blanks: judged by whole windows, quickly."""
    for start in range(0, len(text) - _WINDOW + 1, _WINDOW):
        if text[start].isspace() or text.find(" ", start, start + _WINDOW) < 0:
            window = text[start : start + _WINDOW]
            if window.isspace() or len(window.split(None, 1)[0]) == _WINDOW:
                return True
    return False


def prove(encoder: FastEncoder, dialogues: Sequence[Sequence[Message]]) -> str | None:
    """Compare the fast path with the reference, on some rows and on made-up texts, long runs of signs among them.

    Args:
        encoder: The fast path.
        dialogues: Some of the user's own.

    Returns:
        None if every token and mask is equal; else what differs.
    """
    try:
        return _difference(encoder, dialogues)
    except TokiePanicError as error:
        return str(error)


def _difference(encoder: FastEncoder, dialogues: Sequence[Sequence[Message]]) -> str | None:
    fast = encoder.encode_unaudited(dialogues)
    for messages, found, wanted in zip(dialogues, fast, encoder.reference.encode_all(dialogues), strict=True):
        if not same(found, wanted):
            return f"differs on the row that asks {messages[1].content[:60]!r}"
    numbers = random.Random(0)
    texts = ["".join(numbers.choices(_PIECES, k=numbers.randint(1, 7))) for _ in range(_MADE_UP)]
    texts += [run * (_LONGEST_RUN // len(run)) for run in _RUNS]
    tokenizer = encoder.reference.tokenizer
    ids, lengths = encoder._ids(texts)
    wanted_ids = tokenizer(texts, add_special_tokens=False)["input_ids"]
    for text, got, expected in zip(texts, np.split(ids, np.cumsum(lengths)[:-1]), wanted_ids, strict=True):
        if got.tolist() != expected:
            return f"differs on {text[:60]!r}"
    return None


def same(first: Encoded | RowError, second: Encoded | RowError) -> bool:
    """Tell whether two results are the same tokens and mask, or the same refusal."""
    if isinstance(first, RowError) or isinstance(second, RowError):
        return str(first) == str(second)
    return np.array_equal(first.ids, second.ids) and np.array_equal(first.loss_mask, second.loss_mask)


def _audited(messages: Sequence[Message]) -> bool:
    said = messages[-1].content
    return fraction(f"{len(said)}:{said[-_EXCERPT:]}", purpose="audit", seed=0) < _AUDITED_SHARE
