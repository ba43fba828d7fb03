"""Train with `nemo.collections.llm.finetune`; the same call again goes on where the last one stopped."""

import json
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

from nemo_reasoning.artifacts import fingerprint
from nemo_reasoning.backend.runtime import Backend, backend, without_leftovers
from nemo_reasoning.config.data import Order
from nemo_reasoning.config.evaluate import QuizSettings
from nemo_reasoning.config.train import CallbackSettings, SftSettings
from nemo_reasoning.config.trainer import Accelerator, TrainerSettings
from nemo_reasoning.data.chat import ChatFormatter
from nemo_reasoning.data.prepare.output import SPLITS
from nemo_reasoning.models.hub import weights_fingerprint
from nemo_reasoning.peft.nf4 import nf4_base
from nemo_reasoning.peft.qlora import nf4_linears
from nemo_reasoning.reasoning.messages import Message, Mode
from nemo_reasoning.reasoning.switch import system_prompt
from nemo_reasoning.training.callbacks.generation import SAMPLES_FILE, SamplePrompt
from nemo_reasoning.training.optimizers import optimizer_in_use
from nemo_reasoning.training.process import switched
from nemo_reasoning.training.run_dir import Identity, Run, rows_fingerprint

if TYPE_CHECKING:
    from nemo_reasoning.training.callbacks.evaluation import Paper

_MODES: tuple[Mode, ...] = ("on", "off")


@dataclass(frozen=True, kw_only=True)
class TrainingInputs:
    """What a run starts from.

    Attributes:
        base: NeMo checkpoint of the base model; None for random weights.
        tokenizer: Hugging Face directory with the tokenizer.
        formatter: What the rows were formatted with.
        data: Prepared rows.
    """

    base: Path | None
    tokenizer: Path
    formatter: ChatFormatter
    data: Path


def train(run: Run, inputs: TrainingInputs, *, stream: TextIO, paper: "Paper | None" = None) -> None:
    """Train until the last step; leaves checkpoints, metrics.jsonl and samples.jsonl in the run's folder.

    Args:
        run: The run, started with validated settings.
        inputs: Model and data.
        stream: Where progress is shown.
        paper: Questions to ask while training; needed with `callbacks.eval`.

    Raises:
        BackendError: The machine cannot run what was asked.
        CheckpointError: The folder holds checkpoints that were made from other inputs.
        SIGTERMException: SIGTERM ended the run; its last checkpoint is saved.
    """
    settings = run.settings
    run.claim(identity_of(inputs))
    base = nf4_base(settings)
    quantised = nf4_linears(targets=base.targets, from_checkpoint=inputs.base is not None) if base else nullcontext()
    with (
        backend(**wanted_backend(settings)) as active,
        quantised,
        switched(settings.trainer),
        optimizer_in_use(settings.optim.kind),
        without_leftovers(),
    ):
        _finetune(run, inputs, active=active, stream=stream, paper=paper)


def wanted_backend(settings: SftSettings) -> dict[str, bool | None]:
    """Return the switches of `backend` that a run's settings ask for."""
    on_cpu = settings.hardware.accelerator is Accelerator.cpu
    return {
        "cuda": False if on_cpu else settings.backend.cuda,
        "transformer_engine": (
            False if nf4_base(settings) else settings.backend.transformer_engine  # its linears hold no NF4
        ),
    }


def identity_of(inputs: TrainingInputs) -> Identity:
    """Return what a run with these inputs is made of."""
    return Identity(
        rows=rows_fingerprint(inputs.data),
        template=inputs.formatter.template,
        tokenizer=fingerprint(inputs.formatter.tokenizer.backend_tokenizer.to_str()),
        base=None if inputs.base is None else weights_fingerprint(inputs.tokenizer),
    )


