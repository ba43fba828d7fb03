"""Measure a model on benchmarks, with thinking on and off: `--help` tells how."""

from nemo_reasoning.cli import run

if __name__ == "__main__":
    run("evaluate")
