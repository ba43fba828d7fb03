"""A bound on the GPU memory of a run."""

import torch
from lightning.pytorch import Callback, LightningModule, Trainer


class MemoryFraction(Callback):
    """Bounds what this process may take of its GPU; beyond it torch raises OutOfMemoryError."""

    def __init__(self, fraction: float) -> None:
        """Take the share of the GPU's memory, above 0 and at most 1."""
        self.fraction = fraction

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Set the bound once the process knows its device."""
        torch.cuda.set_per_process_memory_fraction(self.fraction, trainer.strategy.root_device)
