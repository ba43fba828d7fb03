"""The adapter between Lightning's hooks, as NeMo drives them, and our callbacks."""

from collections.abc import Callable, Container, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch

from nemo_reasoning.backend.checkpoint_files import WRITTEN_HERE
from nemo_reasoning.backend.patching import applied
from nemo_reasoning.training.batching import BatchPlan
from nemo_reasoning.training.callbacks.base import Callback, Logits, StepRecord, Validation, in_order
from nemo_reasoning.training.optimizers import guard_updates

_NAMES = {"reduced_train_loss": "loss"}
_BOOKKEEPING = frozenset({"step", "epoch", "global_step", "global_batch_size", "consumed_samples"})


class _LightningLoop:
    """`callbacks.base.Loop` on a trainer; that protocol says what everything here is."""

    def __init__(self, trainer: pl.Trainer, announce_save: Callable[[], None]) -> None:
        self.trainer, self.announce_save = trainer, announce_save
        self.validation_requested = False

    @property
    def step(self) -> int:
        return self.trainer.global_step

    @property
    def max_steps(self) -> int:
        return self.trainer.max_steps

    @max_steps.setter
    def max_steps(self, steps: int) -> None:
        self.trainer.fit_loop.epoch_loop.max_steps = steps

    @property
    def world_size(self) -> int:
        return self.trainer.world_size

    @property
    def first_rank(self) -> bool:
        return self.trainer.is_global_zero

    @property
    def data_rank(self) -> int:
        from megatron.core import parallel_state

        rank: int = parallel_state.get_data_parallel_rank()
        return rank

    @property
    def device(self) -> torch.device:
        return self.trainer.strategy.root_device

    @property
    def can_generate(self) -> bool:
        kinds = ("pipeline_model", "context")
        return all(getattr(self.trainer.strategy, f"{kind}_parallel_size", 1) == 1 for kind in kinds)

    @property
    def model(self) -> torch.nn.Module:
        return self.trainer.lightning_module

    @property
    def stopping(self) -> bool:
        return self.trainer.should_stop

    @stopping.setter
    def stopping(self, value: bool) -> None:
        self.trainer.should_stop = value

    @contextmanager
    def logits(self) -> Iterator[tuple[Logits, int]]:
        tensor_parallel: int = getattr(self.trainer.strategy, "tensor_model_parallel_size", 1)
        with _evaluating(self.model), self.trainer.precision_plugin.val_step_context():
            yield _forward(self.model, gather=tensor_parallel > 1), tensor_parallel

    def save(self, path: Path) -> None:
        with applied(WRITTEN_HERE):
            self.trainer.save_checkpoint(path)
        if self.first_rank and hasattr(self.trainer, "__io__"):
            from nemo.lightning.io.pl import TrainerContext

            TrainerContext.from_trainer(self.trainer).io_dump(path / "context", yaml_attrs=["model"])
        self.barrier()

    def any_rank(self, told: bool) -> bool:
        return self.agree(-int(told)) < 0

    def agree(self, number: int) -> int:
        if self.world_size == 1:
            return number
        value = torch.tensor(number, device=self.device)
        torch.distributed.all_reduce(value, op=torch.distributed.ReduceOp.MIN)
        return int(value.item())

    def first_says(self, value: tuple[int, str, str]) -> tuple[int, str, str]:
        torch.distributed.broadcast_object_list(said := [value], src=0, device=self.device)
        return said[0]

    def barrier(self) -> None:
        self.trainer.strategy.barrier()

    def guard_updates(self, skip: Callable[[], bool]) -> None:
        wrapper: Any = self.trainer.optimizers[0]  # NeMo's has one
        guard_updates(wrapper.mcore_optimizer, skip)

    def request_validation(self) -> None:
        self.validation_requested = True

    def set_schedule(self, *, max_steps: int, warmup_steps: int) -> None:
        for configured in self.trainer.lr_scheduler_configs:
            schedule: Any = configured.scheduler
            schedule.max_steps, schedule.warmup_steps = max_steps, warmup_steps
            schedule.decay_steps = max_steps - warmup_steps - schedule.constant_steps
            schedule.last_epoch -= 1
            schedule.step()


