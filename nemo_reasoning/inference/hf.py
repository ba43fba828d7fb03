"""Inference with Hugging Face transformers, on CPU or GPU."""

from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedTokenizerBase

from nemo_reasoning.data.schema import THINK_CLOSE, THINK_OPEN
from nemo_reasoning.errors import EngineError
from nemo_reasoning.inference import attention
from nemo_reasoning.inference.decoding import Job, decode, sampler
from nemo_reasoning.inference.engine import Completion, GenerationRequest
from nemo_reasoning.inference.thinking import split_thinking, with_switch

Precision = Literal["auto", "bfloat16", "float32"]


class HFEngine:
    """Generates with a Hugging Face model, with or without a LoRA adapter.

    The tokenizer is the adapter's where the adapter's directory has one, and the model's otherwise; its
    chat template renders the prompts, unless another one is given. A turn ends at the tokenizer's EOS or
    at an EOS of the model's generation_config. The same requests to the same machine give the same tokens.

    Attributes:
        model: In evaluation mode, on its device; an adapter is merged into it.
        tokenizer: Carries the chat template.
        stop_ids: Tokens that end a turn.
        batch_size: Most requests decoded together.
    """

    def __init__(
        self,
        model: Path | str,
        adapter: Path | None = None,
        *,
        dtype: Precision = "auto",
        device: str = "auto",
        batch_size: int = 64,
        chat_template: str | None = None,
    ) -> None:
        """Load the model, and merge the adapter into it in memory: the adapter then costs no time.

        Args:
            model: Directory or hub id of a causal language model.
            adapter: Directory of a PEFT adapter.
            dtype: Of weights and arithmetic; "auto" is bfloat16 where the processor computes with it.
            device: Of torch; "auto" is CUDA where there is some.
            batch_size: Most requests decoded together; memory grows with it.
            chat_template: Text of a template that takes the place of the tokenizer's own: a model is to be
                asked in the format it was trained in, which its base's directory may not have.

        Raises:
            EngineError: Model or adapter cannot be loaded, or there is no chat template.
        """
        if batch_size < 1:
            raise EngineError(f"batch_size={batch_size}; give 1 or more")
        place = torch.device(_detected_device() if device == "auto" else device)
        precision = _native_dtype(place) if dtype == "auto" else getattr(torch, dtype)
        self.tokenizer = _load_tokenizer(model, adapter, chat_template=chat_template)
        self.model = _load_model(model, adapter, dtype=precision).to(place).eval()
        self.stop_ids = _stop_ids(self.model, self.tokenizer)
        self.batch_size = batch_size

    def generate(self, requests: Sequence[GenerationRequest]) -> list[Completion]:
        """Return one completion per request, in their order; batches hold prompts of similar length.

        Raises:
            EngineError: A prompt and its `max_new_tokens` exceed the model's context.
        """
        prompts = [self.prompt_ids(request) for request in requests]
        order = sorted(range(len(requests)), key=lambda index: len(prompts[index]))
        completions: dict[int, Completion] = {}
        for start in range(0, len(order), self.batch_size):
            chosen = order[start : start + self.batch_size]
            jobs = [_job(requests[index], prompts[index]) for index in chosen]
            for index, tokens in zip(chosen, decode(self.model, jobs, stop_ids=self.stop_ids), strict=True):
                completions[index] = self._completion(requests[index], len(prompts[index]), tokens)
        return [completions[index] for index in range(len(requests))]

    def prompt_ids(self, request: GenerationRequest) -> list[int]:
        """Return the token ids of a request's dialogue up to where the assistant begins to speak.

        Raises:
            EngineError: They and `max_new_tokens` exceed the model's context.
        """
        turns = [message.to_dict() for message in with_switch(request.messages, request.mode)]
        tokens: Any = self.tokenizer.apply_chat_template(turns, add_generation_prompt=True, return_dict=True)
        ids: list[int] = tokens["input_ids"]
        context = self.model.config.max_position_embeddings
        if len(ids) + request.max_new_tokens > context:
            raise EngineError(
                f"the prompt's {len(ids)} tokens and max_new_tokens={request.max_new_tokens} exceed the "
                f"model's context of {context}; lower max_new_tokens or shorten the prompt"
            )
        return ids

    def room(self, request: GenerationRequest) -> int:
        """Return how many tokens may follow a request's prompt.

        Raises:
            EngineError: The prompt leaves no room.
        """
        context: int = self.model.config.max_position_embeddings
        return context - len(self.prompt_ids(replace(request, max_new_tokens=1)))

    def _completion(self, request: GenerationRequest, prompt_tokens: int, tokens: list[int]) -> Completion:
        finished = tokens[-1] in self.stop_ids
        written = tokens[:-1] if finished else tokens
        text = self._decode(written)
        split = split_thinking(text, request.mode, finished=finished)
        return Completion(
            text=text,
            reasoning=split.reasoning,
            answer=split.answer,
            well_formed=split.well_formed,
            prompt_tokens=prompt_tokens,
            completion_tokens=len(tokens),
            reasoning_tokens=self._reasoning_tokens(written, text),
            finish_reason="stop" if finished else "length",
        )

    def _reasoning_tokens(self, tokens: list[int], text: str) -> int:
        """Return how many tokens it took until the last thinking block was closed."""
        if text.rfind(THINK_OPEN) > text.rfind(THINK_CLOSE):
            return len(tokens)
        blocks = text.count(THINK_CLOSE)
        return bisect_left(
            range(len(tokens)), blocks, key=lambda count: self._decode(tokens[:count]).count(THINK_CLOSE)
        )

    def _decode(self, tokens: list[int]) -> str:
        text: str = self.tokenizer.decode(tokens, skip_special_tokens=True, clean_up_tokenization_spaces=False)
        return text


