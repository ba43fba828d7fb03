"""Turn settings into the objects `nemo.collections.llm.finetune` takes; call inside `backend`.

NeMo records the arguments of these objects in every checkpoint, so only plain values go in: no
ListConfig, none of our classes. Our callbacks join the trainer after its construction.
"""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from pathlib import Path
from typing import Any

import torch
from megatron.core.distributed import DistributedDataParallelConfig
from megatron.core.optimizer import OptimizerConfig
from nemo import lightning as nl
from nemo.collections.common.tokenizers.huggingface.auto_tokenizer import AutoTokenizer
from nemo.collections.llm.gpt.model.base import GPTConfig, GPTModel
from nemo.collections.llm.peft import DoRA, LoRA
from nemo.lightning.ckpt_utils import ADAPTER_META_FILENAME
from nemo.lightning.resume import AdapterPath

from nemo_reasoning.artifacts import cached_folder
from nemo_reasoning.backend.patching import Patch, applied
from nemo_reasoning.backend.runtime import Backend
from nemo_reasoning.config.data import Order
from nemo_reasoning.config.model import PeftScheme, PeftSettings
from nemo_reasoning.config.train import SftSettings
from nemo_reasoning.config.trainer import Fp8, OptimSettings, Recompute, TrainerSettings
from nemo_reasoning.models.families import family_named
from nemo_reasoning.models.importer import write_tokenizer_files
from nemo_reasoning.peft.initialization import Start, initialize, initialized
from nemo_reasoning.training.callbacks.base import UNKNOWN_LENGTH
from nemo_reasoning.training.checkpoints import Checkpoint
from nemo_reasoning.training.datamodule import ChatDataModule


def build_data(settings: SftSettings, folder: Path, *, pad_id: int) -> ChatDataModule:
    """Return the batches of a run; a curriculum is trained in its order, other rows are shuffled.

    Args:
        settings: The run.
        folder: Prepared rows.
        pad_id: Token that fills short rows.
    """
    trainer = settings.trainer
    return ChatDataModule(
        folder,
        seq_length=trainer.seq_length,
        micro_batch_size=trainer.micro_batch_size,
        global_batch_size=trainer.global_batch_size,
        data_parallel_size=trainer.data_parallel_size,
        max_steps=UNKNOWN_LENGTH if trainer.hours is not None else trainer.max_steps,
        endless=trainer.hours is not None,
        epochs=trainer.epochs,
        pad_id=pad_id,
        share_positions=trainer.tensor_model_parallel_size if trainer.sequence_parallel else 1,
        packing=trainer.packing,
        pairs=settings.loss.pairs,
        seed=trainer.seed if settings.data.order is Order.shuffle else None,
    )


def build_model(settings: SftSettings, *, base: Path | None, tokenizer: Path | None) -> GPTModel:
    """Return the NeMo model, without weights yet.

    Args:
        settings: The run.
        base: NeMo checkpoint whose configuration and tokenizer to take; None for random weights of
            `model.architecture`.
        tokenizer: Hugging Face directory with the tokenizer of a model with random weights.
    """
    if base is None:
        assert settings.model.architecture is not None
        family = family_named(settings.model.architecture.family)
        chosen = None if tokenizer is None else _own_tokenizer(tokenizer, Path(settings.output_dir))
        model = family.nemo_model(family.nemo_config(settings.model.architecture), tokenizer=chosen)
        model.configure_model = _initialized(model, settings)
    else:
        model = nl.io.load_context(base / "context", subpath="model")
    config = model.config
    config.seq_length = settings.trainer.seq_length
    config.calculate_per_token_loss = True  # over the whole global batch, not a mean of micro-batch means
    config.bf16, config.fp16 = settings.trainer.precision == "bf16-mixed", False  # whatever the base was saved in
    config.params_dtype = torch.bfloat16 if config.bf16 else torch.float32
    config.deterministic_mode = settings.trainer.deterministic
    if settings.trainer.pipeline_model_parallel_size > 1:  # stages tell each other how long a micro-batch is
        config.variable_seq_lengths = True
        config.moe_token_dispatcher_type = "alltoall"  # noqa: S105 - the default excludes that, without experts too
    _set_recompute(config, settings.trainer.recompute)
    if settings.trainer.offload_layers:
        config.cpu_offloading, config.cpu_offloading_num_layers = True, settings.trainer.offload_layers
        config.cpu_offloading_activations, config.cpu_offloading_weights = True, False
    return model


