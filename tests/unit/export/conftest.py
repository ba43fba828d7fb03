"""A tiny base model and an adapter for it."""

from pathlib import Path

import pytest
from trained_adapters import make_adapter

from nemo_reasoning.export.weights import Adapter
from nemo_reasoning.models.hub import BaseModel
from nemo_reasoning.models.sizes import architecture_from_hf


@pytest.fixture
def base(tiny_llama: Path) -> BaseModel:
    """Return a random two-layer Llama with grouped queries and untied embeddings."""
    return BaseModel(name=str(tiny_llama), path=tiny_llama, revision="0")


@pytest.fixture
def adapter(base: BaseModel) -> Adapter:
    """Return a random adapter of all four linears."""
    return make_adapter(architecture_from_hf(base.path))
