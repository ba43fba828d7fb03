"""Write a trained adapter for transformers, vLLM and NIM: `--help` tells how."""

from pathlib import Path

import hydra
from omegaconf import DictConfig

from nemo_reasoning.cli import recipe
from nemo_reasoning.config import load_settings
from nemo_reasoning.config.export import ExportSettings, validate


@hydra.main(version_base="1.3", config_path="../conf", config_name="export")
def main(config: DictConfig) -> None:
    """Export, then print what was checked and how to serve it."""
    with recipe():
        settings = load_settings(config, ExportSettings)
        validate(settings)
        from nemo_reasoning.export.from_run import export_and_show
        from nemo_reasoning.training.run_dir import Run

        export_and_show(
            Run.open(Path(settings.checkpoint)),
            formats=settings.formats,
            out=Path(settings.output_dir) if settings.output_dir else None,
            dtype=settings.dtype,
            merge_onto=settings.merge_onto,
            verified=settings.verify,
            tokenizer_python=Path(settings.tokenizer_python) if settings.tokenizer_python else None,
        )


if __name__ == "__main__":
    main()
