"""Turn rows of chats into tokenised splits: `--help` tells how."""

from nemo_reasoning.cli import run

if __name__ == "__main__":
    run("prepare")
