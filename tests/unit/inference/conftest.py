"""Models for the engines."""

from taught import random_model, taught_llama

__all__ = ["random_model", "taught_llama"]
