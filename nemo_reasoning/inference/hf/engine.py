"""Inference with Hugging Face transformers, on CPU or GPU: requests join a running batch and leave it."""

from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM

from nemo_reasoning.errors import EngineError
from nemo_reasoning.hardware import main_memory
from nemo_reasoning.inference.engine import Engine, Generation, Report
from nemo_reasoning.inference.hf import attention, packed
from nemo_reasoning.inference.hf.batch import RunningBatch
from nemo_reasoning.inference.hf.multi_lora import MultiLora, read_adapter_config
from nemo_reasoning.inference.hf.scheduler import Scheduler
from nemo_reasoning.inference.hf.threads import SpareCores
from nemo_reasoning.inference.request import GenerationRequest
from nemo_reasoning.inference.sequence import TokenSequence
from nemo_reasoning.inference.tokenizer import ChatTokenizer, load_chat_tokenizer, tokenizer_of
from nemo_reasoning.models.hf_config import in_dtype
from nemo_reasoning.peft.hf_adapter import read_tensors

_PREFILL_TOKENS = {"cpu": 256, "cuda": 4096}  # what a device reads, beside a token of each row, in the time of a few
_MEMORY_SHARE = 0.5


class HFEngine(Engine):
    """Generates with a Hugging Face model, with or without LoRA adapters.

    The tokenizer is the adapter's where the adapter's directory has one, and the model's otherwise; its
    chat template renders the prompts, unless another one is given. A turn ends at the tokenizer's EOS or
    at an EOS of the model's generation_config. What else is in the batch, and whether the beginning of the prompt
    was read for another request, may change the last bits of a request's logits, and with them which of two nearly
    equal ones is the greatest.

    Attributes:
        model: In evaluation mode, on its device; a single `adapter` is merged into it. On a CPU its weights are packed
            for speed: it computes, but cannot be saved.
        tokenizers: Tokenizer and template by name of adapter; None is the model itself.
    """

    def __init__(
        self,
        model: Path | str,
        adapter: Path | None = None,
        *,
        adapters: Mapping[str, Path] | None = None,
        dtype: str = "auto",
        device: str = "auto",
        batch_size: int = 64,
        context: int | None = None,
        cache_gb: float | None = None,
        chat_template: str | None = None,
    ) -> None:
        """Load the model, and merge the adapter into it in memory: the adapter then costs no time.

        Args:
            model: Directory or hub id of a causal language model of the Llama family.
            adapter: Directory of a PEFT adapter to merge.
            adapters: Directories of LoRA adapters to keep apart, by the name that requests choose them by.
            dtype: Of weights and arithmetic; "auto" is bfloat16 where the processor computes with it.
            device: Of torch; "auto" is CUDA where there is some.
            batch_size: Most requests decoded together; memory grows with it.
            context: Most tokens of prompt and completion; None is what the model was made for.
            cache_gb: Most memory of keys and values, in GiB; None is half of what is free.
            chat_template: Text of a template that takes the place of the tokenizer's own: a model is to be
                asked in the format it was trained in, which its base's directory may not have.

        Raises:
            EngineError: Model or adapter cannot be loaded, or there is no chat template.
        """
        if batch_size < 1:
            raise EngineError(f"batch_size={batch_size}; give 1 or more")
        place = torch.device(_detected_device() if device == "auto" else device)
        precision = _native_dtype(place) if dtype == "auto" else getattr(torch, dtype)
        adapters = adapters or {}
        sources: dict[str | None, Path | None] = {None: adapter} | dict(adapters)
        self.tokenizers = {
            name: load_chat_tokenizer(model, path, context=context, chat_template=chat_template)
            for name, path in sources.items()
        }
        with ThreadPoolExecutor(1) as passing:  # whose OpenMP threads end with it: see `Scheduler`
            self.model = passing.submit(_load_model, model, adapter, dtype=precision, device=place).result()
            self._lora = passing.submit(MultiLora, self.model, adapters).result() if adapters else None
            if place.type == "cpu" and packed.available(precision):
                passing.submit(packed.pack, self.model).result()
        self._vocabulary = self.model.get_input_embeddings().weight.shape[0]
        batch = RunningBatch(
            self.model,
            lora=self._lora,
            max_rows=batch_size,
            max_bytes=int(_free_memory(place) * _MEMORY_SHARE if cache_gb is None else cache_gb * 2**30),
            prefill_tokens=_PREFILL_TOKENS[place.type],
        )
        self.scheduler = Scheduler(batch, threads=SpareCores().used) if place.type == "cpu" else Scheduler(batch)

    def submit(self, request: GenerationRequest, report: Report) -> Generation:
        """As `Engine.submit`; the engine's thread computes from now on.

        Raises:
            EngineError: Prompt and `max_new_tokens` exceed the model's context or memory, there is no such
                adapter, or the engine is closed.
        """
        generation = self._queue(request, report)
        self.scheduler.start()
        return generation

    def _queue(self, request: GenerationRequest, report: Report) -> Generation:
        tokenizer = self.tokenizer(request.adapter)
        prompt = tokenizer.prompt(request)
        if (highest := max(prompt.ids)) >= self._vocabulary:
            raise EngineError(
                f"token {highest} of the prompt is in the tokenizer, but not in the model, which knows 0 to "
                f"{self._vocabulary - 1}; use the tokenizer the model was made with"
            )
        sequence = TokenSequence(request, prompt, tokenizer=tokenizer, report=report)
        number = -1 if self._lora is None or request.adapter is None else self._lora.numbers[request.adapter]
        return self.scheduler.submit(sequence, adapter=number)

    def _drive(self) -> bool:
        if not self.scheduler.started:
            self.scheduler.turn()
        return not self.scheduler.started

    def tokenizer(self, adapter: str | None) -> ChatTokenizer:
        """Return tokenizer and template of an adapter, or of the model.

        Raises:
            EngineError: There is no such adapter.
        """
        return tokenizer_of(self.tokenizers, adapter)

    def context(self, adapter: str | None) -> int:
        """As `Engine.context`."""
        return tokenizer_of(self.tokenizers, adapter).context

    def max_new_tokens_for(self, request: GenerationRequest) -> int:
        """As `Engine.max_new_tokens_for`: what the context leaves behind the prompt."""
        return self.tokenizer(request.adapter).max_new_tokens_for(request)

    @property
    def load(self) -> tuple[int, int]:
        """How many requests run, and how many wait."""
        return self.scheduler.running, self.scheduler.waiting

    @property
    def closed(self) -> bool:
        """Whether it takes no more requests."""
        return self.scheduler.closed

    def close(self) -> None:
        """Fail what is running or waiting, and take no more requests."""
        self.scheduler.close()


