"""Settings that cannot train are refused before anything is loaded, each with its remedy."""

import math
from typing import Any

import pytest
from composing import asked_settings, change, sft_settings

from nemo_reasoning.config.data import DataSource
from nemo_reasoning.config.model import LORA_TARGETS, Init
from nemo_reasoning.config.train import validate
from nemo_reasoning.config.trainer import AUTO_BATCH, Fp8, Recompute
from nemo_reasoning.errors import ConfigError

NAN, INF = math.nan, math.inf
LLAMA = ("model=llama3_8b", "data=builtin", "hardware=gpu_80gb")


def problems(*overrides: str, **changes: Any) -> list[str]:
    """Return what is wrong with `overrides` and then `changes`; "__" stands for the dot of a key."""
    settings = sft_settings(*(overrides or LLAMA))
    for key, value in changes.items():
        change(settings, key.replace("__", "."), value)
    try:
        validate(settings)
    except ConfigError as error:
        return [line.removeprefix("- ") for line in str(error).splitlines()]
    return []


@pytest.mark.smoke
def test_a_sound_configuration_passes() -> None:
    assert problems() == []


CHOICES = [
    ("trainer.precision", "fp8", "choose one of bf16-mixed, 32"),
    ("model.dtype", "float16", "choose one of float32, bfloat16"),
]
AUTO = ("trainer.micro_batch_size", AUTO_BATCH)  # an open choice; written as 0 it is refused when loaded
ABOVE_ZERO = (
    *("peft.dim", "peft.alpha", "optim.lr", "data.rows", "trainer.epochs", "trainer.max_steps"),
    *("trainer.seq_length", "trainer.micro_batch_size", "trainer.global_batch_size", "trainer.eval_interval"),
    *("trainer.devices", "trainer.num_nodes", "trainer.tensor_model_parallel_size"),
    *("trainer.pipeline_model_parallel_size", "trainer.context_parallel_size", "callbacks.progress_interval"),
    "callbacks.samples_max_new_tokens",
)
ZERO_OR_ABOVE = (
    *("optim.weight_decay", "optim.clip_grad", "trainer.keep_checkpoints", "callbacks.samples_interval", "evaluate"),
)
SHARES = ("optim.min_lr_ratio", "data.thinking_off_share", "data.max_quarantined_share")
BELOW_ONE = ("peft.dropout", "optim.warmup_ratio", "optim.beta1", "optim.beta2")
RANGES = [
    *((key, value, "must be above 0") for key in ABOVE_ZERO for value in (0, -1) if (key, value) != AUTO),
    *((key, -1, "must be 0 or above") for key in ZERO_OR_ABOVE),
    *((key, value, "must lie between 0 and 1") for key in SHARES for value in (-0.1, 1.1)),
    *((key, value, "must be 0 or above, and below 1") for key in BELOW_ONE for value in (-0.1, 1.0)),
    *(("data.validation_share", value, "must be above 0, and below 1") for value in (0, 1.0, -0.1)),
    *(("optim.lr", value, "must be above 0") for value in (NAN, INF)),
    ("optim.clip_grad", INF, "must be 0 or above"),
    ("data.thinking_off_share", NAN, "must lie between 0 and 1"),
]


@pytest.mark.parametrize(("key", "value", "rule"), CHOICES + RANGES)
def test_one_value_out_of_range(key: str, value: Any, rule: str) -> None:
    assert problems(**{key.replace(".", "__"): value}) == [f"{key}={value}: {rule}"]


@pytest.mark.parametrize(
    ("key", "value"),
    [
        *((key, 0) for key in (*ZERO_OR_ABOVE, *SHARES, *BELOW_ONE)),
        *((key, 1.0) for key in SHARES),
        ("trainer.max_steps", None),
        ("trainer.seq_length", 8192),
    ],
)
def test_the_ends_of_a_range_belong_to_it(key: str, value: Any) -> None:
    assert problems(**{key.replace(".", "__"): value}) == []


@pytest.mark.parametrize(("targets", "named"), [(["linear_qkv", "q_proj"], "['q_proj']"), (["*"], "['*']"), ([], "[]")])
def test_lora_targets(targets: list[str], named: str) -> None:
    assert problems(peft__target_modules=targets) == [
        f"peft.target_modules={named}: choose from {', '.join(LORA_TARGETS)}"
    ]


def test_the_built_in_problems_need_a_number_of_rows() -> None:
    assert problems(data__rows=None) == [
        "data.rows=null: the built-in problems never end; give a number of rows",
    ]
    assert problems(data__rows=None, data__source=DataSource.jsonl, data__paths=["rows.jsonl"]) == []


def test_files_have_to_be_named() -> None:
    assert problems(data__source=DataSource.jsonl) == [
        "data.paths=[]: name at least one file, as in data.paths=[rows.jsonl]"
    ]


