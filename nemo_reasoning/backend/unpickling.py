"""Limits on what the context of a checkpoint may unpickle, for releases of NeMo that have none: 2.6 and 2.7.0.

A context holds some of its values as pickles, which can name any function of any module. NeMo 2.7.3 accepts those of
the modules below alone; with this patch so do the earlier releases. Other parts of a checkpoint, Megatron-Core's
`common.pt` and torch's `.metadata`, are pickles that every release reads as they are.
"""

import pickle
from collections.abc import Sequence
from typing import IO, Any

from nemo_reasoning.backend.patching import Patch
from nemo_reasoning.backend.versions import Requirement, is_met
from nemo_reasoning.errors import CheckpointError

_READER = "nemo.lightning.io.mixin"
_ALLOWED = frozenset(
    (
        *("cloudpickle", "collections", "copy", "dataclasses", "enum", "fiddle", "fsspec", "functools", "lightning"),
        *("megatron", "nemo", "numpy", "pathlib", "signal", "torch", "transformers", "typing", "typing_extensions"),
    )
)


class _Limited(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if module.partition(".")[0] not in _ALLOWED:
            raise CheckpointError(
                f"the checkpoint's context names {module}.{name}, which no checkpoint of NeMo needs; do not use it "
                "unless you know who wrote it"
            )
        return super().find_class(module, name)


def limited_load(file: IO[bytes]) -> Any:
    """Unpickle what names nothing outside of NeMo and what it builds on.

    Raises:
        CheckpointError: Something else is named; nothing of it has run.
    """
    return _Limited(file).load()


def needed() -> tuple[Patch, ...]:
    """Return the patch where the installed NeMo sets no limits of its own."""
    return () if is_met(Requirement(_READER, "RestrictedUnpickler")) else (UNPICKLING,)


def _unpickling() -> Sequence[tuple[Any, str, Any]]:
    from nemo.lightning.io import mixin

    return [(mixin, "pickle_load", limited_load)]


UNPICKLING = Patch(
    "unpickling", "nemo.lightning.io.mixin of NeMo 2.6 and 2.7.0 unpickles a context without limits", _unpickling
)