def _finetune(run: Run, inputs: TrainingInputs, *, active: Backend, stream: TextIO, paper: "Paper | None") -> None:
    from nemo import lightning as nl
    from nemo.collections import llm

    from nemo_reasoning.training import nemo_objects
    from nemo_reasoning.training.callbacks.order import attach
    from nemo_reasoning.training.loggers import build_loggers

    settings, out = run.settings, run.path
    data = build_data(settings, inputs)
    model = nemo_objects.build_model(settings, base=inputs.base, tokenizer=_nemo_tokenizer(inputs))
    trainer = nemo_objects.build_trainer(settings.trainer, backend=active, max_steps=data.max_steps)
    attach(trainer, _build_callbacks(settings, inputs, data=data, out=out, stream=stream, paper=paper))
    loggers = build_loggers(
        backend=settings.logger.backend, folder=out, run_name=settings.name, project=settings.logger.project
    )
    restore = nl.RestoreConfig(path=str(inputs.base)) if inputs.base else None
    llm.finetune(
        model=model,
        data=data,
        trainer=trainer,
        log=nemo_objects.build_log(out, keep=settings.trainer.keep_checkpoints, loggers=loggers),
        resume=nl.AutoResume(
            restore_config=restore,
            resume_from_directory=str(out / "checkpoints"),
            resume_if_exists=True,
            resume_ignore_no_checkpoint=True,
        ),
        optim=nemo_objects.build_optimizer(
            settings.optim, precision=settings.trainer.precision, max_steps=data.max_steps
        ),
        peft=nemo_objects.build_peft(settings.peft),
        tokenizer="model",
    )
    nl.teardown(trainer, model)


def _nemo_tokenizer(inputs: TrainingInputs) -> Any:
    from nemo.collections.common.tokenizers.huggingface.auto_tokenizer import AutoTokenizer

    return AutoTokenizer(str(inputs.tokenizer))


def build_data(settings: SftSettings, inputs: TrainingInputs) -> Any:
    """Return the `ChatDataModule` of a run; a curriculum is trained in its order, other rows are shuffled."""
    from nemo_reasoning.training.datamodule import ChatDataModule

    trainer = settings.trainer
    return ChatDataModule(
        inputs.data,
        seq_length=trainer.seq_length,
        micro_batch_size=trainer.micro_batch_size,
        global_batch_size=trainer.global_batch_size,
        data_parallel_size=trainer.data_parallel_size,
        max_steps=trainer.max_steps,
        epochs=trainer.epochs,
        pad_id=inputs.formatter.end_of_turn,
        fixed_length=trainer.pipeline_model_parallel_size > 1,
        packing=trainer.packing,
        seed=trainer.seed if settings.data.order is Order.shuffle else None,
    )


def _build_callbacks(
    settings: SftSettings, inputs: TrainingInputs, *, data: Any, out: Path, stream: TextIO, paper: "Paper | None"
) -> list[Any]:
    """Return our callbacks in the order they run; `attach` explains it."""
    from nemo_reasoning.training.callbacks.checkpointing import SigtermSave
    from nemo_reasoning.training.callbacks.losses import SupervisedLoss
    from nemo_reasoning.training.callbacks.memory import MemoryMonitor
    from nemo_reasoning.training.callbacks.metrics import MetricSource, MetricsRecorder
    from nemo_reasoning.training.callbacks.nf4_digests import Nf4Digests
    from nemo_reasoning.training.callbacks.progress import ProgressDisplay
    from nemo_reasoning.training.callbacks.recompute import InputGradients
    from nemo_reasoning.training.callbacks.seeding import RunLength, StepSeed
    from nemo_reasoning.training.callbacks.validation import ValidationLoss
    from nemo_reasoning.training.nemo_objects import warmup_steps

    chosen = settings.callbacks
    sources: list[MetricSource] = []
    if chosen.memory:
        sources.append(MemoryMonitor())
    if chosen.throughput:
        sources.append(_throughput(settings, inputs))
    recorder = MetricsRecorder(sources=sources)
    display = ProgressDisplay(recorder=recorder, stream=stream, every_n_steps=chosen.progress_interval)
    callbacks = [
        *_process_callbacks(settings.trainer),
        *([Nf4Digests(out)] if nf4_base(settings) else []),
        StepSeed(settings.trainer.seed),
        RunLength(max_steps=data.max_steps, warmup_steps=warmup_steps(settings.optim, data.max_steps)),
        SupervisedLoss(),
        InputGradients(),
        ValidationLoss(data),
        *sources,
        recorder,
        display,
        SigtermSave(show=display.show),
    ]
    if chosen.samples_interval:
        callbacks.append(_samples(chosen, inputs, out=out, show=display.show))
    if chosen.eval is not None and paper is not None:
        callbacks.append(_quiz(chosen.eval, paper, inputs, out=out, show=display.show))
    return callbacks


