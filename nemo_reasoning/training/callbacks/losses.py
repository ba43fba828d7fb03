"""Makes NeMo's model compute logits and loss at supervised positions only."""

from collections.abc import Callable
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from megatron.core.models.gpt import GPTModel

from nemo_reasoning.training.loss import supervised_loss


class SupervisedLoss(Callback):
    """Puts `supervised_loss` in the place of output layer and loss, for the length of a run.

    Labels must be `IGNORED_LABEL` where nothing is supervised. Without labels the model still gives logits.
    """

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Change the model, which is built by now."""
        install(pl_module)

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Give the models their own method back."""
        for module in pl_module.modules():
            if isinstance(module, GPTModel):
                vars(module).pop("_postprocess", None)


def install(wrapped: torch.nn.Module) -> None:
    """Change Megatron's models, one a pipeline stage, under NeMo's wrappers."""
    for module in wrapped.modules():
        if isinstance(module, GPTModel) and module.post_process:
            module._postprocess = _with_supervised_loss(module, module._postprocess)


def _with_supervised_loss(model: GPTModel, plain: Callable[..., torch.Tensor]) -> Callable[..., torch.Tensor]:
    def postprocess(*, hidden_states: torch.Tensor, labels: torch.Tensor | None, **rest: Any) -> torch.Tensor:
        if labels is None:
            return plain(hidden_states=hidden_states, labels=labels, **rest)
        tied = model.share_embeddings_and_output_weights
        weight = model.shared_embedding_or_output_weight() if tied else model.output_layer.weight
        return supervised_loss(hidden_states, weight, labels, group=model.pg_collection.tp)

    return postprocess
