"""Tokenise dialogues: fast with `tokie` where it proves equal to `tokenizers`, the reference.

tokie 0.1.4 differs from `tokenizers` on a tab before 's, 'll and the like: such rows always go to the
reference. Everything else is proven on the user's own rows before the run, and again on a part of
every batch.
"""

import random
import re
from collections.abc import Sequence
from functools import cached_property, lru_cache
from itertools import chain
from pathlib import Path
from typing import Any, Protocol

import jinja2
import numpy as np

from nemo_reasoning.data.chat import ChatFormatter
from nemo_reasoning.data.dual_mode import fraction
from nemo_reasoning.data.schema import Message
from nemo_reasoning.data.store import Encoded
from nemo_reasoning.errors import RowError

_DOUBTFUL = re.compile(r"[\t\v\f]'")
_AUDITED_SHARE = 1 / 256
_MADE_UP = 2000
_PIECES = (
    *("\n", " ", "  ", "\r\n", "\u00a0", "\u3000", "'", "'re", "'s", "’", "a", "The", "1", "234", "é", "e\u0301"),
    *("中文", "😀", "👩‍👧", "\u200b", "\ufeff", "$", "\\frac{", "}", "^2", "_", "—", "(", ")", ".", "...", "²", "٣"),
    *("हिन्दी", "ไทย", "한국어", "<think>", "</think>", "`", '"', "'ll", "'D", "#", "def ", "==", "\x7f", "\u2028", "𝔸"),
)


class Encoder(Protocol):
    """Turns dialogues into tokens with a mask, each as good as alone."""

    def encode_all(self, dialogues: Sequence[Sequence[Message]]) -> list[Encoded | RowError]:
        """Return the tokens of each dialogue, or why it cannot be trained on."""
        ...


class FastEncoder:
    """Does what `ChatFormatter.encode_all` does, with tokie.

    The rendered text is cut where an assistant's stretch begins and ends, and the pieces are encoded
    one by one; that this gives the ids of the whole text is part of what the checks prove.

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
        from transformers.utils.chat_template_utils import render_jinja_template  # not in the oldest releases

        self.reference, self.encoded_again, self._render = reference, 0, render_jinja_template
        self._tokie: Any = tokie.Tokenizer.from_json(str(tokenizer_json))
        self._short = lru_cache(maxsize=256)(self._ids)

    @cached_property
    def _options(self) -> dict[str, Any]:
        return dict(self.reference.tokenizer.special_tokens_map)

    def encode_all(self, dialogues: Sequence[Sequence[Message]]) -> list[Encoded | RowError]:
        """Return the tokens of each dialogue, all by the reference if an audited one differs from it."""
        results = [self.encode(messages) for messages in dialogues]
        audited = [number for number, messages in enumerate(dialogues) if _audited(messages)]
        expected = self.reference.encode_all([dialogues[number] for number in audited])
        if not all(same(results[number], wanted) for number, wanted in zip(audited, expected, strict=True)):
            self.encoded_again += len(dialogues)
            return self.reference.encode_all(dialogues)
        return results

    def encode(self, messages: Sequence[Message]) -> Encoded | RowError:
        """Return the tokens of one dialogue, by the reference where tokie is known to differ."""
        if any(_DOUBTFUL.search(message.content) for message in messages):
            return self.reference.encode_all([messages])[0]
        if error := self.reference.unusable(messages):
            return error
        try:
            rendered, spans = self._render(
                [[message.to_dict() for message in messages]],
                chat_template=self.reference.template,
                return_assistant_tokens_mask=True,
                **self._options,
            )
        except jinja2.TemplateError:
            return self.reference.encode_all([messages])[0]
        targets = [message.target for message in messages if message.role == "assistant"]
        if len(spans[0]) != len(targets):
            return self.reference.encode_all([messages])[0]
        return self._pieces(rendered[0], spans[0], targets)

    def _pieces(self, text: str, spans: Sequence[tuple[int, int]], targets: Sequence[bool]) -> Encoded:
        edges = [0, *chain.from_iterable(spans), len(text)]
        pieces = [self._encode(text[start:end]) for start, end in zip(edges, edges[1:], strict=False)]
        marks = [False, *chain.from_iterable((target, False) for target in targets)]
        ids = np.fromiter(chain.from_iterable(pieces), dtype=np.int32, count=sum(map(len, pieces)))
        return Encoded(ids, np.repeat(np.array(marks, dtype=np.bool_), [len(piece) for piece in pieces]))

    def _encode(self, text: str) -> list[int]:
        return self._short(text) if len(text) < 64 else self._ids(text)

    def _ids(self, text: str) -> list[int]:
        ids: list[int] = self._tokie.encode(text, add_special_tokens=False).ids
        return ids


def prove(encoder: FastEncoder, dialogues: Sequence[Sequence[Message]]) -> str | None:
    """Compare the fast path with the reference.

    Args:
        encoder: The fast path.
        dialogues: Some of the user's own.

    Returns:
        None if every token and mask is equal, on them and on 2,000 made-up texts; else what differs.
    """
    fast = [encoder.encode(messages) for messages in dialogues]
    for messages, found, wanted in zip(dialogues, fast, encoder.reference.encode_all(dialogues), strict=True):
        if not same(found, wanted):
            return f"differs on the row that asks {messages[1].content[:60]!r}"
    numbers = random.Random(0)
    texts = ["".join(numbers.choices(_PIECES, k=numbers.randint(1, 7))) for _ in range(_MADE_UP)]
    tokenizer = encoder.reference.tokenizer
    for text, wanted in zip(texts, tokenizer(texts, add_special_tokens=False)["input_ids"], strict=True):
        if encoder._ids(text) != wanted:
            return f"differs on {text!r}"
    return None


def same(first: Encoded | RowError, second: Encoded | RowError) -> bool:
    """Tell whether two results are the same tokens and mask, or the same refusal."""
    if isinstance(first, RowError) or isinstance(second, RowError):
        return str(first) == str(second)
    return np.array_equal(first.ids, second.ids) and np.array_equal(first.loss_mask, second.loss_mask)


def _audited(messages: Sequence[Message]) -> bool:
    return fraction(messages[-1].content, purpose="audit", seed=0) < _AUDITED_SHARE
