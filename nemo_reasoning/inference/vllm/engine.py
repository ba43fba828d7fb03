"""Inference with vLLM, which lives in an environment of its own: LoRA adapters on the base."""

import threading
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from pathlib import Path
from typing import Any

from transformers import AutoConfig

from nemo_reasoning.errors import EngineClosedError, EngineError, GenerationError
from nemo_reasoning.hardware import count_gpus
from nemo_reasoning.inference.engine import Engine, Generation, Report
from nemo_reasoning.inference.request import Alternative, GenerationRequest
from nemo_reasoning.inference.sequence import Record, TokenSequence
from nemo_reasoning.inference.thinking_budget import TokenDecision
from nemo_reasoning.inference.tokenizer import ChatTokenizer, load_chat_tokenizer, tokenizer_of
from nemo_reasoning.inference.vllm.server import BASE, VllmServer

_NEVER = -100.0  # the bias that excludes a token


class VllmEngine(Engine):
    """Generates with a vLLM server that it starts and stops.

    Prompts, answers and limits on thinking are those of the transformers engine: the server continues
    tokens, and where a limit is reached its stream is left, and another one begun behind the tokens that
    this engine has put there. A token that is put there counts as certain in log-probabilities.

    Attributes:
        tokenizers: Tokenizer and template by name of adapter; None is the model itself, or its only adapter.
    """

    def __init__(
        self,
        model: Path | str,
        adapter: Path | None = None,
        *,
        python: Path,
        adapters: Mapping[str, Path] | None = None,
        dtype: str = "auto",
        batch_size: int = 64,
        context: int | None = None,
        cache_gb: float | None = None,
        tensor_parallel_size: int = 1,
        args: Sequence[str] = (),
        chat_template: str | None = None,
    ) -> None:
        """Start vLLM with the model, which takes a minute or more.

        Args:
            model: Directory or hub id of a causal language model.
            adapter: Directory of a PEFT adapter that answers what names no adapter.
            python: Interpreter of the environment that holds vLLM.
            adapters: Directories of further LoRA adapters, by the name that requests choose them by.
            dtype: Of weights and arithmetic, as vLLM names it.
            batch_size: Most requests decoded together.
            context: Most tokens of prompt and completion; None is what the model was made for.
            cache_gb: Memory of keys and values where vLLM runs on a CPU, in GiB.
            tensor_parallel_size: GPUs, or processes on a CPU, that share each weight.
            args: Further arguments of `vllm serve`.
            chat_template: Text of a template that takes the place of the tokenizer's own.

        Raises:
            EngineError: vLLM does not start, there is no tokenizer or template, or too few GPUs, or the model's heads
                cannot be shared so.
        """
        if tensor_parallel_size > 1:
            _check_tensor_parallel(model, tensor_parallel_size)
        sources: dict[str | None, Path | None] = {None: adapter} | dict(adapters or {})
        self.tokenizers = {
            name: load_chat_tokenizer(model, path, context=context, chat_template=chat_template)
            for name, path in sources.items()
        }
        loras = {f"adapter-{name or 'default'}": path for name, path in sources.items() if path is not None}
        self._names = {name: BASE if path is None else f"adapter-{name or 'default'}" for name, path in sources.items()}
        own = [
            "--dtype",
            dtype,
            "--max-num-seqs",
            str(batch_size),
            "--max-model-len",
            str(self.tokenizers[None].context),
        ]
        own += ["--max-logprobs", "20", "--tensor-parallel-size", str(tensor_parallel_size), *args]
        self._server = VllmServer(python, model, adapters=loras, args=own, cache_gb=cache_gb)
        self._pool = ThreadPoolExecutor(batch_size, thread_name_prefix="vllm")
        self._lock = threading.Lock()
        self._running = self._waiting = 0
        self._closed = False

    def submit(self, request: GenerationRequest, report: Report) -> Generation:
        """Start a request and return at once; `report` is called on another thread and must not block.

        Raises:
            EngineError: The prompt and `max_new_tokens` exceed the context, there is no such adapter, or the
                engine is closed.
        """
        if self._closed:
            raise EngineClosedError("the engine is closed; start another one")
        if request.schema is not None:
            raise EngineError(
                "response_format and tool_choice=required are not available with engine=vllm; leave them out, or use "
                "engine=hf"
            )
        if request.echo:
            raise EngineError("echo is not available with engine=vllm; ask without it, or use engine=hf")
        tokenizer = tokenizer_of(self.tokenizers, request.adapter)
        generation = Generation()
        sequence = TokenSequence(request, tokenizer.prompt(request), tokenizer=tokenizer, report=report)
        self._count(waiting=1)
        self._pool.submit(self._serve, request, sequence, tokenizer, generation)
        return generation

    @property
    def load(self) -> tuple[int, int]:
        """How many requests run, and how many wait."""
        return self._running, self._waiting

    @property
    def closed(self) -> bool:
        """Whether it takes no more requests, or its server has ended."""
        return self._closed or not self._server.alive

    def context(self, adapter: str | None) -> int:
        """As `Engine.context`."""
        return tokenizer_of(self.tokenizers, adapter).context

    def max_new_tokens_for(self, request: GenerationRequest) -> int:
        """As `Engine.max_new_tokens_for`: what the context leaves behind the prompt."""
        return tokenizer_of(self.tokenizers, request.adapter).max_new_tokens_for(request)

    def close(self) -> None:
        """Fail what is running or waiting, and stop vLLM."""
        self._closed = True
        self._server.close()
        self._pool.shutdown()

    def _count(self, *, waiting: int = 0, running: int = 0) -> None:
        with self._lock:
            self._waiting += waiting
            self._running += running

    def _serve(
        self, request: GenerationRequest, sequence: TokenSequence, tokenizer: ChatTokenizer, generation: Generation
    ) -> None:
        self._count(waiting=-1, running=1)
        try:
            while not (sequence.done or generation.cancelled or self._closed):
                if sequence.forced:
                    sequence.write_forced()
                else:
                    self._listen(request, sequence, tokenizer, generation)
            if self._closed:
                sequence.fail(EngineClosedError("the engine was closed before the end; ask again"))
        except EngineError as error:
            sequence.fail(EngineClosedError(str(error)) if self._closed else error)
        except Exception as error:  # whatever it is, whoever waits must hear of it
            sequence.fail(GenerationError(f"generation failed: {type(error).__name__}: {error}"))
        finally:
            self._count(running=-1)

    def _listen(
        self, request: GenerationRequest, sequence: TokenSequence, tokenizer: ChatTokenizer, generation: Generation
    ) -> None:
        """Let the sequence take the server's tokens until it wants another."""
        for token, record in self._tokens(request, sequence, tokenizer):
            if generation.cancelled or self._closed:
                return
            accepted = sequence.offer(token, record) is TokenDecision.accept
            if not accepted or sequence.done or sequence.forced:
                return

    def _tokens(
        self, request: GenerationRequest, sequence: TokenSequence, tokenizer: ChatTokenizer
    ) -> Iterator[tuple[int, Record | None]]:
        """Yield the tokens that follow the prompt and what is written."""
        written, banned = sequence.tokens, [(token, _NEVER) for token in sequence.banned]
        body = {
            "model": self._names[request.adapter],
            "prompt": [*sequence.prompt, *written],
            "max_tokens": sequence.limit - len(written),
            **asdict(request.sampling),
            "seed": (request.seed + len(written)) % 2**63,
            "logprobs": request.logprobs,
            "logit_bias": {str(token): bias for token, bias in [*request.logit_bias, *banned]} or None,
            "return_token_ids": True,
        }
        token = None
        for choice in self._server.complete(body):
            for place, token in enumerate(choice["token_ids"] or []):
                yield token, _record(choice["logprobs"], place)
            if choice["finish_reason"] == "stop" and token not in tokenizer.stop_ids:
                yield min(tokenizer.stop_ids), None


