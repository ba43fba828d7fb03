"""What clients get: OpenAI's objects, with the reasoning under both names in use."""

import time
import uuid
from collections.abc import Iterable, Sequence
from typing import Any

from nemo_reasoning.inference.request import Alternative, Completion, TokenLogprob


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


def chat_choice(index: int, completion: Completion, *, logprobs: bool) -> dict[str, Any]:
    """Return a choice of a chat completion."""
    reasoning = completion.reasoning or None
    message = {"role": "assistant", "content": completion.answer} | reasoning_fields(reasoning)
    return {
        "index": index,
        "message": message,
        "logprobs": chat_logprobs(completion.logprobs) if logprobs else None,
        "finish_reason": completion.finish_reason,
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


def text_choice(
    index: int, text: str, *, entries: Sequence[TokenLogprob], logprobs: bool, finish_reason: str | None
) -> dict[str, Any]:
    """Return a choice of a text completion, whole or streamed."""
    told = text_logprobs(entries) if logprobs else None
    return {"index": index, "text": text, "logprobs": told, "finish_reason": finish_reason}


def text_logprobs(entries: Sequence[TokenLogprob]) -> dict[str, Any]:
    """Return log-probabilities in the older form."""
    shown = [entry for entry in entries if entry.part == "answer"]
    offsets, position = [], 0
    for entry in shown:
        offsets.append(position)
        position += len(entry.text)
    return {
        "tokens": [entry.text for entry in shown],
        "token_logprobs": [entry.logprob for entry in shown],
        "top_logprobs": [{other.text: other.logprob for other in entry.top} for entry in shown],
        "text_offset": offsets,
    }


def error_body(message: str, *, kind: str, code: str, param: str | None = None) -> dict[str, Any]:
    """Return an error as OpenAI words it."""
    return {"error": {"message": message, "type": kind, "param": param, "code": code}}
