"""Settings become the NeMo objects they describe, which hold nothing that another machine lacks."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import fiddle as fdl
import pytest
import torch
from architectures import listed
from composing import sft_settings
from tiny import save_tiny_llama

from nemo_reasoning.backend.runtime import Backend
from nemo_reasoning.config.train import SftSettings
from nemo_reasoning.config.trainer import Recompute
from nemo_reasoning.models.importer import convert


@pytest.fixture
def build(nemo_cpu: None) -> ModuleType:
    """Return the module under test, with NeMo on the CPU."""
    from nemo_reasoning.training import nemo_objects as build

    return build


def settings(*overrides: str) -> SftSettings:
    """Return settings of a model with random weights."""
    return sft_settings("model=llama32_1b", "hardware=gpu_80gb", "model.init=random", *overrides)


def leaves(value: Any) -> Iterator[Any]:
    """Yield the values NeMo recorded."""
    if isinstance(value, fdl.Config):
        yield fdl.get_callable(value)
        yield from leaves(value.__arguments__)
    elif type(value) is dict:
        yield from leaves([*value, *value.values()])
    elif type(value) in (list, tuple):
        for inner in value:
            yield from leaves(inner)
    else:
        yield value


def trainer_of(build: ModuleType, run: SftSettings, *, max_steps: int = 7) -> Any:
    """Return the trainer of a run on the CPU."""
    backend = Backend(cuda=False, transformer_engine=False)
    return build.build_trainer(run.trainer, backend=backend, max_steps=max_steps)


def test_only_what_every_machine_has_is_recorded(build: ModuleType) -> None:
    run = settings("peft.target_modules=[linear_qkv]")
    objects = [
        build.build_peft(run.peft, seed=0),
        build.build_optimizer(run.optim, precision=run.trainer.precision, max_steps=7),
        build.build_model(run, base=None, tokenizer=None),
        trainer_of(build, run),
    ]
    found = [leaf for built in objects for leaf in leaves(built.__io__)]
    homes = {(leaf if isinstance(leaf, type) else type(leaf)).__module__.partition(".")[0] for leaf in found}

    assert len(found) > 100
    # Once a model was trained in this process, NeMo records its initialisers too: partials of torch's.
    assert homes - {"functools"} == {"builtins", "torch", "nemo", "megatron"}


def adapt(lora: Any, linear: torch.nn.Linear, *, name: str) -> Any:
    """Return what NeMo puts in a linear's place."""
    lora._add_via_setattr = False  # its setup does this when training starts
    return type(lora).transform(lora, linear, name=name, prefix="decoder")


@pytest.mark.parametrize(("rslora", "scale"), [("true", 128 / 8), ("false", 128 / 64)])
def test_lora_scales_as_the_settings_say(build: ModuleType, rslora: str, scale: float) -> None:
    lora = build.build_peft(settings(f"peft.rslora={rslora}", "peft.dropout=0").peft, seed=0)
    base = torch.nn.Linear(8, 6, bias=False)
    adapted = adapt(lora, base, name="linear_qkv")
    torch.nn.init.normal_(adapted.lora_b.weight)
    x = torch.randn(3, 8)

    expected = base(x) + scale * x @ adapted.lora_a.weight.T @ adapted.lora_b.weight.T
    torch.testing.assert_close(adapted(x), expected)
    assert (lora.dim, adapted.lora_a.weight.shape) == (64, (64, 8))


def test_lora_adapts_its_targets_alone(build: ModuleType) -> None:
    lora = build.build_peft(settings("peft.target_modules=[linear_qkv,linear_proj]").peft, seed=0)
    adapted = {
        name: adapt(lora, torch.nn.Linear(8, 6), name=name)
        for name in ("linear_qkv", "linear_proj", "linear_fc1", "linear_fc2", "output_layer")
    }

    assert [name for name, module in adapted.items() if hasattr(module, "lora_a")] == ["linear_qkv", "linear_proj"]
    assert (lora.dropout, lora.dropout_position) == (0.05, "pre")


def learning_rates(build: ModuleType, run: SftSettings, *, max_steps: int) -> list[float]:
    """Return the rate of each step, and the one after the last."""
    module = build.build_optimizer(run.optim, precision="32", max_steps=max_steps)
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=module.config.lr)
    scheduler = module.lr_scheduler.scheduler(None, optimizer)["lr_scheduler"]["scheduler"]
    rates = []
    for _ in range(max_steps + 1):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    return rates


def test_the_rate_warms_up_and_falls_along_a_cosine(build: ModuleType) -> None:
    run = settings("optim.lr=1e-4", "optim.min_lr_ratio=0.1", "optim.warmup_ratio=0.05")
    rates = learning_rates(build, run, max_steps=200)

    assert rates[:11] == pytest.approx([1e-4 * (step + 1) / 11 for step in range(11)])
    assert rates[105] == pytest.approx(5.5e-5)  # halfway from the warm-up's end at step 10
    assert rates[200] == pytest.approx(1e-5)
    assert rates[10:] == sorted(rates[10:], reverse=True)


@pytest.mark.parametrize("warmup", ["0", "0.03", "0.99"])
def test_a_run_of_one_step_learns(build: ModuleType, warmup: str) -> None:
    assert learning_rates(build, settings(f"optim.warmup_ratio={warmup}"), max_steps=1)[0] > 0