def _own_tokenizer(source: Path, run: Path) -> AutoTokenizer:
    """Return a tokenizer whose folder, of which every checkpoint holds a copy, is the run's and holds nothing else."""
    return AutoTokenizer(str(cached_folder(run / "nemo_tokenizer", partial(write_tokenizer_files, source))))


def _initialized(model: GPTModel, settings: SftSettings) -> Callable[..., None]:
    """Return NeMo's `configure_model`, which makes the weights, with weights that no layout changes."""
    configure, shape = model.configure_model, settings.model.architecture
    assert shape is not None

    def configure_model(*args: Any, **kwargs: Any) -> None:
        configure(*args, **kwargs)
        initialize(model.module, shape, seed=settings.trainer.seed)

    return configure_model


def _set_recompute(config: GPTConfig, recompute: Recompute) -> None:
    if recompute is Recompute.full:
        config.recompute_granularity, config.recompute_method, config.recompute_num_layers = "full", "uniform", 1
    elif recompute is Recompute.selective:
        config.recompute_granularity, config.recompute_modules = "selective", ["core_attn"]


def build_peft(peft: PeftSettings, *, seed: int, start: Start | None = None) -> LoRA | DoRA | None:
    """Return NeMo's adapter, or None to train every weight.

    Both adapters scale by alpha / dim, so rsLoRA's alpha / sqrt(dim) goes into alpha.

    Args:
        peft: The settings.
        seed: Of a fresh adapter.
        start: As `initialized` takes it.
    """
    if peft.scheme is PeftScheme.none:
        return None
    adapter = (DoRA if peft.scheme is PeftScheme.dora else LoRA)(
        target_modules=list(peft.target_modules),
        dim=peft.dim,
        alpha=peft.scale * peft.dim,
        dropout=peft.dropout,
        dropout_position="pre",
    )
    adapter.transform = initialized(adapter.transform, seed=seed, start=start)
    return adapter


def warmup_steps(optim: OptimSettings, max_steps: int) -> int:
    """Return the steps in which the learning rate rises to `optim.lr`."""
    return round(optim.warmup_ratio * max_steps)


def build_optimizer(
    optim: OptimSettings, *, precision: str, max_steps: int, distributed: bool = False
) -> nl.MegatronOptimizerModule:
    """Return Adam with a linear warm-up and a cosine over `max_steps`; `distributed` is `distributed_optimizer`."""
    config = OptimizerConfig(
        optimizer="adam",
        lr=optim.lr,
        weight_decay=optim.weight_decay,
        adam_beta1=optim.beta1,
        adam_beta2=optim.beta2,
        clip_grad=optim.clip_grad,
        bf16=precision == "bf16-mixed",
        use_distributed_optimizer=distributed,
    )
    schedule = nl.lr_scheduler.CosineAnnealingScheduler(
        max_steps=max_steps,
        warmup_steps=warmup_steps(optim, max_steps),
        constant_steps=0,
        min_lr=optim.lr * optim.min_lr_ratio,
    )
    return nl.MegatronOptimizerModule(config=config, lr_scheduler=schedule)


def build_trainer(trainer: TrainerSettings, *, backend: Backend, max_steps: int) -> nl.Trainer:
    """Return the trainer with Megatron's strategy.

    Args:
        trainer: The settings.
        backend: What is active; decides between CPU and CUDA.
        max_steps: Optimiser steps.
    """
    return nl.Trainer(
        accelerator="gpu" if backend.cuda else "cpu",
        devices=trainer.devices,
        num_nodes=trainer.num_nodes,
        strategy=_build_strategy(trainer),
        plugins=_build_precision(trainer),
        max_steps=max_steps,
        max_epochs=-1,
        val_check_interval=min(trainer.eval_interval, max_steps),
        check_val_every_n_epoch=None,
        num_sanity_val_steps=0,
        log_every_n_steps=1,
        use_distributed_sampler=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        logger=False,
        enable_checkpointing=False,  # ours saves
    )


