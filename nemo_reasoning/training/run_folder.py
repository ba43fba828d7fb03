"""A run's folder: its resolved settings, and whether a command continues it or is another run."""

from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from nemo_reasoning.artifacts import write_text
from nemo_reasoning.config import load_settings, settings_to_dict
from nemo_reasoning.config.model import PeftScheme
from nemo_reasoning.config.train import SftSettings
from nemo_reasoning.errors import CheckpointError
from nemo_reasoning.training.checkpoints import list_checkpoints

CONFIG_FILE = "config.yaml"
# What a checkpoint depends on. Everything else may change between the starts of a run.
_FIXED = (
    *("model.source", "model.revision", "model.init", "model.dtype", "model.template"),
    *("data", "peft", "optim"),
    *("trainer.seq_length", "trainer.global_batch_size", "trainer.precision", "trainer.seed"),
)


def open_run(settings: SftSettings) -> Path:
    """Return the run's folder with config.yaml in it.

    Raises:
        CheckpointError: The folder holds checkpoints of a run with other settings.
    """
    folder = Path(settings.output_dir)
    plain, path = settings_to_dict(settings), folder / CONFIG_FILE
    if path.is_file() and list_checkpoints(folder):
        before = settings_to_dict(read_settings(folder))
        # each tensor-parallel rank quantises its own shard of the base
        quantised = ["trainer.tensor_model_parallel_size"] if settings.peft.scheme is PeftScheme.qlora else []
        changed = [key for key in (*_FIXED, *quantised) if _value(before, key) != _value(plain, key)]
        if changed:
            listed = "; ".join(f"{key} was {_value(before, key)}, is {_value(plain, key)}" for key in changed)
            raise CheckpointError(
                f"{folder} holds the checkpoints of another run: {listed}. "
                "Choose another name=, or delete the folder to start anew"
            )
    write_text(path, OmegaConf.to_yaml(OmegaConf.create(plain)))
    return folder


def read_settings(folder: Path) -> SftSettings:
    """Return the settings of a run.

    Raises:
        CheckpointError: The folder is not one of a run.
    """
    path = folder / CONFIG_FILE
    if not path.is_file():
        raise CheckpointError(f"{folder} has no {CONFIG_FILE}: point at the folder that recipes/sft_lora.py wrote")
    return load_settings(OmegaConf.load(path), SftSettings)  # type: ignore[arg-type]  # a mapping, as written


def _value(settings: dict[str, Any], key: str) -> Any:
    value: Any = settings
    for part in key.split("."):
        value = value[part]
    return value
