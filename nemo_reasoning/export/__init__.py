"""Trained adapters in the formats that Hugging Face, vLLM and NIM read, each verified after writing."""
