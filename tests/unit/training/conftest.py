"""What short runs of the training recipe start from."""

from collections.abc import Iterator

import pytest
from short_runs import importing_here, prepare_inputs

from nemo_reasoning.backend.runtime import backend
from nemo_reasoning.training.train import TrainingInputs


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> TrainingInputs:
    """Return a tiny model, imported, and rows."""
    with backend(cuda=False, transformer_engine=False):
        return prepare_inputs(tmp_path_factory.mktemp("inputs"))


@pytest.fixture(scope="module")
def importing() -> Iterator[None]:
    """Have NeMo on the CPU, and import in this process."""
    with importing_here():
        yield
