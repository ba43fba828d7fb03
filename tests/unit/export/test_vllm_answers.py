"""What is exported of every family answers in vLLM as in the engine here, thinking and not.

vLLM is in an environment of its own: `.venv-vllm`, or that of $NEMO_REASONING_VLLM_PYTHON; see docs/serving.md.
"""

import os
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from tiny import FAMILIES, save_tiny
from trained_adapters import make_adapter, run

from nemo_reasoning.data.chat import load_template
from nemo_reasoning.inference.engine import Engine
from nemo_reasoning.inference.hf.engine import HFEngine
from nemo_reasoning.inference.request import GenerationRequest
from nemo_reasoning.inference.vllm.engine import VllmEngine
from nemo_reasoning.models.hub import BaseModel
from nemo_reasoning.models.sizes import architecture_from_hf
from nemo_reasoning.reasoning.messages import Message, Mode

PYTHON = Path(os.environ.get("NEMO_REASONING_VLLM_PYTHON", Path(__file__).parents[3] / ".venv-vllm/bin/python"))
QUESTIONS = ("What is 6 * 7?", "Name three colors.", "Say hello.")
MODES: tuple[Mode, Mode] = ("on", "off")


def answers(engine: Engine) -> list[str]:
    """Ask with the adapter and without, apart: on a CPU vLLM 0.32 lets an adapter change its neighbors without one."""
    with closing(engine):
        return [
            answer.text
            for adapter in (None, "again")
            for answer in engine.generate(
                [
                    GenerationRequest(messages=(Message("user", text),), mode=mode, max_new_tokens=32, adapter=adapter)
                    for mode in MODES
                    for text in QUESTIONS
                ]
            )
        ]


@pytest.mark.skipif(not PYTHON.is_file(), reason=f"there is no vLLM at {PYTHON}")
@pytest.mark.slow
@pytest.mark.parametrize("family", FAMILIES)
def test_merged_weights_and_the_adapter_once_more_on_them(family: str, tmp_path: Path) -> None:
    # vLLM on a CPU takes heads of 32 and above.
    heads = {"num_attention_heads": 2, "num_key_value_heads": 1} if family == "qwen2" else {"head_dim": 32}
    path = save_tiny(tmp_path / "model", family, **heads)
    template = load_template("qwen3" if family == "qwen3" else "chatml")
    base = BaseModel(name=str(path), path=path, revision="0")
    exported = run(base, make_adapter(architecture_from_hf(path)), tmp_path, template=template).folders
    options: dict[str, Any] = {
        "model": exported["merged"],
        "adapters": {"again": exported["hf_peft"]},
        "dtype": "float32",
        "context": 256,
        "chat_template": (exported["merged"] / "chat_template.jinja").read_text(),
    }
    here = answers(HFEngine(**options, device="cpu"))
    there = answers(VllmEngine(**options, python=PYTHON, cache_gb=1, batch_size=8, args=["--enforce-eager"]))
    assert there == here
    assert here[: len(here) // 2] != here[len(here) // 2 :]
