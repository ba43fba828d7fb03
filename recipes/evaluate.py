"""Measure a model on benchmarks, with thinking on and off: `--help` tells how."""

from pathlib import Path

import hydra
from omegaconf import DictConfig
from rich.console import Console

from nemo_reasoning.cli import recipe
from nemo_reasoning.config import load_settings
from nemo_reasoning.config.evaluate import EvaluateSettings


@hydra.main(version_base="1.3", config_path="../conf", config_name="evaluate")
def main(config: DictConfig) -> None:
    """Measure and report, or compare two reports."""
    with recipe():
        settings = load_settings(config, EvaluateSettings)
        console = Console(highlight=False, soft_wrap=True)
        if settings.compare:
            from nemo_reasoning.evaluation.compare import compare

            compare([Path(folder) for folder in settings.compare], seed=settings.seed, console=console)
        else:
            from nemo_reasoning.evaluation.evaluate import evaluate_models

            evaluate_models(settings, console)


if __name__ == "__main__":
    main()
