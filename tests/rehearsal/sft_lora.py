"""Run recipes/sft_lora.py with Transformer Engine's Python layer on a CPU, and count what its extension was asked for.

    REHEARSE_TE=1 PYTHONPATH=tests/rehearsal/stand_ins:TE:REPOSITORY python tests/rehearsal/sft_lora.py OVERRIDES

NeMo, Megatron-Core and Transformer Engine are the real ones; only `resolve` and `detect` are told that Transformer
Engine needs no CUDA, and with REHEARSE_DECLINED=1 not even that. With hardware=gpu_24gb QLoRA takes its attention. The
counts go to standard error, behind "CALLS".
"""

import json
import os
import runpy
import sys
from pathlib import Path

import transformer_engine_torch

from nemo_reasoning.backend import runtime


def with_transformer_engine(*, cuda: bool | None = None, transformer_engine: bool | None = None) -> runtime.Backend:
    """Stand in for `resolve`: no CUDA, but Transformer Engine, where a run on a CPU would decline it, and QLoRA not."""
    return runtime.Backend(cuda=False, transformer_engine=cuda is False or transformer_engine is not False)


if not os.environ.get("REHEARSE_DECLINED"):
    runtime.resolve = with_transformer_engine
    runtime.detect = lambda: runtime.Backend(cuda=True, transformer_engine=True)
try:
    runpy.run_path(str(Path(__file__).parents[2] / "recipes" / "sft_lora.py"), run_name="__main__")
finally:
    print("CALLS", json.dumps(transformer_engine_torch.CALLS), file=sys.__stderr__)
