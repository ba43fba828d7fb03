"""Fine-tune a chat model into a reasoning model with a thinking switch: `--help` tells how."""

from nemo_reasoning.cli import run

if __name__ == "__main__":
    run("sft")
