"""Serve a model to clients of OpenAI's protocol, and a chat page: `--help` tells how."""

from nemo_reasoning.cli import run

if __name__ == "__main__":
    run("serve")
