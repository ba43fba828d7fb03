"""Tell whether this machine can do a training: `--help` tells how."""

import sys

import hydra
from omegaconf import DictConfig

from nemo_reasoning.cli import recipe
from nemo_reasoning.config import load_settings
from nemo_reasoning.config.doctor import DoctorSettings, validate
from nemo_reasoning.hardware import register_resolvers

register_resolvers()


@hydra.main(version_base="1.3", config_path="../conf", config_name="doctor")
def main(config: DictConfig) -> None:
    """Examine the machine, print what was found, and leave with 1 if training would fail."""
    with recipe():
        settings = load_settings(config, DoctorSettings)
        validate(settings)
        from nemo_reasoning.doctor.run import examine

        sys.exit(0 if examine(settings) else 1)


if __name__ == "__main__":
    main()
