"""Upload an export or prepared data to a hub: `--help` tells how."""

from nemo_reasoning.cli import run

if __name__ == "__main__":
    run("push")
