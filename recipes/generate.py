"""Ask a model: one prompt, a file of them, or a chat in the terminal: `--help` tells how."""

from nemo_reasoning.cli import run

if __name__ == "__main__":
    run("generate")
