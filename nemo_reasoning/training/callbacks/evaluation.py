"""Questions that the model answers while it trains, and training that stops when it learns no more."""

import json
import time
from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import Any, Self

from nemo_reasoning.artifacts import read_steps
from nemo_reasoning.reasoning.messages import Mode
from nemo_reasoning.training.callbacks.base import Callback, Logger, Loop, Questions, RunContext, StepRecord
from nemo_reasoning.training.callbacks.generation import MODES, SamplePrompt, answer_prompts, prompt_of
from nemo_reasoning.training.loggers import drop_records_after

EVALUATION_FILE = "eval.jsonl"


class InTrainingEvaluation(Callback):
    """Asks every question in both modes every N steps and at the end, greedily.

    The shares of right answers go to the loggers as eval_accuracy_on and eval_accuracy_off, and with the
    time they took to eval.jsonl. Their mean decides about stopping early, also across restarts. Needs the
    whole sequence and all layers on each rank, so it is off under pipeline and context parallelism.
    """

    position = 90

    def __init__(
        self,
        *,
        asked: Questions,
        loggers: Sequence[Logger],
        prompts: Sequence[SamplePrompt],
        eos_ids: Collection[int],
        decode: Callable[[Sequence[int]], str],
        max_new_tokens: int,
        every_n_steps: int,
        patience: int | None,
        path: Path,
        show: Callable[[str], None],
    ) -> None:
        """Set what to ask, how often, and when to give up.

        Args:
            asked: Questions and judge.
            loggers: Where the shares go.
            prompts: All questions with thinking on, then all with thinking off.
            eos_ids: Tokens that end an answer.
            decode: Token ids to text.
            max_new_tokens: Bound on each answer; time grows with its square.
            every_n_steps: Optimizer steps between evaluations.
            patience: Evaluations without a better result after which training stops; None for never.
            path: The eval.jsonl of the run.
            show: Prints a line for the user.
        """
        self._asked, self._loggers, self._prompts = asked, loggers, prompts
        self._eos_ids, self._decode = frozenset(eos_ids), decode
        self._max_new_tokens, self._every_n_steps, self._patience = max_new_tokens, every_n_steps, patience
        self._path, self._show = path, show
        self._asked_step = 0
        self._results: list[float] = []

    @classmethod
    def from_run(cls, context: RunContext) -> Self | None:
        """Ask where `callbacks.eval` says what and how often."""
        chosen, formatter = context.run.settings.callbacks.eval, context.inputs.formatter
        if chosen is None or context.questions is None:
            return None
        questions = context.questions
        return cls(
            asked=questions,
            loggers=context.loggers,
            prompts=[prompt_of(question, mode, formatter) for mode in MODES for question in questions.questions],
            eos_ids=[formatter.end_of_turn],
            decode=lambda ids: str(formatter.tokenizer.decode(ids)),
            max_new_tokens=chosen.max_new_tokens,
            every_n_steps=chosen.every_n_steps,
            patience=chosen.patience,
            path=context.run.path / EVALUATION_FILE,
            show=context.show,
        )

    def on_start(self, loop: Loop) -> None:
        """Take up the results of an earlier start; drop those after the checkpoint this one starts from."""
        self._asked_step = loop.step
        if loop.first_rank:
            drop_records_after(self._path, step=loop.step)
            if not loop.can_generate:
                self._show("No evaluation while training: it needs pipeline and context parallel size 1")
        loop.barrier()
        self._results = _results(self._path)
        self._stop_if_no_better(loop)

    def on_step_end(self, loop: Loop, record: StepRecord) -> None:
        """Ask after every N-th step."""
        if record.step % self._every_n_steps == 0:
            self._ask(loop)
            self._stop_if_no_better(loop)

    def on_end(self, loop: Loop) -> None:
        """Ask the finished model."""
        self._ask(loop)

    def _ask(self, loop: Loop) -> None:
        if not loop.can_generate or loop.step == self._asked_step:
            return
        self._asked_step, began = loop.step, time.perf_counter()
        answers = answer_prompts(
            loop, prompts=self._prompts, eos_ids=self._eos_ids, max_new_tokens=self._max_new_tokens
        )
        count = len(self._asked.questions)
        on = self._share("on", answers[:count])
        off = self._share("off", answers[count:])
        self._results.append((on + off) / 2)
        if loop.first_rank:
            for logger in self._loggers:
                logger.log(loop.step, {"eval_accuracy_on": on, "eval_accuracy_off": off})
            seconds = time.perf_counter() - began
            self._write({"step": loop.step, "accuracy_on": on, "accuracy_off": off, "seconds": seconds})
            self._show(
                f"step {loop.step}: {on:.0%} of {count} questions right with thinking on, {off:.0%} off "
                f"({seconds:.0f} s)"
            )

    def _share(self, mode: Mode, answers: Sequence[Sequence[int]]) -> float:
        rights = 0
        for number, ids in enumerate(answers):
            finished = bool(ids) and ids[-1] in self._eos_ids
            rights += self._asked.judge(number, mode, self._decode(ids[:-1] if finished else ids), finished)
        return rights / len(answers)

    def _write(self, record: dict[str, Any]) -> None:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        with self._path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(record) + "\n")

    def _stop_if_no_better(self, loop: Loop) -> None:
        if self._patience is None or not self._results or loop.stopping:
            return
        since = len(self._results) - 1 - self._results.index(max(self._results))
        if since >= self._patience:
            loop.stopping = True
            if loop.first_rank:
                self._show(f"step {loop.step}: no better for {since} evaluations, so training stops here")


def _results(path: Path) -> list[float]:
    """Return the mean of both modes of every evaluation so far."""
    records = [record for record in read_steps(path)[0] if {"accuracy_on", "accuracy_off"} <= record.keys()]
    return [(record["accuracy_on"] + record["accuracy_off"]) / 2 for record in records]