def _check_tensor_parallel(model: Path | str, size: int) -> None:
    """Refuse a number of GPUs that cannot share a model's weights, or that there are not, before vLLM starts.

    Raises:
        EngineError: Says what divides, or how many there are.
    """
    config = AutoConfig.from_pretrained(model, trust_remote_code=False)
    heads = config.num_attention_heads
    groups = getattr(config, "num_key_value_heads", None) or heads
    fitting = [one for one in range(1, heads + 1) if not heads % one and not (groups % one and one % groups)]
    if size not in fitting:
        raise EngineError(
            f"engine.tensor_parallel_size={size}: {model} has {heads} attention heads and {groups} of keys and values; "
            f"choose one of {', '.join(map(str, fitting))}"
        )
    if (gpus := count_gpus()) is not None and gpus < size:
        raise EngineError(f"engine.tensor_parallel_size={size}: {gpus} GPU is visible here; choose at most {gpus}")


def _record(logprobs: dict[str, Any] | None, place: int) -> Record | None:
    if logprobs is None:
        return None
    top = logprobs["top_logprobs"][place] or {}
    likeliest = sorted((Alternative(text, value) for text, value in top.items()), key=lambda each: -each.logprob)
    return Record(logprobs["token_logprobs"][place], tuple(likeliest))
