"""Turn tokens into text one at a time, and find stop strings in it."""

from collections.abc import Callable, Sequence

from nemo_reasoning.reasoning.tags import partial_suffix

_REPLACEMENT = "\ufffd"
_CONTEXT = 4  # tokens before the new ones: sentencepiece decodes the first token of a text unlike the others


class Detokenizer:
    """Decodes tokens as they come, and holds back those that do not make a whole character yet.

    The pieces, joined, are what decoding all tokens at once gives.
    """

    def __init__(self, decode: Callable[[Sequence[int]], str]) -> None:
        """Take the function that decodes a list of tokens."""
        self._decode = decode
        self._tokens: list[int] = []
        self._start = self._read = 0
        self._before = ""
        self._peeked: tuple[int, str] | None = None

    def peek(self, token: int) -> str:
        """Return what `push` would return."""
        if self._peeked is None or self._peeked[0] != token:
            text = self._decode([*self._tokens[self._start :], token])
            self._peeked = (token, "" if text.endswith(_REPLACEMENT) else text[len(self._before) :])
        return self._peeked[1]

    def push(self, token: int) -> str:
        """Take a token and return the text that is certain by now."""
        text = self.peek(token)
        self._tokens.append(token)
        self._peeked = None
        if text:
            self._settle(self._read)
        return text

    def flush(self) -> str:
        """Return the text of what was held back, replacement characters for broken ones."""
        text = self._decode(self._tokens[self._start :])[len(self._before) :]
        self._settle(self._read)
        self._peeked = None
        return text

    def truncate(self, length: int) -> None:
        """Forget all tokens but the first `length`, whose text has been returned already."""
        del self._tokens[length:]
        self._settle(max(length - _CONTEXT, 0))
        self._peeked = None

    def _settle(self, start: int) -> None:
        self._start, self._read = start, len(self._tokens)
        self._before = self._decode(self._tokens[start:])


class StopFinder:
    """Finds the first of some strings in text that comes in pieces.

    Attributes:
        found: Whether one was found; nothing is returned from then on.
    """

    def __init__(self, words: Sequence[str]) -> None:
        """Take the strings to stop at, none of them empty; there may be none."""
        self._words = tuple(words)
        self._held = self._word = ""
        self.found = False

    def push(self, text: str) -> str:
        """Return the text that stands before any of the strings for certain."""
        if self.found:
            return ""
        text = self._held + text
        places = [(place, word) for word in self._words if (place := text.find(word)) >= 0]
        if places:
            self.found, self._held = True, ""
            place, self._word = min(places)
            return text[:place]
        self._held = partial_suffix(text, self._words) if self._words else ""
        return text[: len(text) - len(self._held)]

    def finish(self) -> str:
        """Return what was held back; the text has ended."""
        held, self._held = self._held, ""
        return held

    def before(self, text: str) -> str:
        """Return a text that ends with what was found, without it and what follows."""
        return text[: text.rfind(self._word)] if self.found and self._word in text else text
