"""Named, documented, reversible replacements of attributes in other packages."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Patch:
    """One reversible change.

    Attributes:
        name: Short identifier, shown to the user.
        answers: The NeMo, Megatron or torch place that makes the change necessary.
        replacements: Returns (owner, attribute, value) triples; a function, so that the owners are
            imported only when the patch is applied.
    """

    name: str
    answers: str
    replacements: Callable[[], Sequence[tuple[Any, str, Any]]]


_MISSING = object()


def _restore(owner: Any, attribute: str, original: Any) -> None:
    if original is _MISSING:
        delattr(owner, attribute)
    else:
        setattr(owner, attribute, original)


@contextmanager
def applied(patch: Patch) -> Iterator[None]:
    """Hold a patch for the length of the block; afterwards every attribute has its former value."""
    with ExitStack() as undo:
        for owner, attribute, value in patch.replacements():
            undo.callback(_restore, owner, attribute, vars(owner).get(attribute, _MISSING))
            setattr(owner, attribute, value)
        yield
