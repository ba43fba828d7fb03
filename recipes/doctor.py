"""Tell whether this machine can do a training: `--help` tells how."""

from nemo_reasoning.cli import run

if __name__ == "__main__":
    run("doctor")
