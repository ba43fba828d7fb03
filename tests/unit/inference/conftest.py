"""Models for the engines."""

from pathlib import Path
from typing import Any

import pytest
from taught import random_model, taught_llama
from transformers import AutoModelForCausalLM

from nemo_reasoning.inference.hf import attention

__all__ = ["random_model", "taught_llama"]


@pytest.fixture(scope="session")
def model(random_model: Path) -> Any:
    """Return a random model for a running batch."""
    return AutoModelForCausalLM.from_pretrained(random_model, attn_implementation=attention.register()).eval()
