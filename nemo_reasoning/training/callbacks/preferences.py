"""Direct preference optimization: the adapter against the model without it, on packed pairs of answers."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any, Self

import torch
import torch.nn.functional as F

from nemo_reasoning.training.callbacks.base import Callback, Loop, RunContext, StepRecord
from nemo_reasoning.training.callbacks.losses import gpt_models


def preference_loss(
    policy: torch.Tensor, reference: torch.Tensor, bounds: torch.Tensor, *, beta: float
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the losses of pairs, and their margins; equation 7 of arXiv 2305.18290.

    Args:
        policy: Negative log-likelihood of each position's label, 0 where nothing is supervised, float32 [positions].
        reference: The same of the model that the policy is held at.
        bounds: Of the samples, int [samples + 1]; samples 2 n and 2 n + 1 are a pair, the preferred one first. One
            more sample at the end is padding.
        beta: Strength with which the policy is held.

    Returns:
        -log sigmoid of the margins, and the margins: beta times what the policy has moved towards the preferred
        answer, and away from the other, in nats; float32 [pairs] each.
    """
    gained: torch.Tensor = torch.segment_reduce(reference - policy, "sum", lengths=bounds.diff().long())
    pairs = gained[: len(gained) // 2 * 2].view(-1, 2)
    margins = beta * (pairs[:, 0] - pairs[:, 1])
    return -F.logsigmoid(margins), margins


class PreferenceLoss(Callback):
    """Puts the loss of pairs in place of that of tokens, for the length of a run.

    The reference is the model with its adapters switched off, computed in the same step: no second copy is held.
    Adds `reward_accuracy`, the share of pairs whose margin is above 0, and `reward_margin` in nats, of the pairs that
    this replica trained on in the step.
    """

    position = 11

    def __init__(self, beta: float) -> None:
        """Take the strength with which the policy is held."""
        self._beta = beta
        self._margins: list[torch.Tensor] = []
        self._changed: list[Any] = []

    @classmethod
    def from_run(cls, context: RunContext) -> Self | None:
        """Return it where `loss=dpo`."""
        beta = context.run.settings.loss.beta
        return None if beta is None else cls(beta)

    def on_model(self, loop: Loop) -> None:
        """Change the model, whose adapters may still be missing."""
        for module in gpt_models(loop.model):
            module.forward = self._with_preferences(module, module.forward)
            self._changed.append(module)

    def on_step_end(self, loop: Loop, record: StepRecord) -> None:
        """Record what the step's pairs say."""
        if self._margins:
            margins = torch.cat(self._margins)
            record.metrics["reward_accuracy"] = float((margins > 0).float().mean())
            record.metrics["reward_margin"] = float(margins.mean())
        self._margins = []

    def on_close(self, loop: Loop) -> None:
        """Give the models their own method back."""
        while self._changed:
            vars(self._changed.pop()).pop("forward", None)

    def _with_preferences(self, model: Any, plain: Callable[..., torch.Tensor]) -> Callable[..., torch.Tensor]:
        def forward(*args: Any, labels: torch.Tensor | None = None, **rest: Any) -> torch.Tensor:
            if labels is None:
                return plain(*args, labels=labels, **rest)
            with torch.no_grad(), adapters_off(model):
                reference = plain(*args, labels=labels, **rest)
            policy = plain(*args, labels=labels, **rest)
            bounds = rest["packed_seq_params"].cu_seqlens_q
            losses, margins = preference_loss(policy.flatten(), reference.flatten(), bounds, beta=self._beta)
            if model.training:
                self._margins.append(margins.detach())
            ends = bounds[2 : 2 * len(losses) + 1 : 2].long() - 1
            return torch.zeros_like(policy).index_put((torch.zeros_like(ends), ends), losses)

        return forward


@contextmanager
def adapters_off(model: torch.nn.Module) -> Iterator[None]:
    """Let a model compute without its adapters, for the length of a block."""
    from nemo.lightning.pytorch.callbacks.peft import AdapterWrapper

    adapted: Sequence[Any] = [module for module in model.modules() if isinstance(module, AdapterWrapper)]
    for module in adapted:
        module.forward = partial(_without_adapter, module)
    try:
        yield
    finally:
        for module in adapted:
            del module.forward


def _without_adapter(wrapper: Any, *args: Any, **kwargs: Any) -> tuple[torch.Tensor, torch.Tensor | None]:
    output, bias, _ = wrapper.base_linear_forward(*args, **kwargs)
    return output, bias
