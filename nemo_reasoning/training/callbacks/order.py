"""Where callbacks go among the trainer's own."""

from collections.abc import Sequence

from lightning.pytorch import Callback, Trainer

from nemo_reasoning.training.callbacks.checkpointing import SigtermSave
from nemo_reasoning.training.callbacks.evaluation import Quiz
from nemo_reasoning.training.callbacks.generation import GenerationSamples

_AFTER_CHECKPOINT = (SigtermSave, GenerationSamples, Quiz)


def attach(trainer: Trainer, callbacks: Sequence[Callback]) -> None:
    """Put `callbacks` before the trainer's own, in their order; SigtermSave, samples and quiz go last.

    A step must be in metrics.jsonl before its checkpoint is saved, or a kill between the two would
    lose the record. NeMo puts its ModelCheckpoint where Lightning's default one stood, ahead of
    whatever was appended. A checkpoint that is due is saved before SigtermSave leaves, and nothing
    waits for what the model writes, which takes long and can be missed.
    """
    late = [callback for kind in _AFTER_CHECKPOINT for callback in callbacks if isinstance(callback, kind)]
    early = [callback for callback in callbacks if callback not in late]
    trainer.callbacks[:] = [*early, *trainer.callbacks, *late]  # type: ignore[attr-defined]
