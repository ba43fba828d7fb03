"""Decide what the machine lacks, and hold the matching patches."""

import gc
import importlib.util
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from typing import Any

from nemo_reasoning.backend.patching import Patch, applied
from nemo_reasoning.backend.versions import require_supported_versions
from nemo_reasoning.errors import BackendError


@dataclass(frozen=True)
class Backend:
    """The two switches and what they stand for.

    Attributes:
        cuda: Tensors live on CUDA devices and processes talk NCCL; otherwise CPU and gloo.
        transformer_engine: Layers are Transformer Engine's; otherwise torch's.
        patches: Names of the patches held.
    """

    cuda: bool
    transformer_engine: bool
    patches: tuple[str, ...] = ()


_held: list[Backend] = []


def active() -> Backend:
    """Return what the innermost `backend` block holds.

    Raises:
        BackendError: There is no such block.
    """
    if not _held:
        raise BackendError("NeMo is used outside of `with backend(...)`")
    return _held[-1]


def detect() -> Backend:
    """Return what this machine has."""
    import torch

    has_te = importlib.util.find_spec("transformer_engine") is not None
    return Backend(cuda=torch.cuda.is_available(), transformer_engine=has_te)


def resolve(*, cuda: bool | None = None, transformer_engine: bool | None = None) -> Backend:
    """Return what this machine has, with None meaning "as found" and False meaning "do without".

    Raises:
        BackendError: Something the machine lacks was demanded.
    """
    found = detect()
    if cuda and not found.cuda:
        raise BackendError("backend.cuda=true, but torch finds no CUDA device; set backend.cuda=null")
    if transformer_engine and not found.transformer_engine:
        raise BackendError(
            "backend.transformer_engine=true, but transformer_engine is not installed; "
            "use the NeMo container or set backend.transformer_engine=null"
        )
    wanted = replace(
        found,
        cuda=found.cuda if cuda is None else cuda,
        transformer_engine=found.transformer_engine if transformer_engine is None else transformer_engine,
    )
    if wanted.transformer_engine and not wanted.cuda:
        return replace(wanted, transformer_engine=False)  # TE's layers need CUDA
    return wanted


@contextmanager
def backend(*, cuda: bool | None = None, transformer_engine: bool | None = None) -> Iterator[Backend]:
    """Make NeMo run on this machine for the length of the block.

    On a machine with CUDA, Transformer Engine and Megatron-Core 0.15 nothing is patched but the reading of checkpoints,
    which takes what NeMo writes and nothing else. A nested call with the same switches changes nothing; everything is
    undone at the end of the outermost block.

    Args:
        cuda: None to use CUDA if it is there, False to do without.
        transformer_engine: None to use Transformer Engine if it is there, False to do without.

    Raises:
        BackendError: A nested call asks for other switches.
        VersionError: NeMo or Megatron-Core is of another release series.
    """
    wanted = resolve(cuda=cuda, transformer_engine=transformer_engine)
    if _held:
        if replace(_held[-1], patches=()) != wanted:
            raise BackendError(f"{_held[-1]} is active; leave its block before asking for {wanted}")
        yield _held[-1]
        return
    require_supported_versions()
    with ExitStack() as stack:
        with _importing():
            active = replace(wanted, patches=tuple(_hold(wanted, stack)))
        _held.append(active)
        stack.callback(_held.pop)
        yield active


@contextmanager
def _importing() -> Iterator[None]:
    """Look for no garbage while NeMo is imported, which takes a sixth of the time, nor later in what that leaves."""
    collecting, known = gc.isenabled(), "nemo.collections.llm" in sys.modules
    gc.disable()
    try:
        yield
    finally:
        if not known:
            gc.freeze()
        if collecting:
            gc.enable()


def _hold(wanted: Backend, stack: ExitStack) -> Iterator[str]:
    """Enter the patches that Megatron-Core, NeMo and `wanted` call for, yielding their names."""
    from nemo_reasoning.backend import megatron_016
    from nemo_reasoning.backend.trust import TRUST

    for patch in megatron_016.needed():  # first: what is imported next needs them
        stack.enter_context(applied(patch))
        yield patch.name
    # Before CUDA is hidden: what asks for a GPU while it is imported keeps the answer for the whole process.
    import nemo.collections.llm  # noqa: F401

    if not wanted.cuda:
        from nemo_reasoning.backend.no_cuda import NO_CUDA, TORCH_OPTIMIZER, CudaOnCpu

        for patch in NO_CUDA if wanted.transformer_engine else (*NO_CUDA, TORCH_OPTIMIZER):
            stack.enter_context(applied(patch))
            yield patch.name
        stack.enter_context(CudaOnCpu())
        yield "cuda-on-cpu"
    if not wanted.transformer_engine:
        from nemo_reasoning.backend.no_te import NO_TE

        for patch in NO_TE:
            stack.enter_context(applied(patch))
            yield patch.name
    for patch in TRUST:  # last: they check before anything else reads
        stack.enter_context(applied(patch))
        yield patch.name


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
