"""The container's path without a GPU: Transformer Engine's own Python layer over a stand-in for its extension.

Says that names, shapes, dtypes and calls agree, and that losses are those of the torch layers. Says nothing of kernels.
"""

from functools import partial
from pathlib import Path

import pytest
from processes import HERE, NOT_IN_THE_IMAGE, REPOSITORY, TRANSFORMER_ENGINE, last_json, run, run_forked
from tiny import save_tiny_llama

from nemo_reasoning.training.loggers import read_metrics

pytestmark = pytest.mark.slow


def test_both_layers_hold_the_same_parameters_and_checkpoints() -> None:
    pairs = ("llama3_8b:lora", "llama3_8b:dora", "llama31_70b:lora")
    answers = last_json(run_forked(HERE / "contract.py", *pairs))

    for pair in pairs:
        for side in ("only Transformer Engine", "only torch"):
            assert not any(answers[pair][side].values()), (pair, side, answers[pair][side])
        assert answers[pair]["counts"]["loss"] == 1
    counts = answers["llama3_8b:lora"]["counts"]
    assert answers["FP8 bytes of a weight"] == 2  # as training/memory/static.py has it
    assert (counts["base parameters"], counts["checkpoint"], counts["trained"]) == (195, 402, 256)


class Rehearsal:
    """A tiny base model, and runs of the recipe on it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.model = save_tiny_llama(folder / "hf")

    def train(self, name: str, *overrides: str, **environment: str) -> tuple[list[float], dict[str, int]]:
        """Return the losses of a run, and how often each function of the extension was called."""
        anew = {"overlays": (TRANSFORMER_ENGINE,), "REHEARSE_TE": "1"}
        start = partial(run, **anew) if "REHEARSE_GPU" in environment else run_forked
        printed = start(
            *(
                HERE / "sft_lora.py",
                "model=hf_local",
                "data=builtin",
                f"model.source={self.model}",
                "model.template=chatml",
            ),
            *("hardware=cpu", "trainer.max_steps=3", "data.rows=60", "trainer.seq_length=256", "logger=none"),
            *("trainer.micro_batch_size=4", "trainer.global_batch_size=4", "trainer.eval_interval=2"),
            *("callbacks.samples_interval=2", "callbacks.samples_max_new_tokens=8", "peft.dim=4", "peft.alpha=8"),
            *(f"cache_dir={self.folder / 'cache'}", f"output_dir={self.folder / name}", *overrides),
            **environment,
        )
        losses = [step["loss"] for step in read_metrics(self.folder / name / "metrics.jsonl")]
        return losses, last_json(printed, "CALLS ")


@pytest.fixture(scope="module")
def rehearsal(tmp_path_factory: pytest.TempPathFactory) -> Rehearsal:
    return Rehearsal(tmp_path_factory.mktemp("rehearsal"))


def test_the_recipe_trains_and_exports_with_transformer_engine(rehearsal: Rehearsal) -> None:
    losses, calls = rehearsal.train("engine", "trainer.deterministic=true")
    # the release of NeMo-Run installed here imports a client that needs prometheus_client
    hidden = NOT_IN_THE_IMAGE.replace("prometheus_client,", "")
    torch_losses, torch_calls = rehearsal.train(
        "torch", REHEARSE_DECLINED="1", REHEARSE_GPU="1", REHEARSE_WITHOUT=hidden
    )

    assert losses == pytest.approx(torch_losses, abs=1e-3)
    used = {"rmsnorm_bwd", "generic_gemm", "fused_rope_backward", "fused_attn_bwd", "multi_tensor_adam"}
    assert used <= calls.keys()
    assert calls["deterministic attention"] == calls["fused_attn_bwd"]
    assert torch_calls == {}, "with hardware=cpu nothing of Transformer Engine may be called"

    out = rehearsal.folder / "exported"
    command = (REPOSITORY / "recipes" / "export.py", f"checkpoint={rehearsal.folder / 'engine'}", f"output_dir={out}")
    stack = {"overlays": (TRANSFORMER_ENGINE,), "REHEARSE_TE": "1", "REHEARSE_GPU": "1"}
    shown = run(*command, "formats=[hf_peft]", folder=rehearsal.folder, **stack)  # where no second interpreter is
    assert "logits: verified" in shown
    assert "tokenizer: not verified: no environment with transformers 5" in shown
    assert (out / "hf_peft" / "adapter_model.safetensors").is_file()


def test_qlora_takes_its_attention(rehearsal: Rehearsal) -> None:
    short = ("peft=qlora", "trainer.max_steps=2", "callbacks.samples_interval=0")
    losses, calls = rehearsal.train("qlora", "hardware=gpu_24gb", *short)
    torch_losses, _ = rehearsal.train("qlora-torch", *short, REHEARSE_DECLINED="1")

    assert losses == pytest.approx(torch_losses, abs=1e-3)
    assert calls["fused_attn_fwd"] > calls["fused_attn_bwd"] > 0
    assert "generic_gemm" not in calls, "the linears hold NF4 weights, and are torch's"


def test_the_importer_leaves_a_gpu_that_answers_alone(rehearsal: Rehearsal) -> None:
    out = rehearsal.folder / "imported"
    run("-m", "nemo_reasoning.models.importer", rehearsal.model, out, "bfloat16", REHEARSE_GPU="1")

    assert (out / "weights").is_dir()
    assert (out / "context").is_dir()
