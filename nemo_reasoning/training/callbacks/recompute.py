"""Full activation recompute over a frozen base."""

from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer


class RecomputedInputs(Callback):
    """Lets gradients reach adapters inside recomputed layers.

    Megatron recomputes a layer in an autograd function whose output has a gradient only if an input
    has one. The embedding is frozen, so without this every adapter would get none, in silence.
    """

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Make what the embedding returns require a gradient."""
        from megatron.core.models.common.embeddings.language_model_embedding import LanguageModelEmbedding

        for module in pl_module.modules():
            if isinstance(module, LanguageModelEmbedding):
                module.register_forward_hook(_require_gradient)


def _require_gradient(module: torch.nn.Module, inputs: Any, output: torch.Tensor) -> None:
    if torch.is_grad_enabled():
        output.requires_grad_()
