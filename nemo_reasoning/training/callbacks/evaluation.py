"""Questions that the model answers while it trains, and training that stops when it learns no more."""

import json
import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer

from nemo_reasoning.reasoning.messages import Mode
from nemo_reasoning.training.callbacks.generation import SamplePrompt, answer_prompts, can_generate
from nemo_reasoning.training.loggers import Record, drop_records_after

QUIZ_FILE = "eval.jsonl"


@dataclass(frozen=True, slots=True, kw_only=True)
class Paper:
    """What is asked, and who judges the answers.

    Attributes:
        questions: User turns.
        judge: Tells from the number of a question, the mode, what the model wrote and whether it came to
            its end if the answer is right.
    """

    questions: Sequence[str]
    judge: Callable[[int, Mode, str, bool], bool]


class Quiz(Callback):
    """Asks every question in both modes every N steps and at the end, greedily.

    The shares of right answers go to the loggers as eval_accuracy_on and eval_accuracy_off, and with the
    time they took to eval.jsonl. Their mean decides about stopping early, also across restarts. Needs the
    whole sequence and all layers on each rank, so it is off under pipeline and context parallelism.
    """

    def __init__(
        self,
        *,
        paper: Paper,
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
            paper: Questions and judge.
            prompts: All questions with thinking on, then all with thinking off.
            eos_ids: Tokens that end an answer.
            decode: Token ids to text.
            max_new_tokens: Bound on each answer; time grows with its square.
            every_n_steps: Optimiser steps between evaluations.
            patience: Evaluations without a better result after which training stops; None for never.
            path: The eval.jsonl of the run.
            show: Prints a line for the user.
        """
        self._paper, self._prompts, self._eos_ids, self._decode = paper, prompts, frozenset(eos_ids), decode
        self._max_new_tokens, self._every_n_steps, self._patience = max_new_tokens, every_n_steps, patience
        self._path, self._show = path, show
        self._enabled, self._asked_step = True, 0
        self._results: list[float] = []

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Take up the results of an earlier start; drop those after the checkpoint this one starts from."""
        self._asked_step, self._enabled = trainer.global_step, can_generate(trainer)
        if trainer.is_global_zero:
            drop_records_after(self._path, step=trainer.global_step)
            if not self._enabled:
                self._show("No evaluation while training: it needs pipeline and context parallel size 1")
        trainer.strategy.barrier()
        self._results = _results(self._path)
        self._stop_if_no_better(trainer)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Ask after every N-th step."""
        if trainer.global_step % self._every_n_steps == 0:
            self._ask(trainer, pl_module)
            self._stop_if_no_better(trainer)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Ask the finished model."""
        self._ask(trainer, pl_module)

    def _ask(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if not self._enabled or trainer.global_step == self._asked_step:
            return
        self._asked_step, began = trainer.global_step, time.perf_counter()
        answers = answer_prompts(
            trainer, pl_module, prompts=self._prompts, eos_ids=self._eos_ids, max_new_tokens=self._max_new_tokens
        )
        count = len(self._paper.questions)
        on = self._share("on", answers[:count])
        off = self._share("off", answers[count:])
        self._results.append((on + off) / 2)
        for logger in trainer.loggers:
            logger.log_metrics(Record(eval_accuracy_on=on, eval_accuracy_off=off), step=trainer.global_step)
        if trainer.is_global_zero:
            seconds = time.perf_counter() - began
            self._write({"step": trainer.global_step, "accuracy_on": on, "accuracy_off": off, "seconds": seconds})
            self._show(
                f"step {trainer.global_step}: {on:.0%} of {count} questions right with thinking on, {off:.0%} off "
                f"({seconds:.0f} s)"
            )

    def _share(self, mode: Mode, answers: Sequence[Sequence[int]]) -> float:
        rights = 0
        for number, ids in enumerate(answers):
            finished = bool(ids) and ids[-1] in self._eos_ids
            rights += self._paper.judge(number, mode, self._decode(ids[:-1] if finished else ids), finished)
        return rights / len(answers)

    def _write(self, record: dict[str, Any]) -> None:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        with self._path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(record) + "\n")

    def _stop_if_no_better(self, trainer: Trainer) -> None:
        if self._patience is None or not self._results or trainer.should_stop:
            return
        since = len(self._results) - 1 - self._results.index(max(self._results))
        if since >= self._patience:
            trainer.should_stop = True
            if trainer.is_global_zero:
                self._show(f"step {trainer.global_step}: no better for {since} evaluations, so training stops here")


def _results(path: Path) -> list[float]:
    """Return the mean of both modes of every evaluation so far."""
    if not path.is_file():
        return []
    records = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    return [(record["accuracy_on"] + record["accuracy_off"]) / 2 for record in records]
