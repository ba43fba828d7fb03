"""Answers from a server that speaks OpenAI's protocol."""

import os
import re
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from typing import Any

import httpx

from nemo_reasoning.errors import EngineError, GenerationError, SwitchError
from nemo_reasoning.inference.engine import Engine, Generation, Report
from nemo_reasoning.inference.request import Completion, Delta, GenerationRequest
from nemo_reasoning.reasoning.sampling import Sampling
from nemo_reasoning.reasoning.switch import with_switch, without_switch
from nemo_reasoning.reasoning.tags import THINK_CLOSE, Split, split_thinking, with_thinking

_BUSY = frozenset({408, 429, 500, 502, 503, 504})
_ATTEMPTS, _LONGEST_WAIT = 5, 60.0
_TOO_LONG = re.compile(r"context|max_(?:completion_|new_)?tokens", re.IGNORECASE)
_CONTEXT = re.compile(r"maximum context length (?:is|of) (\d+)", re.IGNORECASE)
_PROMPT = re.compile(
    r"(\d+) (?:of the prompt|in (?:the|your) (?:messages|prompt)|(?:input|prompt) tokens)", re.IGNORECASE
)
_TIMEOUT = httpx.Timeout(connect=10, read=3600, write=60, pool=None)


@dataclass(frozen=True, slots=True, kw_only=True)
class RemoteModel:
    """A model that a server holds.

    Attributes:
        url: Up to and with "/v1".
        name: By which the server knows the model.
        concurrency: Most requests under way.
        api_key_variable: Environment variable that holds the key; without it none is sent.
        arguments: Of its chat template, that switch the thinking; without any a line of the system turn does.
    """

    url: str
    name: str
    concurrency: int
    api_key_variable: str
    arguments: tuple[str, ...] = ()


class OpenAIEngine(Engine):
    """Asks a chat completions endpoint, several requests at a time.

    Thinking may come inside the content, between its tags, or in a field of its own, `reasoning` or
    `reasoning_content`. A server that is busy or out of reach is asked again, with growing pauses; one whose context
    is too short for `max_new_tokens` is asked for what it leaves, and the completion says so.
    """

    def __init__(self, model: RemoteModel, *, pause: float = 1.0) -> None:
        """Remember where to ask; nothing is sent yet.

        Args:
            model: Where it is.
            pause: Seconds before the second attempt; each further one waits twice as long.

        Raises:
            EngineError: `concurrency` is below 1, the key cannot be sent, or the address is none.
        """
        if model.concurrency < 1:
            raise EngineError(f"concurrency={model.concurrency}; give 1 or more")
        key = os.environ.get(model.api_key_variable, "").strip()
        if not all("!" <= letter <= "~" for letter in key):
            raise EngineError(
                f"{model.api_key_variable}, the environment variable that api_key_variable names, holds what no header "
                "can carry, such as a line break or a letter outside of ASCII; set the key alone"
            )
        headers = {"Authorization": f"Bearer {key}"} if key else {}
        limits, base_url = httpx.Limits(max_connections=model.concurrency), model.url.rstrip("/") + "/"
        try:
            self._client = httpx.Client(base_url=base_url, headers=headers, timeout=_TIMEOUT, limits=limits)
        except httpx.InvalidURL as error:
            raise EngineError(f"url={model.url}: {error}; write it as http://localhost:8000/v1") from error
        self._threads = ThreadPoolExecutor(model.concurrency)
        self._model, self._pause = model, pause

    def submit(self, request: GenerationRequest, report: Report) -> Generation:
        """As `Engine.submit`; the whole answer is reported at once, when it is there."""
        generation = Generation()
        self._threads.submit(self._serve, request, report, generation)
        return generation

    def _serve(self, request: GenerationRequest, report: Report, generation: Generation) -> None:
        if generation.cancelled:
            return
        end: Completion | EngineError
        try:
            end = self._complete(request)
        except EngineError as error:
            end = error
        except Exception as error:  # whatever it is, whoever waits must hear of it
            end = GenerationError(f"{self._client.base_url}: {type(error).__name__}: {error}")
        if isinstance(end, Completion) and (end.reasoning or end.answer):
            report(Delta(end.reasoning, end.answer))
        report(end)

    def max_new_tokens_for(self, request: GenerationRequest) -> int:
        """Return what the request asks for: only the server knows its context."""
        return request.max_new_tokens

    def close(self) -> None:
        """Send no further request, and close the connections."""
        self._threads.shutdown(cancel_futures=True)
        self._client.close()

    def _complete(self, request: GenerationRequest) -> Completion:
        body, lowered = _body(request, self._model), None
        while True:
            response = self._post(body)
            if response.is_success:
                break
            lowered = _lower_limit(response, body["max_tokens"])
            if lowered is None:
                raise EngineError(self._refusal(response))
            body["max_tokens"] = lowered
        try:
            answer = response.json()
            if isinstance(answer, dict) and answer.get("error") and not answer.get("choices"):
                raise EngineError(self._refusal(response))
            return replace(_completion(answer, request), lowered_to=lowered)
        except (ValueError, KeyError, IndexError, TypeError, AttributeError) as error:
            raise EngineError(
                f"{response.url} is no chat completions server: it sent {response.text[:200]!r}; check url, which ends "
                "with /v1"
            ) from error

    def _post(self, body: dict[str, Any]) -> httpx.Response:
        for attempt in range(1, _ATTEMPTS + 1):
            try:
                response = self._client.post("chat/completions", json=body)
            except httpx.TransportError as error:
                if attempt == _ATTEMPTS:
                    raise EngineError(
                        f"{self._client.base_url} cannot be reached ({type(error).__name__}: {error}); start the "
                        "server, or check url"
                    ) from error
                wait = 0.0
            else:
                if response.status_code not in _BUSY or attempt == _ATTEMPTS:
                    return response
                wait = _retry_after(response)
            time.sleep(max(wait, self._pause * 2 ** (attempt - 1)))
        raise AssertionError("unreachable")

    def _refusal(self, response: httpx.Response) -> str:
        """Return what the server said, and which setting to change."""
        said = f"{response.url} answered {response.status_code}: {_told(response)}"
        if response.status_code in (401, 403):
            sent = "Authorization" in self._client.headers
            name = self._model.api_key_variable
            return f"{said}; {'it refuses the key in' if sent else 'it wants a key: set'} {name}, the environment " + (
                "variable that api_key_variable names"
            )
        if response.status_code == 404:
            return f"{said}; check model_name={self._model.name}, and url, which ends with /v1"
        return f"{said}; check url, model_name and the limits on tokens"


