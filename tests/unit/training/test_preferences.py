"""Direct preference optimization through NeMo equals Hugging Face's model with PEFT's adapter on and off."""

import io
import json
import math
import warnings
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
import torch
from short_runs import ADAPTER, importing_here, prepare_inputs, short_settings

from nemo_reasoning.config.loss import LossKind, LossSettings
from nemo_reasoning.data.pairs import prepare_pairs
from nemo_reasoning.data.store import TokenStore
from nemo_reasoning.export.from_run import ensure_exported
from nemo_reasoning.training.callbacks.preferences import preference_loss
from nemo_reasoning.training.loggers import read_metrics
from nemo_reasoning.training.run_dir import Run
from nemo_reasoning.training.train import TrainingInputs, train

BETA, PAIRS = 0.1, 24


def write_pairs(path: Path) -> Path:
    """Write rows in which the right sum is preferred, of different lengths."""
    with path.open("w", encoding="utf-8") as lines:
        for first in range(PAIRS):
            total, wrong = first + 7, first + 8
            steps = "\n".join(f"{first} + 7 = {total}" for _ in range(1 + first % 3))
            chosen, rejected = (
                f"<think>\n{trace}\n</think>\n\nIt is {value}." for trace, value in ((steps, total), ("Hm.", wrong))
            )
            lines.write(json.dumps({"prompt": f"{first} + 7?", "chosen": chosen, "rejected": rejected}) + "\n")
    return path


@dataclass(frozen=True)
class Trained:
    """A run on pairs, up to two places."""

    inputs: TrainingInputs
    first: list[dict[str, float]]
    run: Run
    adapter: Path
    more: list[dict[str, float]]


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Trained]:
    folder = tmp_path_factory.mktemp("pairs")
    with importing_here():
        inputs = prepare_inputs(folder)
        settings = short_settings(
            inputs.tokenizer, folder / "run", *ADAPTER, "peft.dropout=0", "optim.lr=1e-3", "trainer.max_steps=2"
        )
        data = replace(
            settings.data, paths=[str(write_pairs(folder / "pairs.jsonl"))], validation_share=0.25, rows=None
        )
        data = replace(data, source=type(data.source).jsonl)
        settings = replace(settings, loss=LossSettings(LossKind.dpo, BETA), data=data)
        prepare_pairs(data, formatter=inputs.formatter, seq_length=256, out=folder / "prepared", tell=print)
        inputs = replace(inputs, data=folder / "prepared")
        found = []
        for steps in (2, 3):
            longer = replace(settings, trainer=replace(settings.trainer, max_steps=steps))
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                train(Run.start(longer), inputs, stream=io.StringIO())
            if steps == 2:
                _, adapter = ensure_exported(Run.open(folder / "run"))
                assert adapter is not None
                adapter = adapter.rename(folder / "adapter")
            found.append(read_metrics(folder / "run" / "metrics.jsonl"))
        yield Trained(inputs, found[0], Run.open(folder / "run"), adapter, found[1])


def test_it_begins_without_a_preference_and_learns_one(trained: Trained) -> None:
    first, last = trained.first[0], trained.more[-1]

    assert first["loss"] == pytest.approx(math.log(2), abs=1e-6)
    assert first["reward_margin"] == 0
    assert last["loss"] < first["loss"]
    assert last["reward_accuracy"] > 0.5
    assert last["val_loss"] < math.log(2)


def test_loss_and_gradient_are_those_of_transformers_and_peft(trained: Trained) -> None:
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    base = AutoModelForCausalLM.from_pretrained(trained.inputs.tokenizer, dtype=torch.float32)
    model = PeftModel.from_pretrained(base, trained.adapter, is_trainable=True)
    plan_rows = _rows_of_step(trained, 2)

    loss = _loss(model, trained, "train", plan_rows)
    loss.backward()

    third = trained.more[2]
    assert third["loss"] == pytest.approx(float(loss), abs=2e-5)
    assert third["grad_norm"] == pytest.approx(_norm(model), rel=2e-3)
    pairs = range(len(TokenStore.open(trained.inputs.data / "validation")) // 2)
    with torch.no_grad():
        assert trained.first[1]["val_loss"] == pytest.approx(
            float(_loss(model, trained, "validation", pairs)), abs=2e-5
        )


def _rows_of_step(trained: Trained, step: int) -> list[int]:
    from nemo_reasoning.training.nemo_objects import build_data

    data = build_data(trained.run.settings, trained.inputs.data, pad_id=0)
    return data.plans["train"].rows(step).tolist()


def _loss(model: torch.nn.Module, trained: Trained, split: str, pairs: object) -> torch.Tensor:
    """Return the mean of equation 7 of arXiv 2305.18290, one answer at a time."""
    store = TokenStore.open(trained.inputs.data / split)
    losses = []
    for pair in pairs:  # type: ignore[attr-defined]
        gains = []
        for row in (store[2 * pair], store[2 * pair + 1]):
            ids, mask = torch.tensor(row.ids, dtype=torch.int64)[None], torch.tensor(row.loss_mask)[1:]
            said = [_said(model, ids, mask)]
            with torch.no_grad(), model.disable_adapter():  # type: ignore[operator]
                said.append(_said(model, ids, mask))
            gains.append(said[0] - said[1])
        losses.append(-torch.nn.functional.logsigmoid(BETA * (gains[0] - gains[1])))
    return torch.stack(losses).mean()


def _said(model: torch.nn.Module, ids: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    logits = model(input_ids=ids).logits[0, :-1].log_softmax(-1)
    return logits.gather(1, ids[0, 1:, None])[:, 0][mask].sum()


def _norm(model: torch.nn.Module) -> float:
    """Return the norm of the gradient as Megatron's fused linears have it: their parts share the first half."""
    fused = {"q_proj": "qkv", "k_proj": "qkv", "v_proj": "qkv", "gate_proj": "fc1", "up_proj": "fc1"}
    shared: dict[str, torch.Tensor] = {}
    squares = 0.0
    for name, parameter in model.named_parameters():
        if parameter.grad is None:
            continue
        if "lora_B" in name:
            squares += float(parameter.grad.square().sum())
            continue
        part = next((part for part in fused if part in name), None)
        key = name if part is None else name.replace(part, fused[part])
        shared[key] = parameter.grad if key not in shared else shared[key] + parameter.grad
    return math.sqrt(squares + sum(float(gradient.square().sum()) for gradient in shared.values()))


def test_padding_behind_the_last_pair_is_no_answer() -> None:
    policy = torch.tensor([0.1, 0.2, 0.4, 0.0, 9.0, 9.0], requires_grad=True)
    reference = torch.tensor([0.3, 0.1, 0.2, 0.5, 1.0, 2.0])

    losses, margins = preference_loss(policy, reference, torch.tensor([0, 2, 4, 6]), beta=2.0)
    losses.sum().backward()

    margin = 2.0 * ((0.4 - 0.3) - (0.7 - 0.4))
    assert margins.tolist() == pytest.approx([margin])
    assert losses.tolist() == pytest.approx([math.log1p(math.exp(-margin))])
    slope = 2.0 / (1 + math.exp(margin))
    assert policy.grad is not None
    assert policy.grad.tolist() == pytest.approx([slope, slope, -slope, -slope, 0, 0])
