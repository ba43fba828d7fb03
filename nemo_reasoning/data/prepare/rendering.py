"""Render dialogues in pieces, cut where an assistant's stretch begins and ends."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from itertools import chain, pairwise
from typing import Any

import jinja2

from nemo_reasoning.data.chat import ChatFormatter, packaged_templates
from nemo_reasoning.reasoning.messages import Message

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

    What the package's own templates write around the turns depends on nothing but the turns' roles, so it is
    rendered once for each sequence of roles; any other template is asked for every dialogue.
    """

    def __init__(self, formatter: ChatFormatter) -> None:
        """Take the formatter.

        Raises:
            ImportError: transformers is too old.
        """
        from transformers.utils.chat_template_utils import render_jinja_template  # not in the oldest releases

        self._formatter, self._jinja = formatter, render_jinja_template
        self._fixed = formatter.template in packaged_templates()
        self._frame = lru_cache(maxsize=1024)(self._make_frame)

    @cached_property
    def _options(self) -> dict[str, Any]:
        return dict(self._formatter.tokenizer.special_tokens_map)

    def cut(self, messages: Sequence[Message]) -> Cut | None:
        """Return a dialogue in pieces; None if the template refuses it or marks other stretches than its turns."""
        texts = self._filled(messages) if self._fixed else self._rendered([message.to_dict() for message in messages])
        targets = [message.target for message in messages if message.role == "assistant"]
        if texts is None or len(texts) != 2 * len(targets) + 1:
            return None
        return Cut(texts, [False, *chain.from_iterable((target, False) for target in targets)])

    def _rendered(self, turns: list[dict[str, str]]) -> list[str] | None:
        """Return the text of turns in pieces, every second one an assistant's; None if the template refuses them."""
        try:
            ((text,), (spans,)) = self._jinja(
                [turns], chat_template=self._formatter.template, return_assistant_tokens_mask=True, **self._options
            )
        except jinja2.TemplateError:
            return None
        return [text[start:end] for start, end in pairwise([0, *chain.from_iterable(spans), len(text)])]

    def _filled(self, messages: Sequence[Message]) -> list[str] | None:
        frame = self._frame(tuple(message.role for message in messages))
        if frame is None:
            return None
        return ["".join([part if isinstance(part, str) else part.fill(messages) for part in parts]) for parts in frame]

    def _make_frame(self, roles: tuple[str, ...]) -> list[list[str | _Gap]] | None:
        """Return what stands around and between turns of these roles, with gaps for what they say."""
        texts = self._rendered([{"role": role, "content": _STAND_IN.format(n)} for n, role in enumerate(roles)])
        return None if texts is None else [_with_gaps(text) for text in texts]


def _with_gaps(text: str) -> list[str | _Gap]:
    literal, *rest = _FOUND.split(text)
    pieces: list[str | _Gap] = [literal]
    for space, number, behind in zip(rest[::3], rest[1::3], rest[2::3], strict=True):
        pieces += [_Gap(int(number), trimmed=not space), behind]
    return pieces
