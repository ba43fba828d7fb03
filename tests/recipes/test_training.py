"""What a training run leaves behind, on a tiny model through NeMo's own fine-tuning."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from launch import environment, records, run, tiny_overrides
from transformers import LlamaForCausalLM

from nemo_reasoning.artifacts import read_manifest
from nemo_reasoning.config.data import Order
from nemo_reasoning.data.store import TokenStore
from nemo_reasoning.training.loggers import read_metrics
from nemo_reasoning.training.run_dir import Run

pytestmark = pytest.mark.slow
EXPECTED_LOSSES = (5.73665, 5.62781)  # first and last step


@pytest.fixture(scope="module")
def trained(shared_llama: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("runs") / "trained"
    more = ["trainer.max_steps=6", "trainer.eval_interval=3", "peft.dropout=0", "callbacks.samples_interval=3"]
    more += ["data.workers=2"]  # of the other runs one process prepares the rows
    run("sft_lora", *tiny_overrides(shared_llama, out, *more), "callbacks.samples_max_new_tokens=4")
    return out


def _mean_loss(model: LlamaForCausalLM, rows: list[int], store: TokenStore) -> float:
    """Return the loss per supervised token over some rows, each run alone."""
    total, count = 0.0, 0
    for row in rows:
        ids, mask = torch.tensor(store[row].ids).long(), torch.tensor(store[row].loss_mask)[1:]
        with torch.no_grad():
            logits = model(ids[None]).logits[0, :-1]
        losses = torch.nn.functional.cross_entropy(logits, ids[1:], reduction="none")
        total, count = total + float(losses[mask].sum()), count + int(mask.sum())
    return total / count


def test_the_loss_is_the_mean_over_the_supervised_tokens_of_the_global_batch(shared_llama: Path, trained: Path) -> None:
    """Two micro-batches with different numbers of targets: a mean of means would differ."""
    from nemo_reasoning.training.batching import BatchPlan

    store = TokenStore.open(trained / "data" / "train")
    plan = BatchPlan(
        lengths=store.lengths - 1,
        supervised=store.supervised,
        micro_batch_size=4,
        global_batch_size=8,
        data_parallel_size=1,
        pad_to=8,
        seed=Run.open(trained).settings.trainer.seed,
        repeat=True,
    )
    reference = LlamaForCausalLM.from_pretrained(shared_llama).eval()
    expected = _mean_loss(reference, plan.rows(0).tolist(), store)  # before the first update
    assert records(trained, "loss")[1] == pytest.approx(expected, rel=1e-4)


def test_the_validation_loss_is_that_of_the_exported_model_over_all_rows(trained: Path, tmp_path: Path) -> None:
    run("export", f"checkpoint={trained}", "formats=[merged]", "dtype=float32", f"output_dir={tmp_path}")
    exported = LlamaForCausalLM.from_pretrained(tmp_path / "merged").eval()
    store = TokenStore.open(trained / "data" / "validation")
    assert len(store) % 8  # the last global batch is short
    expected = _mean_loss(exported, list(range(len(store))), store)
    best = Run.open(trained).best
    assert best is not None
    assert records(trained, "val_loss")[best.step] == pytest.approx(expected, rel=1e-4)
    assert best.loss == pytest.approx(expected, rel=1e-4)


def test_a_curriculum_is_trained_in_its_order(trained: Path, nemo_cpu: None) -> None:
    from nemo_reasoning.training.nemo_objects import build_data

    settings = Run.open(trained).settings
    drawn = {}
    for settings.data.order in Order:
        drawn[settings.data.order] = build_data(settings, trained / "data", pad_id=0).plans["train"].rows(0).tolist()
    assert drawn[Order.curriculum] == list(range(8)) != drawn[Order.shuffle]


def test_losses_are_those_of_this_recipe(trained: Path) -> None:
    """Guards the recipe as a whole: data, order, schedule, optimiser, LoRA scale."""
    losses = records(trained, "loss")
    assert losses[1] == pytest.approx(EXPECTED_LOSSES[0], rel=1e-3)
    assert losses[6] == pytest.approx(EXPECTED_LOSSES[1], rel=1e-3)


def test_a_run_leaves_what_it_promises(trained: Path) -> None:
    steps = read_metrics(trained / "metrics.jsonl")
    assert [step["step"] for step in steps] == list(range(1, 7))
    wanted = {"loss", "lr", "grad_norm", "rss_bytes", "tokens_per_second", "supervised_tokens_per_second"}
    assert all(wanted <= step.keys() for step in steps)
    assert [step["step"] for step in steps if "val_loss" in step] == [3, 6]
    last = Run.open(trained).last
    assert last is not None
    assert last.step == 6
    samples = [json.loads(line) for line in (trained / "samples.jsonl").read_text().splitlines()]
    assert [(sample["step"], sample["mode"]) for sample in samples] == [(3, "on"), (3, "off"), (6, "on"), (6, "off")]
    counts = read_manifest(trained / "data")["counts"]
    assert counts["read"] == 300
    assert "NeMo" in (trained / "log.txt").read_text()


PORTABLE = """
import sys
class Block:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] == "nemo_reasoning":
            raise ImportError("blocked")