def _told(response: httpx.Response) -> str:
    """Return what a server says of an error, in a line: its message, if it has OpenAI's form."""
    try:
        text = str(response.json()["error"]["message"])
    except (ValueError, KeyError, TypeError):
        text = response.text
    return " ".join(text.split())[:500]


def _lower_limit(response: httpx.Response, asked: int) -> int | None:
    """Return the token limit to ask for instead, if a server refuses one as larger than its context, or None."""
    if response.status_code not in (400, 413, 422) or not _TOO_LONG.search(response.text):
        return None
    context, prompt = _CONTEXT.search(response.text), _PROMPT.search(response.text)
    room = int(context[1]) - int(prompt[1]) if context and prompt else asked // 2
    return room if 0 < room < asked else None


def _retry_after(response: httpx.Response) -> float:
    """Return the seconds that a server asks to wait, as far as an attempt is worth them."""
    stated = response.headers.get("Retry-After", "")
    return min(float(stated), _LONGEST_WAIT) if stated.isdecimal() else 0.0


def _body(request: GenerationRequest, model: RemoteModel) -> dict[str, Any]:
    try:
        messages = (without_switch if model.arguments else with_switch)(request.messages, request.mode)
    except SwitchError as error:
        raise EngineError(str(error)) from error
    body = {
        "model": model.name,
        "messages": [message.to_dict() for message in messages],
        "max_tokens": request.max_new_tokens,
        "temperature": request.sampling.temperature,
        "top_p": request.sampling.top_p,
        "seed": request.seed,
    }
    neutral = asdict(Sampling())
    body |= {
        name: value for name, value in asdict(request.sampling).items() if name not in body and value != neutral[name]
    }
    if model.arguments:
        body["chat_template_kwargs"] = dict.fromkeys(model.arguments, request.mode == "on")
    if request.logit_bias:
        body["logit_bias"] = {str(token): bias for token, bias in request.logit_bias}
    if request.thinking_budget is not None:
        body["nvext"] = {"max_thinking_tokens": request.thinking_budget}
    return body


def _completion(answer: Any, request: GenerationRequest) -> Completion:
    choice, usage = answer["choices"][0], answer.get("usage") or {}
    message = choice["message"]
    content, thought = _divided(message.get("content") or message.get("refusal"))
    thought = _text(message.get("reasoning") or message.get("reasoning_content")) or thought
    text = with_thinking(thought, content) if thought else content
    finished = choice.get("finish_reason") != "length"
    counted = (usage.get("completion_tokens_details") or {}).get("reasoning_tokens")
    # A server that counts thinking tells it apart: what it sends without tags is answer, also where it was cut.
    answered = counted is not None and THINK_CLOSE not in text
    split = split_thinking(text, request.mode, finished=finished, prefilled=False if answered else None)
    return Completion(
        text=text,
        reasoning=split.reasoning,
        answer=split.answer,
        well_formed=split.well_formed,
        prompt_tokens=usage.get("prompt_tokens") or 0,
        completion_tokens=usage.get("completion_tokens") or 0,
        reasoning_tokens=counted or 0,
        finish_reason="stop" if finished else "length",
        not_enforced=tuple(_broken(request, split, counted)),
    )


def _divided(content: Any) -> tuple[str, str]:
    """Return text and thinking of a content, which may come in parts with both, as Mistral's does."""
    if not isinstance(content, list):
        return _text(content), ""
    parts = [(part["type"] == "thinking", part.get("text") or part.get("thinking")) for part in content]
    return "".join(_text(told) for thinking, told in parts if not thinking), "".join(
        _divided(told)[0] for thinking, told in parts if thinking
    )


def _text(told: Any) -> str:
    """Return a text as it was sent; half a character is replaced, for no file can hold it.

    Raises:
        TypeError: It is none.
    """
    if told is None:
        return ""
    if not isinstance(told, str):
        raise TypeError(f"{type(told).__name__} in place of a text")
    return told.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def _broken(request: GenerationRequest, split: Split, counted: int | None) -> Iterator[str]:
    """Yield what the server did against the request: it can be asked to limit its thinking, but not made to."""
    budget = request.thinking_budget
    if request.mode == "off" and (split.reasoning or counted):
        yield "mode=off: the server thought all the same"
    if budget is not None and counted is not None and counted > budget:
        yield f"thinking_budget={budget}: the server wrote {counted} tokens of thinking"
    if budget is not None and counted is None and split.reasoning:
        yield f"thinking_budget={budget}: the server does not say how many tokens it thought"
    if request.mode == "on" and split.reasoning and not split.answer:
        yield "the server ended within the thinking; raise max_new_tokens, or the server's own limit"
