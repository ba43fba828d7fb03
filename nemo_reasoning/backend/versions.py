"""Refuse a NeMo or Megatron-Core that lacks what this package and NeMo itself call.

Support is decided by what the installed sources hold, not by a version: the Megatron-Core of NVIDIA's 25.11 image
reports 0.16.0rc0 and behaves like 0.15. Sources are read, not imported, so the answer takes milliseconds and comes
before torch is loaded.
"""

import ast
import importlib
import sys
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from importlib.machinery import ModuleSpec
from pathlib import Path

from nemo_reasoning.artifacts import installed_version
from nemo_reasoning.errors import VersionError

DISTRIBUTIONS = {"nemo_toolkit": "nemo", "megatron-core": "megatron.core"}
SUPPORTED = {"nemo_toolkit": "2.6 or 2.7", "megatron-core": "0.15 or 0.16"}
REMEDY = (
    "Use an nvcr.io/nvidia/nemo container that docs/version-matrix.md lists, "
    "or `make setup` for the pinned CPU environment."
)


@dataclass(frozen=True)
class Requirement:
    """Something that must be there.

    Attributes:
        module: The module.
        name: A function or class of the module; None for the module alone.
        parameters: What the function must accept.
        reason: What does not work without it.
    """

    module: str
    name: str | None = None
    parameters: tuple[str, ...] = ()
    reason: str = ""

    def __str__(self) -> str:
        """Return the name as Python writes it."""
        text = self.module if self.name is None else f"{self.module}.{self.name}"
        return f"{text}({', '.join(self.parameters)})" if self.parameters else text


_NEEDS = {
    "nemo_toolkit": (
        Requirement("nemo.collections.llm.api", "finetune", reason="nothing trains"),
        Requirement("nemo.collections.llm.peft.dora", "DoRA", reason="peft=dora has no adapter"),
    ),
    "megatron-core": (
        Requirement(
            "megatron.core.optimizer",
            "get_megatron_optimizer",
            ("config", "model_chunks", "use_gloo_process_groups"),
            reason="NeMo cannot make an optimizer",
        ),
        Requirement(
            "megatron.core.process_groups_config",
            "ProcessGroupCollection",
            reason="layers do not learn their process groups",
        ),
        Requirement(
            "megatron.core.inference.model_inference_wrappers.inference_wrapper_config",
            "InferenceWrapperConfig",
            reason="nemo.collections.llm cannot be imported",
        ),
        Requirement(
            "megatron.core.parallel_state",
            "get_data_modulo_expert_parallel_group",
            reason="nemo.lightning cannot be imported",
        ),
        Requirement(
            "megatron.core.dist_checkpointing.serialization",
            "get_default_save_sharded_strategy",
            ("backend", "version"),
            reason="NeMo cannot save a checkpoint",
        ),
    ),
}


def require_supported_versions() -> None:
    """Refuse what `find_problems` finds.

    Raises:
        VersionError: NeMo or Megatron-Core is absent or lacks something; the message names all of it.
    """
    problems = find_problems()
    if problems:
        raise VersionError("\n".join([*problems.values(), REMEDY]))


def find_problems() -> dict[str, str]:
    """Return what is wrong with NeMo and with Megatron-Core, by distribution; nothing where both will do."""
    problems = {}
    for name, module in DISTRIBUTIONS.items():
        if find_module(module) is None:
            problems[name] = f"{name} is not installed; version {SUPPORTED[name]} is supported."
        elif missing := [f"{need}, without which {need.reason}" for need in _NEEDS[name] if not is_met(need)]:
            version = found_version(name) or "of unknown version"
            problems[name] = f"{name} {version} lacks {'; '.join(missing)}. Version {SUPPORTED[name]} is supported."
    return problems


def found_version(distribution: str) -> str | None:
    """Return the version that the metadata states, or where there is none the package itself."""
    version = installed_version(distribution)
    if version is None and find_module(DISTRIBUTIONS[distribution]) is not None:
        with suppress(ImportError, OSError):  # then its version stays unknown
            importlib.import_module(DISTRIBUTIONS[distribution])
        version = installed_version(distribution)
    return version


def find_module(name: str) -> ModuleSpec | None:
    """Return where a module is, without importing its parents as `importlib.util.find_spec` would."""
    path, found = None, None
    for depth in range(name.count(".") + 1):
        parent = ".".join(name.split(".")[: depth + 1])
        found = next((spec for finder in sys.meta_path if (spec := finder.find_spec(parent, path))), None)
        if found is None:
            return None
        path = found.submodule_search_locations
    return found


def is_met(need: Requirement) -> bool:
    """Whether the installed sources hold what is required."""
    if need.name is None:
        return find_module(need.module) is not None
    found = _definition(need.module, need.name)
    if isinstance(found, ast.FunctionDef) and need.parameters:
        arguments = found.args
        names = {one.arg for one in [*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs]}
        return arguments.kwarg is not None or names.issuperset(need.parameters)
    return found is not None


def _definition(module: str, name: str) -> ast.AST | None:
    """Return where a module defines a name, following one that it imports from elsewhere."""
    spec = find_module(module)
    if spec is None or spec.origin is None:
        return None
    for node in ast.walk(ast.parse(Path(spec.origin).read_text(encoding="utf-8"))):
        if name in _bound(node):
            if isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
                return _definition(node.module, name)
            return node
    return None


def _bound(node: ast.AST) -> Iterator[str]:
    """Yield the names that a statement binds."""
    if isinstance(node, ast.FunctionDef | ast.ClassDef):
        yield node.name
    elif isinstance(node, ast.ImportFrom):
        yield from (alias.name for alias in node.names if alias.asname in (None, alias.name))
    elif isinstance(node, ast.Assign):
        yield from (target.id for target in node.targets if isinstance(target, ast.Name))