sys.meta_path.insert(0, Block())
from pathlib import Path
from megatron.core.models.common.embeddings import rope_utils
from nemo.lightning import io
rope_utils.fused_apply_rotary_pos_emb = print  # of TE, which NeMo's LlamaConfig asks for when it is made
model = io.load_context(Path(sys.argv[1]) / "context", subpath="model")
trainer = io.load_context(Path(sys.argv[1]) / "context", subpath="trainer")
print(type(model).__name__, model.config.num_layers, model.model_transform.dim, trainer.max_steps)
assert "nemo_reasoning" not in sys.modules
"""


def test_a_checkpoint_loads_without_this_package(trained: Path, tmp_path: Path) -> None:
    checkpoint = Run.open(trained).selected()[0].path
    for path in (checkpoint / "context").rglob("*"):
        if path.is_file():
            assert b"nemo_reasoning" not in path.read_bytes(), path
            assert b"ListConfig" not in path.read_bytes(), path
    assert b"nemo_reasoning" not in (checkpoint / "weights" / "common.pt").read_bytes()
    alone = {key: value for key, value in environment().items() if key != "PYTHONPATH"}
    done = subprocess.run(
        [sys.executable, "-c", PORTABLE, str(checkpoint)],
        cwd=tmp_path, env=alone, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "LlamaModel 2 4 6"


def test_every_format_of_the_run_is_verified(trained: Path, tmp_path: Path) -> None:
    shown = run("export", f"checkpoint={trained}", f"output_dir={tmp_path}", "tokenizer_python=null")
    checks = read_manifest(tmp_path)["counts"]["checks"]
    assert checks["hf_peft"]["logits"]["relative_rms"] < 1e-4
    assert checks["merged"]["rounding"]["relative_rms"] < 1e-4
    assert checks["nemo"]["weights"]["tensors"] == 2 * 2 * 7
    assert "--max-lora-rank 8" in shown
    assert json.loads((tmp_path / "hf_peft" / "adapter_config.json").read_text())["use_rslora"] is True


def test_two_replicas_compute_what_one_does(shared_llama: Path, trained: Path, tmp_path: Path) -> None:
    more = ["trainer.max_steps=6", "trainer.eval_interval=3", "peft.dropout=0", "trainer.devices=2"]
    run("sft_lora", *tiny_overrides(shared_llama, tmp_path, *more))
    for key in ("loss", "val_loss", "grad_norm"):
        assert records(tmp_path, key) == pytest.approx(records(trained, key), rel=1e-4), key
    assert [checkpoint.step for checkpoint in Run.open(tmp_path).checkpoints] == [3, 6]


def test_random_weights_with_fewer_tokens_than_the_rows_are_refused(shared_llama: Path, tmp_path: Path) -> None:
    out, size = tmp_path / "run", "model.architecture.vocab_size"
    overrides = [one for one in tiny_overrides(shared_llama, out) if not one.startswith("model")]
    told = run("sft_lora", "model=smollm2_135m", "model.init=random", f"{size}=264", *overrides, succeeds=False)
    assert f"but {size} of smollm2_135m has embeddings for tokens 0 to 263 only" in told
