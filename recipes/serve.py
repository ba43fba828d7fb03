"""Serve a model to clients of OpenAI's protocol, and a chat page: `--help` tells how."""

import hydra
from omegaconf import DictConfig

from nemo_reasoning.cli import recipe
from nemo_reasoning.config import load_settings
from nemo_reasoning.config.inference import ServeSettings, validate_serve


@hydra.main(version_base="1.3", config_path="../conf", config_name="serve")
def main(config: DictConfig) -> None:
    """Load the model, then serve it until it is told to stop."""
    with recipe():
        settings = load_settings(config, ServeSettings)
        validate_serve(settings)
        from nemo_reasoning.serving.server import serve

        serve(settings)


if __name__ == "__main__":
    main()
