"""Write a trained adapter for transformers, vLLM, NIM and llama.cpp: `--help` tells how."""

from nemo_reasoning.cli import run

if __name__ == "__main__":
    run("export")
