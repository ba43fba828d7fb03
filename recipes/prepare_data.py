"""Turn rows of chats into tokenised splits: `--help` tells how."""

import sys

import hydra
from omegaconf import DictConfig
from rich.console import Console

from nemo_reasoning.config import load_settings
from nemo_reasoning.config.data import PrepareSettings, validate
from nemo_reasoning.errors import NemoReasoningError


@hydra.main(version_base="1.3", config_path="../conf", config_name="prepare_data")
def main(config: DictConfig) -> None:
    """Validate, then show some rows or prepare all."""
    try:
        settings = load_settings(config, PrepareSettings)
        validate(settings)
        from nemo_reasoning.preparation import run_command

        run_command(settings, Console(highlight=False))
    except NemoReasoningError as error:
        sys.exit(f"{type(error).__name__}: {error}")


if __name__ == "__main__":
    main()
