"""Inference with Hugging Face transformers: a running batch, its key-value cache and its sampling."""
