"""Of several GPUs the fewest that hold a model share it; what is given stays."""

from dataclasses import replace

import pytest
from composing import asked_settings, sft_settings

from nemo_reasoning.errors import ConfigError
from nemo_reasoning.training.memory.planner import explain_layout
from nemo_reasoning.training.memory.static import static_bytes
from nemo_reasoning.training.memory.workload import workload_of

FULL, SEVENTY = ("model=llama3_8b", "peft=none"), ("model=llama3_70b",)


@pytest.mark.parametrize(
    ("overrides", "layout"),
    [
        (("model=llama3_8b", "hardware=gpu_24gb", "trainer.devices=2"), (1, 1, 2, False)),
        ((*FULL, "hardware=gpu_80gb", "trainer.devices=2"), (2, 1, 1, True)),
        ((*FULL, "hardware=gpu_80gb", "trainer.devices=8"), (2, 1, 4, True)),
        ((*FULL, "hardware=gpu_40gb", "trainer.devices=4"), (4, 1, 1, True)),
        ((*FULL, "hardware=gpu_80gb", "trainer.devices=4", "trainer.pipeline_model_parallel_size=1"), (2, 1, 2, True)),
        ((*FULL, "hardware=gpu_80gb", "trainer.devices=4", "trainer.tensor_model_parallel_size=1"), (1, 2, 2, False)),
        ((*SEVENTY, "hardware=gpu_80gb", "trainer.devices=8"), (2, 1, 4, True)),
        ((*SEVENTY, "hardware=gpu_48gb", "trainer.devices=4"), (4, 1, 1, True)),
        ((*SEVENTY, "hardware=gpu_24gb", "trainer.devices=8"), (8, 1, 1, True)),
        # DoRA has no tensor parallelism, and layers are shared within a node only
        (("model=llama2_13b", "peft=dora", "hardware=gpu_24gb", "trainer.devices=4"), (1, 2, 2, False)),
        ((*FULL, "hardware=gpu_80gb", "trainer.num_nodes=2"), (1, 2, 1, False)),
        # a step of one row has no second replica
        (("model=llama3_8b", "hardware=gpu_80gb", "trainer.devices=2", "trainer.global_batch_size=1"), (2, 1, 1, True)),
        (("model=llama3_8b", "hardware=cpu", "trainer.devices=2"), (1, 1, 2, False)),
    ],
)
def test_the_fewest_ranks_that_hold_the_model_share_it(
    overrides: tuple[str, ...], layout: tuple[int, int, int, bool]
) -> None:
    trainer = sft_settings(*overrides).trainer
    sizes = trainer.tensor_model_parallel_size, trainer.pipeline_model_parallel_size, trainer.data_parallel_size

    assert (*sizes, trainer.sequence_parallel) == layout


def test_the_choice_is_explained_with_the_numbers() -> None:
    line = explain_layout(asked_settings(*FULL, "hardware=gpu_80gb", "trainer.devices=8"))

    assert line is not None
    assert line.startswith("layout of 8 GPUs: tensor 2 x pipeline 1, 4 replicas; a row needs ")
    assert "GiB of 73.6 usable, tensor 1 x pipeline 1 needs 140." in line
    assert explain_layout(asked_settings(*FULL, "hardware=gpu_80gb")) is None


def test_what_no_layout_holds_is_refused_with_the_nearest() -> None:
    with pytest.raises(
        ConfigError, match=r"needs .* GiB on its busiest GPU, shared by tensor 2 x pipeline 1; gpu_24gb"
    ):
        sft_settings(*SEVENTY, "hardware=gpu_24gb", "trainer.devices=2")


def test_other_mistakes_are_said_as_such() -> None:
    with pytest.raises(ConfigError, match="trainer.global_batch_size=16 is not a multiple of 3"):
        sft_settings("model=llama3_8b", "hardware=gpu_80gb", "trainer.devices=3")
    for size, rule in ((0, "must be above 0"), (-1, "must be above 0"), ("all", "must be a whole number")):
        with pytest.raises(ConfigError, match=f"trainer.tensor_model_parallel_size={size}: {rule}$"):
            sft_settings("model=llama3_8b", "hardware=gpu_80gb", f"trainer.tensor_model_parallel_size={size}")


def test_replicas_that_share_the_optimizer_hold_a_part_of_it() -> None:
    settings = sft_settings(*FULL, "hardware=gpu_141gb", "trainer.devices=8", "trainer.distributed_optimizer=true")
    assert settings.model.architecture is not None
    work = workload_of(settings, settings.model.architecture)
    alone, shared = static_bytes(replace(work, optimizer_shards=1)), static_bytes(work)

    assert (work.tensor_parallel, work.optimizer_shards) == (1, 8)
    assert (alone.weights, alone.gradients) == (shared.weights, shared.gradients)
    assert shared.optimizer == pytest.approx(alone.optimizer / 8, rel=1e-6)
    with pytest.raises(ConfigError, match="set optim=adamw"):
        sft_settings("hardware=cpu", "optim=adamw_8bit", "trainer.distributed_optimizer=true")
