"""What NeMo leaves behind in a process that trains or loads a model, removed, so that the next run starts afresh."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from nemo_reasoning.backend.patching import Patch, applied


def _lightning_loops() -> list[tuple[Any, str, Any]]:
    from lightning.pytorch.loops import evaluation_loop, fit_loop, prediction_loop

    loops = (fit_loop, evaluation_loop, prediction_loop)
    return [(loop, "_select_data_fetcher", loop._select_data_fetcher) for loop in loops]


# Each attribute is set to what it is, to be put back afterwards.
_LOOPS = Patch(
    "lightning-loops", "nemo's MegatronStrategy.setup leaves them unfit for other strategies", _lightning_loops
)


@contextmanager
def without_leftovers() -> Iterator[None]:
    """Undo at the end of the block what a run of NeMo does to the process.

    Lightning's loops work with other strategies again, and the next run may have other batch sizes.
    """
    from megatron.core.num_microbatches_calculator import destroy_num_microbatches_calculator

    with applied(_LOOPS):
        try:
            yield
        finally:
            destroy_num_microbatches_calculator()
