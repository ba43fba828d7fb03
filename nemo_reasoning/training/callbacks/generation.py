"""What the model writes while it trains."""

import json
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from math import lcm
from pathlib import Path
from typing import Any, NamedTuple

import torch
from lightning.pytorch import Callback, LightningModule, Trainer

from nemo_reasoning.training.batching import ROW_MULTIPLE
from nemo_reasoning.training.loggers import drop_records_after

SAMPLES_FILE = "samples.jsonl"
_EXCERPT = 160


class SamplePrompt(NamedTuple):
    """A prompt, ready for the model.

    Attributes:
        mode: "on" or "off".
        text: The question, for people.
        ids: Tokens of the whole dialogue up to where the assistant starts.
    """

    mode: str
    text: str
    ids: Sequence[int]


def greedy_generate(
    forward: Callable[[torch.Tensor], torch.Tensor],
    *,
    prompts: Sequence[Sequence[int]],
    eos_ids: Collection[int],
    max_new_tokens: int,
    device: torch.device,
    length_multiple: int = 1,
) -> list[list[int]]:
    """Continue each prompt with the likeliest token until an end token or `max_new_tokens`.

    Every step computes the whole sequences again: slow, but a cache of keys and values is what
    Megatron's backends disagree about. Rows are padded on the right, which causal attention ignores.

    Args:
        forward: Maps token ids [batch, length] int64 to logits [batch, length, vocabulary].
        prompts: Token ids, none of them empty.
        eos_ids: Tokens that end a row; the end token is part of the result.
        max_new_tokens: Most tokens added to a row.
        device: Of the ids given to `forward`.
        length_multiple: Lengths are padded to a multiple of this; FP8 and sequence parallelism divide by it.

    Returns:
        The added tokens of each row.
    """
    rows = [list(prompt) for prompt in prompts]
    open_rows = list(range(len(rows)))
    for _ in range(max_new_tokens):
        if not open_rows:
            break
        longest = max(len(rows[index]) for index in open_rows)
        length = -(-longest // length_multiple) * length_multiple
        ids = [rows[index] + [0] * (length - len(rows[index])) for index in open_rows]
        logits = forward(torch.tensor(ids, dtype=torch.int64, device=device))
        for place, index in enumerate(open_rows):
            rows[index].append(int(logits[place, len(rows[index]) - 1].argmax()))
        open_rows = [index for index in open_rows if rows[index][-1] not in eos_ids]
    return [row[len(prompt) :] for row, prompt in zip(rows, prompts, strict=True)]


@contextmanager
def evaluating(module: torch.nn.Module) -> Iterator[None]:
    """Put `module` in evaluation mode without gradients; restore every submodule's mode and the RNG.

    `torch.inference_mode` would leave inference tensors in Megatron's cache of rotary embeddings, and
    the next training step could not save them for its backward pass.
    """
    modes = [(part, part.training) for part in module.modules()]
    devices = [torch.cuda.current_device()] if torch.cuda.is_available() else []
    module.eval()
    try:
        with torch.no_grad(), torch.random.fork_rng(devices=devices):
            yield
    finally:
        for part, training in modes:
            part.training = training


def can_generate(trainer: Trainer) -> bool:
    """Whether each rank has the whole sequence and all layers, as generating needs it."""
    return all(getattr(trainer.strategy, f"{kind}_parallel_size", 1) == 1 for kind in ("pipeline_model", "context"))


def answer_prompts(
    trainer: Trainer,
    pl_module: LightningModule,
    *,
    prompts: Sequence[SamplePrompt],
    eos_ids: Collection[int],
    max_new_tokens: int,
) -> list[list[int]]:
    """Let the model in training continue prompts; all ranks compute the same, and training does not notice.

    Arguments and result are those of `greedy_generate`.
    """
    tensor_parallel: int = getattr(trainer.strategy, "tensor_model_parallel_size", 1)
    with evaluating(pl_module), trainer.precision_plugin.val_step_context():
        return greedy_generate(
            _forward(pl_module, gather=tensor_parallel > 1),
            prompts=[prompt.ids for prompt in prompts],
            eos_ids=eos_ids,
            max_new_tokens=max_new_tokens,
            device=next(pl_module.parameters()).device,
            length_multiple=lcm(ROW_MULTIPLE, tensor_parallel),
        )


class GenerationSamples(Callback):
    """Lets the model in training answer a few prompts every N steps and at the end.

    Each answer is a line of samples.jsonl and a short excerpt on the display. All ranks compute, rank
    zero writes. Needs the whole sequence and all layers on each rank, so it is off under pipeline and
    context parallelism.
    """

    def __init__(
        self,
        *,
        prompts: Sequence[SamplePrompt],
        eos_ids: Collection[int],
        decode: Callable[[Sequence[int]], str],
        max_new_tokens: int,
        every_n_steps: int,
        path: Path,
        show: Callable[[str], None],
    ) -> None:
        """Set what to ask and how often.

        Args:
            prompts: What the model answers, all in one batch.
            eos_ids: Tokens that end an answer.
            decode: Token ids to text.
            max_new_tokens: Bound on each answer; time grows with its square.
            every_n_steps: Optimiser steps between samples.
            path: The samples.jsonl of the run.
            show: Prints a line for the user.
        """
        self._prompts, self._eos_ids, self._decode = prompts, frozenset(eos_ids), decode
        self._max_new_tokens, self._every_n_steps = max_new_tokens, every_n_steps
        self._path, self._show = path, show
        self._enabled = True
        self._sampled_step = 0

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Drop the samples that a killed run wrote after the checkpoint this run starts from."""
        self._sampled_step = trainer.global_step
        self._enabled = can_generate(trainer)
        if trainer.is_global_zero:
            drop_records_after(self._path, step=trainer.global_step)
            if not self._enabled:
                self._show("No sample generations: they need pipeline and context parallel size 1")

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Sample after every N-th step."""
        if trainer.global_step % self._every_n_steps == 0:
            self._sample(trainer, pl_module)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Sample the finished model."""
        self._sample(trainer, pl_module)

    def _sample(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if not self._enabled or trainer.global_step == self._sampled_step:
            return
        self._sampled_step = trainer.global_step
        answers = answer_prompts(
            trainer, pl_module, prompts=self._prompts, eos_ids=self._eos_ids, max_new_tokens=self._max_new_tokens
        )
        if trainer.is_global_zero:
            self._report(trainer.global_step, answers)

    def _report(self, step: int, answers: list[list[int]]) -> None:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        with self._path.open("a", encoding="utf-8") as file:
            for prompt, ids in zip(self._prompts, answers, strict=True):
                ended = bool(ids) and ids[-1] in self._eos_ids
                text = self._decode(ids[:-1] if ended else ids)
                record = {
                    "step": step,
                    "mode": prompt.mode,
                    "prompt": prompt.text,
                    "completion": text,
                    "completion_tokens": len(ids),
                    "finish_reason": "stop" if ended else "length",
                }
                file.write(json.dumps(record, ensure_ascii=False) + "\n")
                self._show(f"step {step}, thinking {prompt.mode}: {excerpt(prompt.text)} -> {excerpt(text)}")


def excerpt(text: str) -> str:
    """Return `text` on one line, with its middle left out if it is long: both ends tell most."""
    line = " ".join(text.split())
    half = _EXCERPT // 2
    return line if len(line) <= _EXCERPT else f"{line[:half]} ... {line[-half:]}"


def _forward(module: LightningModule, *, gather: bool) -> Callable[[torch.Tensor], torch.Tensor]:
    def forward(ids: torch.Tensor) -> torch.Tensor:
        position_ids = torch.arange(ids.shape[1], device=ids.device).expand_as(ids)
        logits: torch.Tensor = module(input_ids=ids, position_ids=position_ids, attention_mask=None)
        if gather:  # each tensor-parallel rank holds a slice of the vocabulary
            from megatron.core.tensor_parallel import gather_from_tensor_model_parallel_region

            logits = gather_from_tensor_model_parallel_region(logits)
        return logits

    return forward