def test_the_global_batch_is_shared_by_all_replicas() -> None:
    assert problems(trainer__global_batch_size=8, trainer__devices=4) == []
    assert problems(trainer__global_batch_size=20, trainer__devices=4) == [
        "trainer.global_batch_size=20 is not a multiple of 8 = micro_batch_size 2 x 4 data-parallel replicas; "
        "make it one"
    ]
    # The same 4 devices are 2 replicas once two of them share a model.
    assert problems(trainer__global_batch_size=20, trainer__devices=4, trainer__tensor_model_parallel_size=2) == []


def test_devices_are_split_into_whole_models() -> None:
    layout = {"trainer__devices": 3, "trainer__num_nodes": 2, "trainer__tensor_model_parallel_size": 4}

    assert problems(**layout) == [
        "trainer.devices=3 x num_nodes=2 cannot be split into model-parallel groups of 4 x 1 x 1 = 4; "
        "make it a multiple"
    ]


def test_sequences_fit_the_model() -> None:
    assert problems(trainer__seq_length=8193) == [
        "trainer.seq_length=8193 exceeds the 8192 tokens of llama3_8b; lower it"
    ]
    assert problems("model=llama31_8b", "hardware=gpu_80gb", trainer__seq_length=131072) == []


def test_tensor_parallelism_divides_what_its_ranks_share() -> None:
    message = (
        "trainer.tensor_model_parallel_size={} does not divide the {} attention heads, {} KV groups, {} MLP channels "
        "and {} tokens of {}; choose one of {}"
    )
    wide = {"trainer__devices": 16, "trainer__tensor_model_parallel_size": 16}
    # 16 divides Llama 3's 32 heads, but not its 8 groups.
    assert problems(**wide) == [message.format(16, 32, 8, 14336, 128256, "llama3_8b", "1, 2, 4, 8")]
    small = {"trainer__devices": 2, "trainer__tensor_model_parallel_size": 2}
    assert problems("hardware=cpu", **small) == [message.format(2, 9, 3, 1536, 49152, "smollm2_135m", "1, 3")]
    half = {"trainer__devices": 2, "trainer__tensor_model_parallel_size": 2}
    odd = {"model__architecture__vocab_size": 128255, "model__architecture__ffn_hidden_size": 14337}
    for name, value in odd.items():
        (problem,) = problems(**half, **{name: value})
        assert f"{value}" in problem
        assert problem.endswith("choose one of 1")
    (problem,) = problems(peft__dim=3, **half)
    assert problem.startswith("peft.dim=3 with trainer.tensor_model_parallel_size=2")
    assert problems("hardware=cpu", "model=llama3_8b", "peft=none", **half) == []


def test_pipeline_parallelism_divides_the_layers() -> None:
    pipeline = {"trainer__devices": 4, "trainer__pipeline_model_parallel_size": 4, "trainer__packing": False}
    assert problems("hardware=cpu", **pipeline) == [
        "trainer.pipeline_model_parallel_size=4 does not divide the 30 layers of smollm2_135m; "
        "choose one of 1, 2, 3, 5, 6, 10, 15, 30"
    ]


def test_questions_while_training_need_whole_ranks() -> None:
    pipeline = {"trainer__devices": 2, "trainer__pipeline_model_parallel_size": 2}
    (problem,) = problems(*LLAMA, "callbacks=eval", **pipeline)
    assert problem.startswith("trainer.pipeline_model_parallel_size=2 with callbacks.eval: a rank that answers")
    assert problems(*LLAMA, **pipeline) == []


def test_a_shape_that_only_its_directory_knows_is_not_judged() -> None:
    assert problems(model__architecture=None, trainer__seq_length=10**6) == []


def test_random_weights_need_a_shape() -> None:
    assert problems(model__architecture=None, model__init=Init.random) == [
        "model.init=random needs model.architecture, which is null; choose a listed model"
    ]


@pytest.mark.parametrize(
    ("hardware", "switch"), [("cpu", "cuda=null"), ("gpu_80gb", "cuda=false"), ("gpu_80gb", "transformer_engine=false")]
)
def test_context_parallelism_needs_transformer_engine(hardware: str, switch: str) -> None:
    context = {"trainer__devices": 2, "trainer__context_parallel_size": 2, "trainer__packing": False}

    assert problems(f"hardware={hardware}", f"backend.{switch}", **context) == [
        "trainer.context_parallel_size=2 needs GPUs with Transformer Engine; set it to 1"
    ]
    assert problems("hardware=gpu_80gb", **context) == []


