"""From settings and files to a running engine."""

import gc
from pathlib import Path

import torch

from nemo_reasoning.config.inference import EngineKind, EngineSettings
from nemo_reasoning.inference.checkpoints import ModelFiles
from nemo_reasoning.inference.engine import Engine
from nemo_reasoning.inference.hf.engine import HFEngine
from nemo_reasoning.inference.openai_client import OpenAIEngine, RemoteModel
from nemo_reasoning.inference.vllm.engine import VllmEngine


def release_memory() -> None:
    """Give back what closed engines held, once nothing names them any more."""
    gc.collect()
    torch.cuda.empty_cache()


def load_engine(settings: EngineSettings, files: ModelFiles | RemoteModel) -> Engine:
    """Load a model, or remember where a server has it: the one place where engines are made.

    Args:
        settings: Of conf/engine, validated; a remote model needs none of them.
        files: From `resolve_checkpoint`, or where the server is.

    Raises:
        EngineError: The model cannot be loaded.
    """
    if isinstance(files, RemoteModel):
        return OpenAIEngine(files)
    if settings.kind is EngineKind.hf:
        return HFEngine(
            files.base,
            files.adapter,
            adapters=files.adapters,
            dtype=settings.dtype.value,
            device=settings.device,
            batch_size=settings.batch_size,
            context=settings.context,
            cache_gb=settings.cache_gb,
            chat_template=files.template,
        )
    return VllmEngine(
        files.base,
        files.adapter,
        python=Path(settings.vllm_python or ""),
        adapters=files.adapters,
        dtype=settings.dtype.value,
        batch_size=settings.batch_size,
        context=settings.context,
        cache_gb=settings.cache_gb,
        tensor_parallel_size=settings.tensor_parallel_size,
        args=settings.vllm_args,
        chat_template=files.template,
    )
