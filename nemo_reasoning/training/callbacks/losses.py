"""What the model computes its loss from, and how its gradient reaches the adapters."""

import math
from collections.abc import Callable, Iterator
from typing import Any, Self

import torch
from torch.utils.hooks import RemovableHandle

from nemo_reasoning.training.batching import BatchPlan
from nemo_reasoning.training.callbacks.base import Callback, Loop, RunContext, StepRecord
from nemo_reasoning.training.checkpoints import History
from nemo_reasoning.training.failures import NonFiniteLoss
from nemo_reasoning.training.loss import supervised_loss

SKIP = "skip"


class SupervisedLoss(Callback):
    """Makes Megatron's model compute logits and loss at supervised positions only, for the length of a run.

    `supervised_loss` takes the place of output layer and loss. Labels must be `IGNORED_LABEL` where nothing is
    supervised. Without labels the model still gives logits.
    """

    position = 10

    def __init__(self) -> None:
        """Change nothing until there is a model."""
        self._changed: list[Any] = []

    @classmethod
    def from_run(cls, context: RunContext) -> Self:
        """Every run has it."""
        return cls()

    def on_model(self, loop: Loop) -> None:
        """Change the model, which is built by now."""
        self._changed = install(loop.model)

    def on_close(self, loop: Loop) -> None:
        """Give the models their own method back."""
        while self._changed:
            vars(self._changed.pop()).pop("_postprocess", None)


class InputGradients(Callback):
    """Asks for gradients of the first layer's input where layers are recomputed, for the length of a run.

    Megatron recomputes a layer in a reentrant checkpoint, whose output has a gradient only if its input has
    one. Behind a frozen embedding no layer would have any: the adapters would stay what they are, in silence.
    """

    position = 11

    def __init__(self) -> None:
        """Change nothing until training starts."""
        self._hooks: list[RemovableHandle] = []

    @classmethod
    def from_run(cls, context: RunContext) -> Self:
        """Every run has it."""
        return cls()

    def on_model(self, loop: Loop) -> None:
        """Watch the embedding of every model that recomputes whole layers."""
        for module in gpt_models(loop.model):
            if module.pre_process and module.config.recompute_granularity == "full":
                self._hooks.append(module.embedding.register_forward_hook(_ask_for_gradient))

    def on_close(self, loop: Loop) -> None:
        """Watch no longer."""
        while self._hooks:
            self._hooks.pop().remove()


class NonFiniteSteps(Callback):
    """Ends a run at a step without a finite loss and gradient, or leaves `trainer.max_skipped_steps` of them out.

    Weights and the optimizer's moments are then what they were, and the schedule goes on. Every step left out is told
    with its rows and recorded, and a run that goes on remembers them.
    """

    position = 12

    def __init__(self, limit: int, *, history: History, show: Callable[[str], None], plan: BatchPlan) -> None:
        """Take how many may be left out, where that is recorded and told, and which rows a step takes."""
        self._limit, self._history, self._show, self._plan = limit, history, show, plan
        self._skipped: set[int] = set()
        self._guarded = False

    @classmethod
    def from_run(cls, context: RunContext) -> Self:
        """Every run has it; where no step may be left out Megatron checks the gradients."""
        limit = context.run.settings.trainer.max_skipped_steps
        return cls(limit, history=context.run.history, show=context.show, plan=context.batches.plans["train"])

    def on_start(self, loop: Loop) -> None:
        """Remember what earlier starts left out."""
        events = self._history.events()
        self._skipped = {event["step"] for event in events if event["event"] == SKIP and event["step"] <= loop.step}

    def on_step_start(self, loop: Loop) -> None:
        """Watch the updates from the first step on: where adapters are trained the optimizer is made late."""
        if self._limit and not self._guarded:
            self._guarded = True
            loop.guard_updates(lambda: self._skip(loop))

    def on_step_end(self, loop: Loop, record: StepRecord) -> None:
        """Count; of a step that was left out there is neither loss nor norm.

        Raises:
            NonFiniteLoss: The loss is no number, and the step was not left out.
        """
        if record.step in self._skipped:
            for name in ("loss", "grad_norm"):
                record.metrics.pop(name, None)
        elif not math.isfinite(record.metrics.get("loss", 0.0)):
            raise NonFiniteLoss(f"the loss is {record.metrics['loss']}")
        if self._limit:
            record.metrics["skipped_steps"] = len(self._skipped)

    def _skip(self, loop: Loop) -> bool:
        if len(self._skipped) >= self._limit:
            return False
        step = loop.step + 1
        self._skipped.add(step)
        self._show(
            f"step {step} is left out, {len(self._skipped)} of at most {self._limit}: loss or gradient is no number; "
            f"{self._plan.describe_rows(step - 1)}"
        )
        if loop.first_rank:
            self._history.append(SKIP, step=step)
        return True


def install(wrapped: torch.nn.Module) -> list[Any]:
    """Put `supervised_loss` into Megatron's models, one a pipeline stage, under an engine's wrappers; return them."""
    changed = [module for module in gpt_models(wrapped) if module.post_process]
    for module in changed:
        module._postprocess = _with_supervised_loss(module, module._postprocess)
    return changed


def gpt_models(wrapped: torch.nn.Module) -> Iterator[Any]:
    """Yield Megatron's models, one a pipeline stage, under an engine's wrappers."""
    from megatron.core.models.gpt import GPTModel

    return (module for module in wrapped.modules() if isinstance(module, GPTModel))


def _with_supervised_loss(model: Any, plain: Callable[..., torch.Tensor]) -> Callable[..., torch.Tensor]:
    from megatron.core.tensor_parallel.mappings import gather_from_sequence_parallel_region

    def postprocess(*, hidden_states: torch.Tensor, labels: torch.Tensor | None, **rest: Any) -> torch.Tensor:
        if labels is None:
            return plain(hidden_states=hidden_states, labels=labels, **rest)
        tied = model.share_embeddings_and_output_weights
        weight = model.shared_embedding_or_output_weight() if tied else model.output_layer.weight
        if model.config.sequence_parallel:  # the loss sums the gradients of the ranks' vocabularies itself
            hidden_states = gather_from_sequence_parallel_region(
                hidden_states, tensor_parallel_output_grad=False, group=model.pg_collection.tp
            )
        return supervised_loss(hidden_states, weight, labels, group=model.pg_collection.tp)

    return postprocess


def _ask_for_gradient(module: torch.nn.Module, inputs: Any, output: torch.Tensor) -> torch.Tensor:
    return output.requires_grad_() if torch.is_grad_enabled() and not output.requires_grad else output
