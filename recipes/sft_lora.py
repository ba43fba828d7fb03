"""Fine-tune a chat model into a reasoning model with a thinking switch: `--help` tells how."""

import hydra
from omegaconf import DictConfig

from nemo_reasoning.cli import recipe
from nemo_reasoning.config import load_settings
from nemo_reasoning.config.train import SftSettings
from nemo_reasoning.hardware import register_resolvers
from nemo_reasoning.training.memory.planner import fit_to_memory

register_resolvers()


@hydra.main(version_base="1.3", config_path="../conf", config_name="sft_lora")
def main(config: DictConfig) -> None:
    """Settle what is open, validate, then print the plan or run it."""
    with recipe():
        asked = load_settings(config, SftSettings)
        settings = fit_to_memory(asked)
        if settings.dry_run:
            from nemo_reasoning.training.dry_run import print_plan

            print_plan(settings, asked=asked)
        else:
            from nemo_reasoning.pipeline import fine_tune

            fine_tune(settings)


if __name__ == "__main__":
    main()
