"""What clients get: OpenAI's objects, with the reasoning under both names in use."""

import time
import uuid
from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from itertools import accumulate
from math import isnan
from typing import Any, Protocol

from nemo_reasoning.inference.request import Alternative, Completion, Delta, TokenLogprob
from nemo_reasoning.serving.tools import ToolStream, find_tool_calls


def stamp(prefix: str, *, kind: str, model: str) -> dict[str, Any]:
    """Return the fields that all parts of one answer share."""
    return {"id": f"{prefix}-{uuid.uuid4().hex}", "object": kind, "created": int(time.time()), "model": model}


def usage(prompt_tokens: int, completions: Iterable[Completion]) -> dict[str, Any]:
    """Return the tokens read and written; a prompt that several choices continue counts once."""
    done = list(completions)
    written = sum(completion.completion_tokens for completion in done)
    return {
        "prompt_tokens": prompt_tokens,
        "completion_tokens": written,
        "total_tokens": prompt_tokens + written,
        "completion_tokens_details": {"reasoning_tokens": sum(completion.reasoning_tokens for completion in done)},
    }


def reasoning_fields(reasoning: str | None) -> dict[str, Any]:
    """Return the reasoning under vLLM's name and under DeepSeek's."""
    return {"reasoning": reasoning, "reasoning_content": reasoning}


def chunk_choice(
    index: int, delta: dict[str, Any], *, logprobs: dict[str, Any] | None = None, finish_reason: str | None = None
) -> dict[str, Any]:
    """Return a choice of a streamed part."""
    return {"index": index, "delta": delta, "logprobs": logprobs, "finish_reason": finish_reason}


def chat_logprobs(entries: Sequence[TokenLogprob]) -> dict[str, Any]:
    """Return the log-probabilities of the answer's tokens; those of the thinking and of its tags are left out."""
    return {
        "content": [
            _token(entry) | {"top_logprobs": [_token(other) for other in entry.top]}
            for entry in entries
            if entry.part == "answer"
        ],
        "refusal": None,
    }


def _token(entry: TokenLogprob | Alternative) -> dict[str, Any]:
    return {"token": entry.text, "logprob": entry.logprob, "bytes": list(entry.text.encode())}


def text_logprobs(entries: Sequence[TokenLogprob], *, start: int) -> dict[str, Any]:
    """Return log-probabilities in the older form; `start` is the place of the first token in the text.

    The end of the turn is among them only behind an echo, where clients count on one entry for every token.
    """
    parts = ("prompt", "answer", "end") if entries and entries[0].part == "prompt" else ("answer",)
    shown = [entry for entry in entries if entry.part in parts]
    places = list(accumulate((len(entry.text) for entry in shown), initial=start))
    return {
        "tokens": [entry.text for entry in shown],
        "token_logprobs": [None if isnan(entry.logprob) else entry.logprob for entry in shown],
        "top_logprobs": [
            None if isnan(entry.logprob) else {other.text: other.logprob for other in entry.top} for entry in shown
        ],
        "text_offset": places[:-1],
    }


def _text_choice(
    index: int, text: str, *, logprobs: dict[str, Any] | None = None, finish_reason: str | None = None
) -> dict[str, Any]:
    return {"index": index, "text": text, "logprobs": logprobs, "finish_reason": finish_reason}


class Format(Protocol):
    """How the choices of an endpoint look."""

    prefix: str
    kinds: tuple[str, str]

    def whole(self, index: int, completion: Completion) -> dict[str, Any]:
        """Return a finished choice."""
        ...

    def begin(self, index: int) -> dict[str, Any] | None:
        """Return the first part of a streamed choice, if it has one."""
        ...

    def part(self, index: int, delta: Delta) -> dict[str, Any]:
        """Return what a delta adds to a streamed choice."""
        ...

    def end(self, index: int, completion: Completion) -> dict[str, Any]:
        """Return the last part of a streamed choice."""
        ...


