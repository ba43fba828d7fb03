"""Lets frozen models recompute their layers without losing the adapters' gradients."""

from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from megatron.core.models.gpt import GPTModel
from torch.utils.hooks import RemovableHandle


class InputGradients(Callback):
    """Asks for gradients of the first layer's input where layers are recomputed, for the length of a run.

    Megatron recomputes a layer in a reentrant checkpoint, whose output has a gradient only if its input has
    one. Behind a frozen embedding no layer would have any: the adapters would stay what they are, in silence.
    """

    def __init__(self) -> None:
        """Change nothing until training starts."""
        self._hooks: list[RemovableHandle] = []

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Watch the embedding of every model that recomputes whole layers."""
        for module in pl_module.modules():
            if isinstance(module, GPTModel) and module.pre_process and module.config.recompute_granularity == "full":
                self._hooks.append(module.embedding.register_forward_hook(_ask_for_gradient))

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Watch no longer."""
        while self._hooks:
            self._hooks.pop().remove()


def _ask_for_gradient(module: torch.nn.Module, inputs: Any, output: torch.Tensor) -> torch.Tensor:
    return output.requires_grad_() if torch.is_grad_enabled() and not output.requires_grad else output