def _build_precision(trainer: TrainerSettings) -> nl.MegatronMixedPrecision | None:
    """Return NeMo's plugin; FP8 as NeMo's recipes have it, but with weights that stay in bfloat16.

    `params_dtype` overrides the model's own: without it NeMo builds the base in float32, twice the memory of the
    training, and converts it once it is loaded. Adapters are added to those weights, and checkpoints with and
    without FP8 are then the same.
    """
    if trainer.precision != "bf16-mixed":
        return None
    scaling: dict[Fp8, dict[str, Any]] = {
        Fp8.none: {},
        Fp8.delayed: {"fp8": "hybrid", "fp8_amax_history_len": 1024, "fp8_amax_compute_algo": "max"},
        Fp8.tensorwise: {
            **{"fp8": "hybrid", "fp8_recipe": "tensorwise", "first_last_layers_bf16": True},
            **{"num_layers_at_start_in_bf16": 1, "num_layers_at_end_in_bf16": 1},
        },
    }
    return nl.MegatronMixedPrecision(precision="bf16-mixed", params_dtype=torch.bfloat16, **scaling[trainer.fp8])


def _build_strategy(trainer: TrainerSettings) -> nl.MegatronStrategy:
    return nl.MegatronStrategy(
        tensor_model_parallel_size=trainer.tensor_model_parallel_size,
        pipeline_model_parallel_size=trainer.pipeline_model_parallel_size,
        context_parallel_size=trainer.context_parallel_size,
        sequence_parallel=trainer.sequence_parallel,
        pipeline_dtype=torch.bfloat16 if trainer.precision == "bf16-mixed" else torch.float32,
        ddp=DistributedDataParallelConfig(
            check_for_nan_in_grad=trainer.max_skipped_steps == 0,
            use_distributed_optimizer=trainer.distributed_optimizer,
        ),
        ckpt_async_save=False,
        ckpt_optim_fully_reshardable=True,  # a run may go on in another layout
        replace_progress_bar=False,
    )


def build_log(folder: Path) -> nl.NeMoLogger:
    """Return NeMo's own log, in `nemo` of a run's folder: NeMo moves the files it finds where it logs."""
    return nl.NeMoLogger(
        explicit_log_dir=str(folder / "nemo"), update_logger_directory=False, use_datetime_version=False
    )


def load_from(trainer: nl.Trainer, *, base: Path | None, checkpoint: Checkpoint | None) -> None:
    """Tell a trainer what to load before the first step.

    Args:
        trainer: Changed in place.
        base: NeMo checkpoint of the base model; None for random weights.
        checkpoint: Of this run, to go on from; an adapter's base is `base`, wherever it was when it was saved.
    """
    if checkpoint is None:
        if base is not None:
            trainer.strategy.restore_config = nl.RestoreConfig(path=str(base))
        return
    weights = checkpoint.path / "weights"
    is_adapter = (weights / ADAPTER_META_FILENAME).is_file()
    trainer.ckpt_path = AdapterPath(weights, base_model_path=base or weights) if is_adapter else weights


def base_kept(base: Path | None) -> AbstractContextManager[None]:
    """Let a random base (None) stay as it was drawn where an adapter's run goes on: it is in no checkpoint."""
    answers = "nemo.lightning.pytorch.callbacks.peft takes every adapter's base from a checkpoint"
    return nullcontext() if base else applied(Patch("random-base", answers, _own_base))


def _own_base() -> Sequence[tuple[Any, str, Any]]:
    load = nl.io.pl.MegatronCheckpointIO.load_checkpoint

    def load_checkpoint(self: Any, path: Any, sharded_state_dict: Any = None, *args: Any, **kwargs: Any) -> Any:
        asked = (sharded_state_dict or {}).get("state_dict", {})
        is_adapter = (Path(path) / ADAPTER_META_FILENAME).is_file()
        if is_adapter and asked and not any(".adapter." in key for key in asked):
            return {"state_dict": {key: getattr(value, "data", value) for key, value in asked.items()}}
        return load(self, path, sharded_state_dict, *args, **kwargs)

    return [(nl.io.pl.MegatronCheckpointIO, "load_checkpoint", load_checkpoint)]