def test_qlora_does_without_transformer_engine() -> None:
    context = {"trainer__devices": 2, "trainer__context_parallel_size": 2, "trainer__packing": False}
    qlora = ("hardware=gpu_80gb", "peft=qlora")

    assert problems(*qlora) == []
    assert problems(*qlora, **context) == [
        "trainer.context_parallel_size=2 needs GPUs with Transformer Engine; set it to 1"
    ]
    assert problems(*qlora, backend__transformer_engine=True) == [
        "backend.transformer_engine=true with peft=qlora: its linears cannot hold NF4 weights; set it to null"
    ]


def test_packed_rows_are_not_cut_into_equal_parts() -> None:
    [problem] = problems("hardware=gpu_80gb", trainer__devices=2, trainer__context_parallel_size=2)
    assert problem == (
        "trainer.packing=true with trainer.context_parallel_size=2: it cuts every row into equal parts, and packed "
        "rows are of any length; set trainer.packing=false"
    )
    assert problems("hardware=gpu_80gb", trainer__devices=2, trainer__pipeline_model_parallel_size=2) == []


def test_a_cpu_has_no_cuda() -> None:
    assert problems("hardware=cpu", backend__cuda=True) == [
        "backend.cuda=true contradicts hardware=cpu; choose one of conf/hardware"
    ]


def test_a_dry_run_measures_nothing() -> None:
    assert problems(dry_run=True, evaluate=9) == [
        "dry_run=true loads nothing, so nothing can be evaluated; set evaluate=0"
    ]


def test_several_problems_are_listed_together() -> None:
    found = problems(
        trainer__precision="16",
        optim__lr=-1.0,
        data__rows=None,
        trainer__global_batch_size=3,
        trainer__seq_length=9000,
        dry_run=True,
        evaluate=1,
    )

    assert sorted(problem.split("=")[0] for problem in found) == [
        *("data.rows", "dry_run", "optim.lr", "trainer.global_batch_size", "trainer.precision", "trainer.seq_length")
    ]


def test_nemos_dora_takes_neither_dropout_nor_tensor_parallelism() -> None:
    dora = (*LLAMA, "peft=dora")

    assert problems(*dora) == []
    (dropout,) = problems(*dora, peft__dropout=0.1)
    assert dropout.startswith("peft.dropout=0.1 with peft=dora")
    assert "set peft.dropout=0" in dropout
    (parallel,) = problems(*dora, trainer__tensor_model_parallel_size=2, trainer__devices=2)
    assert parallel.startswith("trainer.tensor_model_parallel_size=2 with peft=dora")


def test_full_fine_tuning_has_no_adapter_and_a_lower_rate() -> None:
    full = ("model=llama32_3b", "hardware=gpu_80gb", "peft=none")

    assert problems(*full) == []
    assert problems(*full, peft__dim=32) == [
        "peft.dim=32: peft=none trains every weight and has no adapter; leave it out, or choose peft=lora"
    ]
    assert asked_settings(*LLAMA, "peft=none").name == "llama3_8b_none"
    assert asked_settings(*LLAMA, "peft=none").optim.lr == 1e-5
    assert asked_settings(*LLAMA, "peft=none", "optim.lr=3e-5").optim.lr == 3e-5


GPU_ONLY = {"tf32": True, "expandable_segments": True, "memory_fraction": 0.5}
TE_ONLY = {"offload_layers": 4, "fp8": Fp8.delayed}


@pytest.mark.parametrize(("key", "value"), [*GPU_ONLY.items(), *TE_ONLY.items()])
def test_what_a_machine_lacks_is_refused(key: str, value: Any) -> None:
    chosen = {f"trainer__{key}": value}
    without_te = problems(backend__transformer_engine=False, **chosen)
    (on_cpu,) = problems("model=llama3_8b", "hardware=cpu", **chosen)

    assert problems(**chosen) == []
    assert len(without_te) == (key in TE_ONLY)
    assert on_cpu.startswith(f"trainer.{key}={getattr(value, 'value', str(value).replace('T', 't'))} needs")


@pytest.mark.parametrize(
    ("changes", "remedy"),
    [
        ({"memory_fraction": 1.1}, "at most 1"),
        ({"memory_fraction": 0.0}, "must be above 0"),
        ({"gc_interval": 0}, "must be above 0"),
        ({"offload_layers": -1}, "must be 0 or above"),
        ({"offload_layers": 32}, "has 32 layers"),
        ({"offload_layers": 4, "recompute": Recompute.full}, "set trainer.recompute=none"),
        ({"fp8": Fp8.delayed, "deterministic": True}, "set trainer.fp8=tensorwise"),
        ({"fp8": Fp8.tensorwise, "precision": "32"}, "set trainer.precision=bf16-mixed"),
        ({"sequence_parallel": True}, "set trainer.sequence_parallel=false"),
    ],
)
def test_switches_that_exclude_each_other(changes: dict[str, Any], remedy: str) -> None:
    (found,) = problems(**{f"trainer__{key}": value for key, value in changes.items()})
    assert remedy in found