class LightningHooks(pl.Callback):
    """Hands Lightning's hooks on to callbacks, in the order of their positions.

    It comes first among the trainer's callbacks: the learning rate that NeMo logs when a step begins is then the one
    that the callbacks have set.
    """

    def __init__(
        self,
        trainer: pl.Trainer,
        callbacks: Sequence[Callback],
        *,
        validation: BatchPlan,
        eval_interval: int,
        validated: Container[int] = (),
    ) -> None:
        """Take the callbacks and how to validate.

        Args:
            trainer: What drives them.
            callbacks: In any order.
            validation: Plan of the validation batches, for their numbers of tokens.
            eval_interval: Steps between validations; there is one after the last step in any case.
            validated: Steps after which earlier starts validated.
        """
        self.callbacks = list(in_order(callbacks))
        self._open = self.callbacks.copy()
        self._validation, self._eval_interval, self._validated = validation, eval_interval, validated
        self._first_step = True
        self.loop = _LightningLoop(trainer, lambda: self._call("on_save"))
        self._losses: list[torch.Tensor] = []

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Processes know each other."""
        self._call("on_setup")

    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """The model is built. From here on the steps done decide about validation.

        Lightning counts batches instead, and loses one where training stops within its hooks.
        """
        loop: Any = trainer.fit_loop.epoch_loop
        loop._should_check_val_fx = lambda fetcher: self._validation_due()
        self._call("on_model")

    def _validation_due(self) -> bool:
        step = self.loop.step
        if self.loop.validation_requested:
            return True
        return step % self._eval_interval == 0 or step >= self.loop.max_steps or self.loop.stopping

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Everything but the adapter is loaded.

        The checkpoint was saved at the end of a validation, which Lightning would take for one to be continued: the
        next one would miss its first batches, or have none.
        """
        trainer.fit_loop.epoch_loop.val_loop.restarting = False
        self._call("on_start")

    def on_train_batch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, index: int) -> None:
        """A step begins: NeMo runs all micro-batches of a step in one.

        Before the first one everything is loaded, adapters too. A validation that a signal prevented is made up for.
        """
        step, first, self._first_step = self.loop.step, self._first_step, False
        if first and step and self._validation_due() and step not in self._validated:
            trainer.validating = True
            trainer.fit_loop.epoch_loop.val_loop.run()
            trainer.training = True
        self._call("on_step_start")

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """A step is done."""
        self._call("on_step_end", StepRecord(self.loop.step, _logged(trainer)))

    def on_validation_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """A validation begins."""
        self._losses, self.loop.validation_requested = [], False
        if not trainer.sanity_checking:
            self._call("on_validation_start")

    def on_validation_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Keep the mean loss of a global batch."""
        self._losses.append(outputs.detach().double())

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """A validation is done: its loss is the mean over the supervised tokens, or the pairs, of all rows.

        NeMo weighs every global batch alike, so that the rows of a last, short batch would count more than others.
        """
        if trainer.sanity_checking:
            return
        terms = [self._validation.loss_terms(number) for number in range(len(self._losses))]
        loss = torch.stack([mean * count for mean, count in zip(self._losses, terms, strict=True)]).sum() / sum(terms)
        if getattr(trainer.strategy, "pipeline_model_parallel_size", 1) > 1:  # the last stage knows it
            from nemo.lightning._strategy_lib import _sync_from_last_pipeline_stage

            loss = loss.float()
            _sync_from_last_pipeline_stage(loss, broadcast=True)
        value = float(loss)
        self._call("on_validation_end", Validation(self.loop.step, value if torch.isfinite(loss) else None))

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """The last step is done."""
        self._call("on_end")

    def on_exception(self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException) -> None:
        """Training leaves with an error."""
        self._call("on_error", exception)

    def teardown(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """The training is over."""
        self.close()

    def close(self) -> None:
        """Close all callbacks, once; Lightning tears nothing down where training fails or does not begin."""
        with ExitStack() as stack:  # goes on where one of them fails
            while self._open:
                on_close: Any = self._open.pop().on_close
                stack.callback(on_close, self.loop)

    def _call(self, hook: str, *arguments: Any) -> None:
        for callback in self.callbacks:
            getattr(callback, hook)(self.loop, *arguments)


def _logged(trainer: pl.Trainer) -> dict[str, float]:
    """Return what NeMo logged about a step, under our names."""
    return {
        _NAMES.get(name, name): float(value)
        for name, value in trainer.callback_metrics.items()
        if name not in _BOOKKEEPING and not name.startswith("val_")
    }


@contextmanager
def _evaluating(module: torch.nn.Module) -> Iterator[None]:
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


def _forward(module: torch.nn.Module, *, gather: bool) -> Callable[[torch.Tensor], torch.Tensor]:
    def forward(ids: torch.Tensor) -> torch.Tensor:
        position_ids = torch.arange(ids.shape[1], device=ids.device).expand_as(ids)
        logits: torch.Tensor = module(input_ids=ids, position_ids=position_ids, attention_mask=None)
        if gather:  # each tensor-parallel rank holds a slice of the vocabulary
            from megatron.core.tensor_parallel import gather_from_tensor_model_parallel_region

            logits = gather_from_tensor_model_parallel_region(logits)
        return logits

    return forward
