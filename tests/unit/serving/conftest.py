"""A running service with a tiny model that learnt the thinking switch by heart."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path

import openai
import pytest
from live import Live, serving
from taught import random_model, taught_llama

__all__ = ["random_model", "taught_llama"]


@pytest.fixture(scope="package")
def live(taught_llama: Path) -> Iterator[Live]:
    """Return a service that all tests share."""
    with serving(taught_llama) as service:
        yield service


@pytest.fixture
def client(live: Live) -> Iterator[openai.OpenAI]:
    """Return the official client, which tries once."""
    with openai.OpenAI(base_url=f"{live.url}/v1", api_key="any", max_retries=0) as client:
        yield client


@pytest.fixture
def serve(taught_llama: Path) -> Callable[..., AbstractContextManager[Live]]:
    """Return what starts a service of one's own with other settings."""
    return lambda **options: serving(taught_llama, **options)