def _process_callbacks(trainer: TrainerSettings) -> list[Any]:
    from nemo.lightning.pytorch.callbacks import GarbageCollectionCallback

    from nemo_reasoning.training.callbacks.memory_fraction import MemoryFraction

    callbacks: list[Any] = []
    if trainer.memory_fraction is not None:
        callbacks.append(MemoryFraction(trainer.memory_fraction))
    if trainer.gc_interval is not None:
        callbacks.append(GarbageCollectionCallback(trainer.gc_interval, trainer.gc_interval))
    return callbacks


def _throughput(settings: SftSettings, inputs: TrainingInputs) -> Any:
    from nemo_reasoning.models.flops import step_flops
    from nemo_reasoning.models.sizes import architecture_from_hf, flops_adapter_weights
    from nemo_reasoning.training.callbacks.throughput import ThroughputMonitor

    shape = settings.model.architecture or architecture_from_hf(inputs.tokenizer)
    adapter = flops_adapter_weights(shape, settings.peft)
    return ThroughputMonitor(flops=lambda counts: step_flops(counts, shape=shape, adapter_weights=adapter))


def _samples(chosen: CallbackSettings, inputs: TrainingInputs, *, out: Path, show: Any) -> Any:
    from nemo_reasoning.training.callbacks.generation import GenerationSamples

    formatter = inputs.formatter
    return GenerationSamples(
        prompts=sample_prompts(inputs.data, formatter),
        eos_ids=[formatter.end_of_turn],
        decode=lambda ids: str(formatter.tokenizer.decode(ids)),
        max_new_tokens=chosen.samples_max_new_tokens,
        every_n_steps=chosen.samples_interval,
        path=out / SAMPLES_FILE,
        show=show,
    )


def _quiz(chosen: QuizSettings, paper: "Paper", inputs: TrainingInputs, *, out: Path, show: Any) -> Any:
    from nemo_reasoning.training.callbacks.evaluation import QUIZ_FILE, Quiz

    formatter = inputs.formatter
    return Quiz(
        paper=paper,
        prompts=[_prompt(mode, question, formatter) for mode in _MODES for question in paper.questions],
        eos_ids=[formatter.end_of_turn],
        decode=lambda ids: str(formatter.tokenizer.decode(ids)),
        max_new_tokens=chosen.max_new_tokens,
        every_n_steps=chosen.every_n_steps,
        patience=chosen.patience,
        path=out / QUIZ_FILE,
        show=show,
    )


def _prompt(mode: Mode, question: str, formatter: ChatFormatter) -> SamplePrompt:
    dialogue = [Message("system", system_prompt(mode)), Message("user", question)]
    return SamplePrompt(mode, question, formatter.prompt_ids(dialogue))


def sample_prompts(data: Path, formatter: ChatFormatter) -> list[SamplePrompt]:
    """Return the first question of the validation rows, once in each mode."""
    with (data / SPLITS["validation"]).open(encoding="utf-8") as lines:
        turns = json.loads(next(lines))["messages"]
    question = next(turn["content"] for turn in turns if turn["role"] == "user")
    return [_prompt(mode, question, formatter) for mode in _MODES]
