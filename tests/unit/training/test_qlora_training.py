"""A QLoRA run through NeMo: loaded in four bits, stopped, continued, exported onto either base."""

import gc
import io
import json
import shutil
import signal
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from composing import sft_settings
from short_runs import importing_here
from tiny import save_tiny_llama
from transformers import LlamaForCausalLM

from nemo_reasoning.artifacts import fingerprint, read_manifest
from nemo_reasoning.config.model import LORA_TARGETS
from nemo_reasoning.config.train import SftSettings
from nemo_reasoning.config.trainer import Recompute
from nemo_reasoning.data.chat import ChatFormatter, load_template
from nemo_reasoning.data.prepare.pipeline import prepare_data
from nemo_reasoning.data.store import TokenStore
from nemo_reasoning.errors import CheckpointError, ExportError, VerificationError
from nemo_reasoning.export.from_run import export_run
from nemo_reasoning.models.hub import fetch_base
from nemo_reasoning.models.importer import convert
from nemo_reasoning.peft import nf4
from nemo_reasoning.training.run_dir import Run
from nemo_reasoning.training.train import TrainingInputs, train

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore:Detected call of `lr_scheduler.step"),  # NeMo's schedule at the first step
]
STEPS = 6


@pytest.fixture(scope="module")
def room(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Return a folder with a tiny model and its NeMo checkpoint, with NeMo on the CPU."""
    folder = tmp_path_factory.mktemp("qlora")
    with importing_here():
        convert(save_tiny_llama(folder / "tiny"), folder / "nemo", "float32")
        yield folder


def settings_of(room: Path, name: str, *overrides: str) -> SftSettings:
    """Return the settings of a run of the tiny model."""
    return sft_settings(
        *(
            "model=hf_local",
            "data=builtin",
            f"model.source={room / 'tiny'}",
            "model.template=chatml",
            "model.dtype=float32",
        ),
        *("peft=qlora", "peft.dim=4", "peft.alpha=8", "peft.dropout=0.1", "data.rows=120", "data.workers=1"),
        *("hardware=cpu", "trainer.precision=32", "trainer.seq_length=256", "trainer.micro_batch_size=4"),
        *("trainer.global_batch_size=8", f"trainer.max_steps={STEPS}", "trainer.eval_interval=3", "optim.lr=1e-2"),
        *("logger=none", "callbacks.samples_interval=0", "callbacks.progress_interval=1"),
        *(f"output_dir={room / name}", f"cache_dir={room / 'cache'}"),
        *overrides,
    )


def inputs_of(settings: SftSettings, room: Path) -> TrainingInputs:
    """Prepare the rows of a run."""
    base = fetch_base(settings.model.source, revision=None, cache_dir=room)
    formatter = ChatFormatter.load(base.path, template=load_template("chatml"))
    data = room / "data"
    prepare_data(settings.data, formatter=formatter, seq_length=256, out=data, tell=lambda line: None)
    return TrainingInputs(base=room / "nemo", tokenizer=base.path, formatter=formatter, data=data)


def fit(settings: SftSettings, room: Path, stream: io.StringIO | None = None) -> Path:
    """Train and return the run's folder."""
    run = Run.start(settings)
    train(run, inputs_of(settings, room), stream=stream or io.StringIO())
    return run.path


def metric(run: Path, key: str) -> dict[int, float]:
    """Return a metric by step."""
    found = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return {record["step"]: record[key] for record in found if key in record}


@pytest.fixture(scope="module")
def trained(room: Path) -> Path:
    """Return the folder of a finished run."""
    return fit(settings_of(room, "trained"), room)


class Interrupting(io.StringIO):
    """A terminal that sends SIGTERM to this process when it reads of the fourth step."""

    def write(self, text: str) -> int:
        """Take output."""
        if f"step 4/{STEPS}" in text:
            signal.raise_signal(signal.SIGTERM)
        return super().write(text)


def test_a_stopped_run_ends_with_the_same_losses(room: Path, trained: Path) -> None:
    """Its base is quantised again, and its layers are now recomputed."""
    settings = settings_of(room, "stopped")
    with pytest.raises(SystemExit):
        fit(settings, room, Interrupting())
    last = Run.open(room / "stopped").last
    assert last is not None
    assert 3 < last.step < STEPS
    settings.trainer.recompute = Recompute.full
    again = fit(settings, room)
    for key in ("loss", "val_loss", "grad_norm"):
        assert metric(again, key) == pytest.approx(metric(trained, key), rel=1e-6), key
    assert metric(trained, "loss")[STEPS] < 0.9 * metric(trained, "loss")[1]


def test_a_random_base_is_drawn_again_where_a_run_goes_on(room: Path) -> None:
    shape = {"num_layers": 2, "hidden_size": 64, "ffn_hidden_size": 176, "num_attention_heads": 4, "vocab_size": 264}
    settings = settings_of(
        *(room, "drawn", "model=smollm2_135m", "model.init=random", "trainer.max_steps=2", "trainer.eval_interval=1"),
        *(f"model.architecture.{key}={value}" for key, value in (shape | {"num_query_groups": 2}).items()),
    )
    inputs = replace(inputs_of(settings, room), base=None)
    run = Run.start(settings)
    train(run, inputs, stream=io.StringIO())
    known = metric(run.path, "val_loss"), nf4.read_digests(run.path)
    shutil.rmtree(run.checkpoints[-1].path)
    (run.path / nf4.DIGESTS_FILE).unlink()
    train(Run.start(settings), inputs, stream=io.StringIO())

    assert metric(run.path, "val_loss")[2] == known[0][2]
    assert nf4.read_digests(run.path) == known[1]


def test_checkpoints_hold_the_adapter_alone(trained: Path) -> None:
    from torch.distributed.checkpoint.filesystem import FileSystemReader

    stored = FileSystemReader(Run.open(trained).selected()[0].path / "weights").read_metadata().state_dict_metadata
    held = {name for name in stored if name.startswith("module.") and "_extra_state" not in name}
    assert len(held) == 2 * len(LORA_TARGETS)
    assert all(".adapter." in name for name in held)


def loss_of(model: LlamaForCausalLM, store: TokenStore) -> float:
    """Return the loss per supervised token over all rows."""
    total, count = 0.0, 0
    for row in range(len(store)):
        ids, mask = torch.tensor(store[row].ids).long(), torch.tensor(store[row].loss_mask)[1:]
        with torch.no_grad():
            logits = model(ids[None]).logits[0, :-1]
        total += float(torch.nn.functional.cross_entropy(logits[mask], ids[1:][mask], reduction="sum"))
        count += int(mask.sum())
    return total / count


def test_merged_onto_the_dequantised_base_it_is_what_was_trained(room: Path, trained: Path, tmp_path: Path) -> None:
    result = export_run(Run.open(trained), formats=["hf_peft", "merged"], dtype="float32", out=tmp_path)
    best, _ = Run.open(trained).selected()
    model = LlamaForCausalLM.from_pretrained(result.folders["merged"]).eval()
    validated = metric(trained, "val_loss")[best.step]

    assert loss_of(model, TokenStore.open(room / "data" / "validation")) == pytest.approx(validated, rel=1e-5)
    settings = read_manifest(tmp_path)["settings"]
    assert settings["merge_onto"] == "dequantised"
    assert settings["base_in_training"] == {
        "format": "nf4", "targets": list(LORA_TARGETS), "dtype": "float32",
        "digests": fingerprint(nf4.read_digests(trained)),
    }  # fmt: skip
    assert "merged onto the dequantised base" in (result.folders["merged"] / "README.md").read_text()
    assert result.checks["hf_peft"]["logits"]["relative_rms"] < 1e-4


def test_a_bfloat16_run_on_a_float32_base_exports_the_weights_it_computed_with(
    room: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is merged onto is compared with what the linears of the training itself dequantized to."""
    from nemo_reasoning.peft import layers

    used: dict[tuple[int, ...], list[torch.Tensor]] = {}
    dense_weight = layers._Nf4Linear.dense_weight

    def recorded(self: Any, dtype: torch.dtype) -> torch.Tensor:
        weight = dense_weight(self, dtype)
        used.setdefault(tuple(weight.shape), []).append(weight.clone())
        return weight

    monkeypatch.setattr(layers._Nf4Linear, "dense_weight", recorded)
    overrides = ("trainer.precision=bf16-mixed", "trainer.max_steps=1", "trainer.eval_interval=1", "optim.lr=1e-8")
    run = fit(settings_of(room, "bf16", *overrides), room)
    monkeypatch.undo()
    result = export_run(Run.open(run), formats=["merged"], dtype="float32", out=tmp_path)
    exported = LlamaForCausalLM.from_pretrained(result.folders["merged"]).state_dict()

    [held] = {weight.dtype for weights in used.values() for weight in weights}
    assert held == torch.bfloat16
    for layer in range(2):
        found = exported[f"model.layers.{layer}.mlp.down_proj.weight"]
        differences = [float((found - weight.float()).abs().max()) for weight in used[tuple(found.shape)]]
        assert min(differences) < 1e-6  # what one step at this learning rate adds
    head, original = exported["lm_head.weight"], LlamaForCausalLM.from_pretrained(room / "tiny").lm_head.weight
    assert torch.equal(head, original.bfloat16().float())
    assert result.checks["merged"]["logits"]["relative_rms"] < 1e-4

    digests = nf4.read_digests(run)
    assert digests is not None
    (run / nf4.DIGESTS_FILE).write_text(json.dumps({**digests, "1.linear_fc2": ["0-bfloat16"]}))
    with pytest.raises(VerificationError, match="linear_fc2 of layer 1"):
        export_run(Run.open(run), formats=["merged"], dtype="float32", out=tmp_path)
    old = {**digests, "1.linear_fc2": ["0-bfloat16", "1-bfloat16"]}  # of each rank's share
    (run / nf4.DIGESTS_FILE).write_text(json.dumps(old))
    with pytest.raises(CheckpointError, match="such as 1.linear_fc2; an earlier version began it"):
        fit(settings_of(room, "bf16", *overrides, "trainer.max_steps=2"), room)


def test_merged_onto_the_original_base(room: Path, trained: Path, tmp_path: Path) -> None:
    result = export_run(Run.open(trained), formats=["merged"], dtype="bfloat16", out=tmp_path, merge_onto="original")
    found = result.checks["merged"]

    assert found["rounding"]["relative_rms"] < 1e-4
    assert found["logits"]["relative_rms_from_training"] > found["logits"]["tolerance"]
    assert read_manifest(tmp_path)["settings"]["merge_onto"] == "original"
    assert "merged onto the original base" in (tmp_path / "merged" / "README.md").read_text()


def test_what_cannot_be_merged_or_continued(room: Path, trained: Path, tmp_path: Path) -> None:
    with pytest.raises(ExportError, match="merge_onto=somewhere"):
        export_run(Run.open(trained), formats=["merged"], merge_onto="somewhere")
    lora = shutil.copytree(trained, tmp_path / "lora")
    config = (lora / "config.yaml").read_text()
    (lora / "config.yaml").write_text(config.replace("scheme: qlora", "scheme: lora"))
    with pytest.raises(ExportError, match="merge_onto=dequantised: .* was trained with peft=lora"):
        export_run(Run.open(lora), formats=["merged"], merge_onto="dequantised")


def test_one_weight_at_a_time_is_held_in_full(room: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of linears' shapes no tensor with memory may live beside the one being quantised."""
    from nemo_reasoning.models.loading import load_nemo_model
    from nemo_reasoning.peft.qlora import nf4_linears

    shapes = {(128, 64), (64, 64), (352, 64), (64, 176)}

    def alive() -> set[int]:
        tensors = [found for found in gc.get_objects() if type(found) is torch.Tensor and not found.is_meta]
        plain = [found for found in tensors if found.layout is torch.strided]  # oneDNN's packed ones have no storage
        return {found.untyped_storage().data_ptr() for found in plain if tuple(found.shape) in shapes}

    quantise, seen, others = nf4.quantize, [], alive()

    def counted(weight: torch.Tensor) -> Any:
        seen.append(alive() - others)
        return quantise(weight)

    monkeypatch.setattr(nf4, "quantize", counted)
    with nf4_linears(targets=LORA_TARGETS), load_nemo_model(room / "nemo") as logits:
        found = logits(torch.arange(40)[None])
    assert [len(storages) for storages in seen] == [1] * 8

    monkeypatch.undo()
    from nemo_reasoning.export.quantised_base import hold_as_trained
    from nemo_reasoning.models.sizes import architecture_from_hf

    reference = LlamaForCausalLM.from_pretrained(room / "tiny").eval()
    base = nf4.Nf4Base(targets=LORA_TARGETS, dtype="float32")
    hold_as_trained(reference, base=base, shape=architecture_from_hf(room / "tiny"))
    with torch.no_grad():
        expected = reference(torch.arange(40)[None]).logits
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)
