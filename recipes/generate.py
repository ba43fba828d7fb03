"""Ask a model: one prompt, a file of them, or a chat in the terminal: `--help` tells how."""

import hydra
from omegaconf import DictConfig

from nemo_reasoning.cli import recipe
from nemo_reasoning.config import load_settings
from nemo_reasoning.config.inference import GenerateSettings, validate_generate


@hydra.main(version_base="1.3", config_path="../conf", config_name="generate")
def main(config: DictConfig) -> None:
    """Load the model, then ask it what the settings say."""
    with recipe():
        settings = load_settings(config, GenerateSettings)
        validate_generate(settings)
        from nemo_reasoning.inference.generate import generate

        generate(settings)


if __name__ == "__main__":
    main()
