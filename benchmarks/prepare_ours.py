"""Prepare a corpus as recipes/prepare_data.py does: `prepare_ours.py CORPUS OUT WORKERS`."""

import sys

from hydra import compose, initialize_config_dir
from rich.console import Console

from nemo_reasoning.config import CONF_DIR, load_settings
from nemo_reasoning.config.data import PrepareSettings
from nemo_reasoning.preparation import run_command

SEQ_LENGTH = 8192


def main() -> None:
    """Prepare."""
    corpus, out, workers = sys.argv[1:]
    overrides = ["data=jsonl", f"data.paths=[{corpus}]", f"data.workers={workers}", f"output_dir={out}"]
    with initialize_config_dir(str(CONF_DIR), version_base="1.3"):
        config = compose("prepare_data", overrides=[*overrides, f"seq_length={SEQ_LENGTH}"])
    run_command(load_settings(config, PrepareSettings), Console(file=sys.stderr))


if __name__ == "__main__":
    main()
