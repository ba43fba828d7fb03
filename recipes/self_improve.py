"""Let a trained model learn from its own right answers: `--help` tells how."""

from nemo_reasoning.cli import run

if __name__ == "__main__":
    run("self_improve")