def _free_memory(device: torch.device) -> int:
    return torch.cuda.mem_get_info(device)[0] if device.type == "cuda" else main_memory().free


def _detected_device() -> str:
    return "cuda" if torch.cuda.is_available() else "cpu"


def _native_dtype(device: torch.device) -> torch.dtype:
    """Return bfloat16 where it is the faster one: a CPU without instructions for it only emulates it."""
    native = device.type == "cuda" or torch.cpu._is_avx512_bf16_supported()
    return torch.bfloat16 if native else torch.float32


def _load_model(model: Path | str, adapter: Path | None, *, dtype: torch.dtype, device: torch.device) -> Any:
    try:
        loaded = AutoModelForCausalLM.from_pretrained(
            model, **in_dtype(dtype), attn_implementation=attention.register(), trust_remote_code=False
        )
    except (OSError, ValueError) as error:
        raise EngineError(f"no model in {model} ({error}); give a Hugging Face directory or a hub id") from error
    if adapter is None:
        return loaded.to(device).eval()
    from peft import PeftModel

    read_adapter_config(adapter)
    read_tensors(adapter)
    try:
        return PeftModel.from_pretrained(loaded, str(adapter)).merge_and_unload().to(device).eval()
    except (RuntimeError, ValueError, KeyError) as error:
        cause = " ".join(str(error).split())
        raise EngineError(f"{adapter} does not fit {model}: {cause[:300]}; load it on the base it is of") from error