def _job(request: GenerationRequest, prompt: list[int]) -> Job:
    choose = sampler(temperature=request.temperature, top_p=request.top_p, seed=request.seed)
    return Job(prompt=prompt, max_new_tokens=request.max_new_tokens, choose=choose)


def _detected_device() -> str:
    return "cuda" if torch.cuda.is_available() else "cpu"


def _native_dtype(device: torch.device) -> torch.dtype:
    """Return bfloat16 where it is the faster one: a CPU without instructions for it only emulates it."""
    native = device.type == "cuda" or torch.cpu._is_avx512_bf16_supported()
    return torch.bfloat16 if native else torch.float32


def _load_tokenizer(model: Path | str, adapter: Path | None, *, chat_template: str | None) -> PreTrainedTokenizerBase:
    own = adapter is not None and (adapter / "tokenizer_config.json").is_file()
    source = adapter if own else model
    try:
        tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(source)
    except (OSError, ValueError) as error:
        raise EngineError(f"no tokenizer in {source} ({error}); point at the directory of an exported model") from error
    if chat_template is not None:
        tokenizer.chat_template = chat_template
    if tokenizer.chat_template is None:
        raise EngineError(
            f"the tokenizer in {source} has no chat template; add chat_template.jinja to the directory, "
            "or give the engine a template"
        )
    return tokenizer


def _load_model(model: Path | str, adapter: Path | None, *, dtype: torch.dtype) -> Any:
    try:
        loaded = AutoModelForCausalLM.from_pretrained(model, dtype=dtype, attn_implementation=attention.register())
    except (OSError, ValueError) as error:
        raise EngineError(f"no model in {model} ({error}); give a Hugging Face directory or a hub id") from error
    if adapter is None:
        return loaded
    from peft import PeftModel

    if not (adapter / "adapter_config.json").is_file():
        raise EngineError(f"{adapter} has no adapter_config.json; export it with formats=[hf_peft] first")
    return PeftModel.from_pretrained(loaded, str(adapter)).merge_and_unload()


def _stop_ids(model: Any, tokenizer: PreTrainedTokenizerBase) -> frozenset[int]:
    declared = model.generation_config.eos_token_id
    listed = declared if isinstance(declared, list) else [declared]
    stops = frozenset(token for token in [*listed, tokenizer.eos_token_id] if token is not None)
    if not stops:
        raise EngineError(
            "neither tokenizer nor generation_config names an EOS token; set eos_token in tokenizer_config.json"
        )
    return stops
