"""Special tokens in what people say: those that steer a dialogue are refused, others are written as text."""

import re
from collections.abc import Sequence
from dataclasses import replace
from itertools import chain

from transformers import PreTrainedTokenizerBase

from nemo_reasoning.reasoning.messages import Message

_CONTROL = re.compile(r"<\|.*\|>|\[/?[A-Z_]+\]|</?(?:s|unk|pad|mask|bos|eos)>")
_BREAK = "\ue002"  # stands in a special token's text, so that it is tokenised as text


class SpecialTokens:
    """The special tokens of a tokenizer, as they occur in text.

    Those that a template writes, that begin or end a text, or that look like it are control tokens; others, such
    as the `<filename>` of code models, are ordinary words that people write.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, template: str) -> None:
        """Divide the tokens."""
        special = {token.content for token in tokenizer.added_tokens_decoder.values() if token.special}
        named = {str(token) for token in tokenizer.special_tokens_map.values()}
        control = {token for token in special if token in named or token in template or _CONTROL.fullmatch(token)}
        self._control, self._ordinary = _any_of(control), _any_of(special - control)

    def control_in(self, text: str) -> str | None:
        """Return the first control token in a text."""
        found = self._control.search(text) if self._control is not None else None
        return found[0] if found else None

    def as_text(self, messages: Sequence[Message]) -> list[Message] | None:
        """Return a dialogue in which ordinary special tokens are broken up; None if it has none."""
        pattern = self._ordinary
        if pattern is None or not any(pattern.search(message.content) for message in messages):
            return None
        return [
            replace(message, content=pattern.sub(lambda found: found[0][0] + _BREAK + found[0][1:], message.content))
            for message in messages
        ]


def _any_of(texts: set[str]) -> re.Pattern[str] | None:
    return re.compile("|".join(map(re.escape, sorted(texts, key=len, reverse=True)))) if texts else None


def cut_at_breaks(pieces: Sequence[str], targets: Sequence[bool]) -> tuple[list[str], list[bool]]:
    """Return pieces of text cut where a special token is broken up, and whether each is a target.

    Args:
        pieces: A rendered dialogue, every second piece an assistant's.
        targets: Whether each assistant's piece is trained on.
    """
    texts, marks = list[str](), list[bool]()
    for piece, mark in zip(pieces, [False, *chain.from_iterable((target, False) for target in targets)], strict=True):
        parts = piece.split(_BREAK) if _BREAK in piece else [piece]
        texts += parts
        marks += [mark] * len(parts)
    return texts, marks
