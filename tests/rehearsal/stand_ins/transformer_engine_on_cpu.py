"""Transformer Engine's own Python layer on a CPU, over `transformer_engine_torch.py` in place of its C++ extension.

Its Python sources must be on sys.path, with onnxscript. Triton is replaced while they are imported.
"""

import contextlib
import importlib.metadata
import importlib.util
import os
import sys
import types
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder
from types import ModuleType
from typing import Any

from answering_gpu import PROPERTIES

VERSION = "2.9.0"
_TRITON = ("triton", *(f"triton.{name}" for name in ("language", "language.core", "language.standard", "runtime")))


class _Decorators(ModuleType):
    """A module in which every name is a decorator that changes nothing."""

    __version__ = "3.4.0"
    __path__: list[str] = []

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)

        def decorator(*args: Any, **kwargs: Any) -> Any:
            return args[0] if len(args) == 1 and callable(args[0]) and not kwargs else decorator

        return decorator


class _WithoutLibrary(Loader):
    """Loads transformer_engine.common, and leaves it nothing of the shared object to load."""

    def __init__(self, loader: Any) -> None:
        self.loader = loader

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        return self.loader.create_module(spec)  # type: ignore[no-any-return]

    def exec_module(self, module: ModuleType) -> None:
        self.loader.exec_module(module)
        module.load_framework_extension = lambda framework: None  # type: ignore[attr-defined]


class _Finder(MetaPathFinder):
    def find_spec(self, name: str, path: Any = None, target: Any = None) -> ModuleSpec | None:
        if name != "transformer_engine.common":
            return None
        spec = PathFinder.find_spec(name, path, target)
        assert spec is not None
        spec.loader = _WithoutLibrary(spec.loader)
        return spec


def install() -> None:
    """Make `import transformer_engine` work, and import it."""
    os.environ.setdefault("NVTE_PROJECT_BUILDING", "1")  # transformer_engine.common loads no library then
    os.environ.setdefault("NVTE_TORCH_COMPILE", "0")
    _tell_version()
    sys.meta_path.insert(0, _Finder())
    _answer_transformer_engine()
    import torch._dynamo  # noqa: F401  # examines triton, so before its replacement
    import transformer_engine_torch

    spec = importlib.util.find_spec("transformer_engine")
    assert spec is not None
    assert spec.submodule_search_locations is not None
    transformer_engine_torch.add_names(spec.submodule_search_locations[0])
    with _triton_replaced():
        import transformer_engine.pytorch  # noqa: F401


def _tell_version() -> None:
    version = importlib.metadata.version

    def with_transformer_engine(name: str) -> str:
        mentioned = name.replace("_", "-").lower() in ("transformer-engine", "transformer-engine-torch")
        return VERSION if mentioned else version(name)

    importlib.metadata.version = with_transformer_engine


@contextlib.contextmanager
def _triton_replaced() -> Any:
    modules = {name: _Decorators(name) for name in _TRITON if name not in sys.modules}
    for name, module in modules.items():
        parent, _, child = name.rpartition(".")
        if parent in modules:
            setattr(modules[parent], child, module)
    sys.modules.update(modules)
    try:
        yield
    finally:
        for name in modules:
            del sys.modules[name]


def _answer_transformer_engine() -> None:
    """Let Transformer Engine, and nobody else, believe that there is a GPU and that tensors lie on it."""
    import torch

    available, is_cuda = torch.cuda.is_available, torch._C.TensorBase.is_cuda
    cuda: Any = torch.cuda
    cuda.is_available = lambda: _asked_by_transformer_engine() or available()
    torch.Tensor.is_cuda = property(  # type: ignore[misc]
        lambda self: _asked_by_transformer_engine() or is_cuda.__get__(self)
    )
    cuda.get_device_properties = lambda *_: PROPERTIES
    cuda.get_device_capability = lambda *_: (9, 0)
    cuda.is_current_stream_capturing = lambda: False
    cuda.device = lambda *_: contextlib.nullcontext()
    cuda.nvtx = types.SimpleNamespace(
        range=lambda *_, **__: contextlib.nullcontext(), range_push=lambda *_: None, range_pop=lambda: None
    )


def _asked_by_transformer_engine() -> bool:
    return str(sys._getframe(2).f_globals.get("__name__", "")).startswith("transformer_engine")