class ChatFormat:
    """Answers as chat completions; where tools are offered, a stream tells their calls at its end."""

    kinds = ("chat.completion", "chat.completion.chunk")
    prefix = "chatcmpl"

    def __init__(self, *, logprobs: bool, tools: Collection[str] = ()) -> None:
        """Take whether log-probabilities are told, and the names of the tools that may be called."""
        self._logprobs, self._tools = logprobs, tools
        self._streams: dict[int, ToolStream] = {}  # of each choice

    def whole(self, index: int, completion: Completion) -> dict[str, Any]:
        """Return a finished choice."""
        answer = completion.answer
        content, calls = find_tool_calls(answer, self._tools) if self._tools else (answer, [])
        message = {"role": "assistant", "content": content} | reasoning_fields(completion.reasoning or None)
        return {
            "index": index,
            "message": message | ({"tool_calls": calls} if calls else {}),
            "logprobs": chat_logprobs(completion.logprobs) if self._logprobs else None,
            "finish_reason": "tool_calls" if calls else completion.finish_reason,
        }

    def begin(self, index: int) -> dict[str, Any]:
        """Return the first part of a streamed choice."""
        return chunk_choice(index, {"role": "assistant", "content": ""})

    def part(self, index: int, delta: Delta) -> dict[str, Any]:
        """Return what a delta adds to a streamed choice."""
        words = reasoning_fields(delta.reasoning) if delta.reasoning else {}
        if content := self._stream(index).push(delta.answer) if self._tools else delta.answer:
            words["content"] = content
        told = chat_logprobs(delta.logprobs) if self._logprobs else None
        return chunk_choice(index, words, logprobs=told)

    def end(self, index: int, completion: Completion) -> dict[str, Any]:
        """Return the last part of a streamed choice."""
        if not self._tools:
            return chunk_choice(index, {}, finish_reason=completion.finish_reason)
        content, calls = self._stream(index).finish()
        words: dict[str, Any] = {"content": content} if content else {}
        if calls:
            words["tool_calls"] = [{"index": number, **call} for number, call in enumerate(calls)]
        return chunk_choice(index, words, finish_reason="tool_calls" if calls else completion.finish_reason)

    def _stream(self, index: int) -> ToolStream:
        return self._streams.setdefault(index, ToolStream(self._tools))


class TextFormat:
    """Answers as text completions."""

    kinds = ("text_completion", "text_completion")
    prefix = "cmpl"

    def __init__(self, *, logprobs: bool) -> None:
        """Take whether log-probabilities are told."""
        self._logprobs = logprobs
        self._said: Counter[int] = Counter()  # characters of each streamed choice

    def whole(self, index: int, completion: Completion) -> dict[str, Any]:
        """Return a finished choice."""
        told = text_logprobs((*completion.echo, *completion.logprobs), start=0) if self._logprobs else None
        text = "".join(entry.text for entry in completion.echo) + completion.text
        return _text_choice(index, text, logprobs=told, finish_reason=completion.finish_reason)

    def begin(self, index: int) -> None:
        """Return nothing: a streamed choice begins with its text."""

    def part(self, index: int, delta: Delta) -> dict[str, Any]:
        """Return what a delta adds to a streamed choice."""
        told = text_logprobs(delta.logprobs, start=self._said[index]) if self._logprobs else None
        self._said[index] += sum(len(entry.text) for entry in delta.logprobs)
        return _text_choice(index, delta.answer, logprobs=told)

    def end(self, index: int, completion: Completion) -> dict[str, Any]:
        """Return the last part of a streamed choice."""
        return _text_choice(index, "", finish_reason=completion.finish_reason)


def error_body(message: str, *, kind: str, code: str, param: str | None = None) -> dict[str, Any]:
    """Return an error as OpenAI words it."""
    return {"error": {"message": message, "type": kind, "param": param, "code": code}}
