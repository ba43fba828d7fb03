"""What the model writes while it trains."""

import json
from collections.abc import Callable, Collection, Sequence
from math import lcm
from pathlib import Path
from typing import NamedTuple, Self

import torch

from nemo_reasoning.data.chat import ChatFormatter
from nemo_reasoning.data.prepare.folder import SPLITS
from nemo_reasoning.reasoning.messages import Message, Mode
from nemo_reasoning.reasoning.switch import system_prompt
from nemo_reasoning.training.batching import ROW_MULTIPLE
from nemo_reasoning.training.callbacks.base import Callback, Loop, RunContext, StepRecord
from nemo_reasoning.training.loggers import drop_records_after

SAMPLES_FILE = "samples.jsonl"
MODES: tuple[Mode, ...] = ("on", "off")
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


def answer_prompts(
    loop: Loop, *, prompts: Sequence[SamplePrompt], eos_ids: Collection[int], max_new_tokens: int
) -> list[list[int]]:
    """Let the model in training continue prompts; all ranks compute the same, and training does not notice.

    Arguments and result are those of `greedy_generate`.
    """
    with loop.logits() as (forward, multiple):
        return greedy_generate(
            forward,
            prompts=[prompt.ids for prompt in prompts],
            eos_ids=eos_ids,
            max_new_tokens=max_new_tokens,
            device=loop.device,
            length_multiple=lcm(ROW_MULTIPLE, multiple),
        )


def prompt_of(question: str, mode: Mode, formatter: ChatFormatter) -> SamplePrompt:
    """Return a question as a dialogue in a mode, up to where the assistant starts."""
    dialogue = [Message("system", system_prompt(mode)), Message("user", question)]
    return SamplePrompt(mode, question, formatter.prompt_ids(dialogue))


def sample_prompts(data: Path, formatter: ChatFormatter) -> list[SamplePrompt]:
    """Return the first question of the validation rows, once in each mode."""
    with (data / SPLITS["validation"]).open(encoding="utf-8") as lines:
        turns = json.loads(next(lines))["messages"]
    question = next(turn["content"] for turn in turns if turn["role"] == "user")
    return [prompt_of(question, mode, formatter) for mode in MODES]


class GenerationSamples(Callback):
    """Lets the model in training answer a few prompts every N steps and at the end.

    Each answer is a line of samples.jsonl and a short excerpt on the display. All ranks compute, rank
    zero writes. Needs the whole sequence and all layers on each rank, so it is off under pipeline and
    context parallelism.
    """

    position = 80

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
            every_n_steps: Optimizer steps between samples.
            path: The samples.jsonl of the run.
            show: Prints a line for the user.
        """
        self._prompts, self._eos_ids, self._decode = prompts, frozenset(eos_ids), decode
        self._max_new_tokens, self._every_n_steps = max_new_tokens, every_n_steps
        self._path, self._show = path, show
        self._sampled_step = 0

    @classmethod
    def from_run(cls, context: RunContext) -> Self | None:
        """Sample every `callbacks.samples_interval` steps; 0 leaves it out."""
        chosen, formatter = context.run.settings.callbacks, context.inputs.formatter
        if not chosen.samples_interval:
            return None
        return cls(
            prompts=sample_prompts(context.inputs.data, formatter),
            eos_ids=[formatter.end_of_turn],
            decode=lambda ids: str(formatter.tokenizer.decode(ids)),
            max_new_tokens=chosen.samples_max_new_tokens,
            every_n_steps=chosen.samples_interval,
            path=context.run.path / SAMPLES_FILE,
            show=context.show,
        )

    def on_start(self, loop: Loop) -> None:
        """Drop the samples that a killed run wrote after the checkpoint this run starts from."""
        self._sampled_step = loop.step
        if loop.first_rank:
            drop_records_after(self._path, step=loop.step)
            if not loop.can_generate:
                self._show("No sample generations: they need pipeline and context parallel size 1")

    def on_step_end(self, loop: Loop, record: StepRecord) -> None:
        """Sample after every N-th step."""
        if record.step % self._every_n_steps == 0:
            self._sample(loop)

    def on_end(self, loop: Loop) -> None:
        """Sample the finished model."""
        self._sample(loop)

    def _sample(self, loop: Loop) -> None:
        if not loop.can_generate or loop.step == self._sampled_step:
            return
        self._sampled_step = loop.step
        answers = answer_prompts(
            loop, prompts=self._prompts, eos_ids=self._eos_ids, max_new_tokens=self._max_new_tokens
        )
        if loop.first_rank:
            self._report(loop.step, answers)

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
