"""Turn tokens into text one at a time."""

from collections.abc import Callable, Sequence

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