def test_the_optimizer_is_the_settings(build: ModuleType) -> None:
    run = settings("optim.weight_decay=0.3", "optim.beta1=0.8", "optim.beta2=0.9", "optim.clip_grad=0.5")
    config = build.build_optimizer(run.optim, precision="bf16-mixed", max_steps=9).config

    assert (config.optimizer, config.lr, config.weight_decay, config.clip_grad) == ("adam", 2e-4, 0.3, 0.5)
    assert (config.adam_beta1, config.adam_beta2, config.bf16) == (0.8, 0.9, True)
    assert not build.build_optimizer(run.optim, precision="32", max_steps=9).config.bf16


@pytest.mark.parametrize(
    ("recompute", "expected"),
    [
        (Recompute.none, (None, None, None)),
        (Recompute.selective, ("selective", None, None)),
        (Recompute.full, ("full", "uniform", 1)),
    ],
)
def test_recomputation(build: ModuleType, recompute: Recompute, expected: tuple[Any, ...]) -> None:
    config = build.build_model(settings(f"trainer.recompute={recompute.name}"), base=None, tokenizer=None).config

    assert (config.recompute_granularity, config.recompute_method, config.recompute_num_layers) == expected
    assert config.recompute_modules == ["core_attn"]


@pytest.mark.parametrize(
    ("name", "theirs"),
    [
        ("llama2_13b", "Llama2Config13B"),
        ("llama3_8b", "Llama3Config8B"),
        ("llama3_70b", "Llama3Config70B"),
        ("llama31_8b", "Llama31Config8B"),
        ("llama31_nemotron_nano_8b", "Llama31NemotronNano8BConfig"),
        ("llama31_70b", "Llama31Config70B"),
        ("llama32_1b", "Llama32Config1B"),
        ("llama32_3b", "Llama32Config3B"),
    ],
)
def test_random_weights_have_the_shape_nemo_gives_the_model(build: ModuleType, name: str, theirs: str) -> None:
    from nemo.collections import llm

    run = sft_settings(f"model={name}", "hardware=cpu", "model.init=random")
    ours, reference = build.build_model(run, base=None, tokenizer=None).config, getattr(llm, theirs)()

    compared = (
        *("num_layers", "hidden_size", "ffn_hidden_size", "num_attention_heads", "num_query_groups", "kv_channels"),
        *("layernorm_epsilon", "rotary_base", "share_embeddings_and_output_weights", "activation_func"),
        *("scale_factor", "low_freq_factor", "high_freq_factor", "old_context_len"),
    )
    for field in compared:
        assert getattr(ours, field, None) == getattr(reference, field, None), field
    assert listed(name).max_seq_length == reference.seq_length
    assert ours.vocab_size == listed(name).vocab_size


def test_heads_may_be_wider_than_their_share(build: ModuleType) -> None:
    run = settings()
    assert run.model.architecture is not None
    run.model.architecture.head_dim = 96

    assert build.build_model(run, base=None, tokenizer=None).config.kv_channels == 96


@pytest.mark.parametrize(("precision", "dtype"), [("bf16-mixed", torch.bfloat16), ("32", torch.float32)])
def test_the_model_computes_in_the_trainers_precision(build: ModuleType, precision: str, dtype: torch.dtype) -> None:
    run = settings(f"trainer.precision={precision}", "trainer.seq_length=77")
    config, trainer = build.build_model(run, base=None, tokenizer=None).config, trainer_of(build, run)

    assert (config.params_dtype, config.bf16, config.seq_length) == (dtype, dtype is torch.bfloat16, 77)
    assert config.calculate_per_token_loss
    assert trainer.strategy.pipeline_dtype is dtype
    assert trainer.precision == {"32": "32-true"}.get(precision, precision)


def test_the_strategy_is_the_settings(build: ModuleType) -> None:
    sizes = {"tensor_model_parallel_size": 4, "pipeline_model_parallel_size": 2, "context_parallel_size": 3}
    strategy = build._build_strategy(replace(settings().trainer, **sizes))

    assert {size: getattr(strategy, size) for size in sizes} == sizes


@pytest.mark.parametrize(("interval", "expected"), [(5, 5), (500, 9)])
def test_a_short_run_validates_at_its_end(build: ModuleType, interval: int, expected: int) -> None:
    trainer = trainer_of(build, settings(f"trainer.eval_interval={interval}"), max_steps=9)

    assert (trainer.max_steps, trainer.val_check_interval, trainer.limit_val_batches) == (9, expected, 1.0)
    assert trainer.check_val_every_n_epoch is None


def test_checkpoints_of_random_weights_copy_a_tokenizer_and_no_weights(build: ModuleType, tmp_path: Path) -> None:
    chosen = settings(f"output_dir={tmp_path / 'run'}")
    model = build.build_model(chosen, base=None, tokenizer=save_tiny_llama(tmp_path / "hf"))

    assert model.tokenizer.text_to_ids("a")
    names = {path.name for path in (tmp_path / "run" / "nemo_tokenizer").iterdir()}
    assert "tokenizer.json" in names
    assert not any(name.endswith(".safetensors") for name in names)


def test_an_imported_model_keeps_its_shape(build: ModuleType, tmp_path: Path) -> None:
    convert(save_tiny_llama(tmp_path / "hf"), tmp_path / "nemo", "float32")
    model = build.build_model(settings("trainer.seq_length=99"), base=tmp_path / "nemo", tokenizer=None)
    config = model.config

    assert (config.num_layers, config.hidden_size, config.num_query_groups) == (2, 64, 2)
    assert (config.seq_length, config.params_dtype, config.calculate_per_token_loss) == (99, torch.bfloat16, True)
    assert model.tokenizer.text_to_ids("a")
