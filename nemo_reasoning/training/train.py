"""Train with `nemo.collections.llm.finetune`; the same call again goes on where the last one stopped."""

import time
from collections.abc import Mapping
from contextlib import AbstractContextManager, closing, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

from rich.console import Console

from nemo_reasoning.artifacts import fingerprint
from nemo_reasoning.backend.patching import applied
from nemo_reasoning.backend.runtime import Backend, backend, detect, without_leftovers
from nemo_reasoning.config.train import SftSettings, backend_in_use
from nemo_reasoning.data.chat import ChatFormatter
from nemo_reasoning.data.store import TokenStore
from nemo_reasoning.errors import ConfigError
from nemo_reasoning.models.hub import weights_fingerprint
from nemo_reasoning.peft.nf4 import nf4_base
from nemo_reasoning.peft.qlora import nf4_linears
from nemo_reasoning.terminal import plain_console
from nemo_reasoning.training.batching import total_steps
from nemo_reasoning.training.checkpoint_store import CheckpointStore
from nemo_reasoning.training.checkpoints import Checkpoint
from nemo_reasoning.training.failures import translated_errors
from nemo_reasoning.training.heartbeat import Heartbeat
from nemo_reasoning.training.identity import Identity, rows_fingerprint
from nemo_reasoning.training.loggers import ID_FILE, build_loggers
from nemo_reasoning.training.optimizers import optimizer_in_use
from nemo_reasoning.training.process import OWN_STOPS, StopSignals, first_process, switched
from nemo_reasoning.training.run_dir import Run
from nemo_reasoning.training.usage import Usage

if TYPE_CHECKING:
    import torch

    from nemo_reasoning.training.batching import BatchPlan
    from nemo_reasoning.training.callbacks.base import Batches, Callback, Questions, RunContext


@dataclass(frozen=True, kw_only=True)
class TrainingInputs:
    """What a run starts from.

    Attributes:
        base: NeMo checkpoint of the base model; None for random weights.
        tokenizer: Hugging Face directory with the tokenizer.
        formatter: What the rows were formatted with.
        data: Prepared rows.
        start: (linear_in, linear_out) of each adapted linear to begin with; None for a fresh adapter.
        chain: What `Identity.start` records.
    """

    base: Path | None
    tokenizer: Path
    formatter: ChatFormatter
    data: Path
    start: "Mapping[str, tuple[torch.Tensor, torch.Tensor]] | None" = None
    chain: list[dict[str, str]] | None = None


@dataclass(frozen=True)
class _Job:
    """A start of a run."""

    run: Run
    inputs: TrainingInputs
    checkpoint: Checkpoint | None
    console: Console
    questions: "Questions | None"
    signals: StopSignals
    usage: Usage
    afterwards: float


def train(
    run: Run,
    inputs: TrainingInputs,
    *,
    stream: TextIO,
    questions: "Questions | None" = None,
    signals: StopSignals | None = None,
    usage: Usage | None = None,
    afterwards: float = 0.0,
) -> None:
    """Train until the last step; leaves checkpoints, metrics.jsonl and samples.jsonl in the run's folder.

    Args:
        run: The run, started with validated settings.
        inputs: Model and data.
        stream: Where progress is shown.
        questions: Asked while training; needed with `callbacks.eval`.
        signals: What a command listens to; None to listen for the length of the training.
        usage: When the command began, from which time limits count; None for now.
        afterwards: Seconds that the command is expected to need after training, which `trainer.hours` leaves.

    Raises:
        BackendError: The machine cannot run what was asked.
        CheckpointError: The folder holds checkpoints that were made from other inputs, or none that is intact.
        Stopped: A signal or a time limit ended the run; its last checkpoint is saved.
    """
    identity = identity_of(inputs)
    listening = StopSignals() if signals is None else nullcontext(signals)
    with run.locked() if first_process() else nullcontext(), listening as heard:
        console = plain_console(file=stream, soft_wrap=not stream.isatty())
        checkpoint = _starting_checkpoint(run, identity, console)
        if checkpoint is not None and _finished(run, checkpoint, inputs, console):
            if first_process():  # a kill may have come between the last save and this
                CheckpointStore(run.path).retain(run.settings.trainer.keep_checkpoints)
            return
        usage = usage or Usage(run, began=time.monotonic())
        job = _Job(run, inputs, checkpoint, console, questions, heard, usage, afterwards)
        with heard.deferred():
            _train(job)


def _starting_checkpoint(run: Run, identity: Identity, console: Console) -> Checkpoint | None:
    """Return where to go on, the same in every process; the first one puts the folder in order and says so."""
    store = CheckpointStore(run.path, made_from=run.made_from(identity))
    if not first_process():
        return None if run.settings.restart else store.intact()
    if run.settings.restart:
        store.restart()
        (run.path / ID_FILE).unlink(missing_ok=True)  # metrics begin anew too
    run.claim(identity)
    checkpoint, notes = store.recover()
    for note in notes:
        console.print(note)
    return checkpoint


def _finished(run: Run, checkpoint: Checkpoint, inputs: TrainingInputs, console: Console) -> bool:
    """Whether all steps of a run are done; says so.

    Raises:
        ConfigError: More steps are done than are asked for.
    """
    steps = _asked_steps(run, inputs, checkpoint)
    if steps is None:
        return False
    if checkpoint.step > steps:
        raise ConfigError(
            f"{run.path} has done {checkpoint.step} steps already, and {steps} are asked for; ask for more with "
            "trainer.max_steps= or trainer.epochs=, or choose another name="
        )
    if checkpoint.step == steps:
        more = "raise trainer.max_steps or trainer.epochs"
        if run.settings.trainer.hours is not None:
            more = "set trainer.hours=null and trainer.max_steps"
        console.print(f"all {steps} steps are done; to train on, {more}")
    return checkpoint.step == steps


def _asked_steps(run: Run, inputs: TrainingInputs, checkpoint: Checkpoint) -> int | None:
    """Return the steps of the whole run; None where `trainer.hours` has not fixed them yet.

    Its record may have been cut short, so that more steps are done than it knows of.
    """
    trainer, size = run.settings.trainer, run.settings.trainer.global_batch_size
    if trainer.hours is not None:
        fixed = [length["steps"] for length in run.history.lengths if length.get("fixed")]
        return max(fixed[-1], checkpoint.step) if fixed else None
    rows = len(TokenStore.open(inputs.data / "train")) // run.settings.loss.rows_each
    return trainer.max_steps or total_steps(epochs=trainer.epochs, rows=rows, global_batch_size=size)


def _train(job: _Job) -> None:
    settings = job.run.settings
    with (
        backend(**vars(backend_in_use(settings))) as active,
        _quantized(settings),
        switched(settings.trainer),
        optimizer_in_use(settings.optim.kind, distributed=settings.trainer.distributed_optimizer),
        without_leftovers(),
    ):
        _finetune(job, active)


def identity_of(inputs: TrainingInputs) -> Identity:
    """Return what a run with these inputs is made of."""
    return Identity(
        rows=rows_fingerprint(inputs.data),
        template=inputs.formatter.template,
        tokenizer=fingerprint(inputs.formatter.tokenizer.backend_tokenizer.to_str()),
        base=None if inputs.base is None else weights_fingerprint(inputs.tokenizer),
        start=inputs.chain or [],
    )


def _quantized(settings: SftSettings) -> AbstractContextManager[None]:
    """Return what makes NeMo build the base in NF4 where a run wants that, with the best attention there is."""
    base, found = nf4_base(settings), detect()
    if base is None:
        return nullcontext()
    on_gpu = found.cuda and backend_in_use(settings).cuda is not False
    te_attention = on_gpu and found.transformer_engine and settings.backend.transformer_engine is not False
    return nf4_linears(targets=base.targets, te_attention=te_attention)


def _finetune(job: _Job, active: Backend) -> None:
    from nemo.collections import llm
    from nemo.lightning import teardown

    from nemo_reasoning.training import nemo_objects
    from nemo_reasoning.training.lightning_hooks import LightningHooks

    run, settings, inputs = job.run, job.run.settings, job.inputs
    data = nemo_objects.build_data(settings, inputs.data, pad_id=inputs.formatter.end_of_turn)
    model = nemo_objects.build_model(settings, base=inputs.base, tokenizer=inputs.tokenizer)
    max_steps = (job.checkpoint and _asked_steps(run, inputs, job.checkpoint)) or data.max_steps
    trainer = nemo_objects.build_trainer(settings.trainer, backend=active, max_steps=max_steps)
    context = _context(job, data, first_rank=trainer.is_global_zero)
    callbacks = build_callbacks(context)
    hooks = LightningHooks(
        trainer,
        callbacks,
        validation=data.plans["validation"],
        eval_interval=settings.trainer.eval_interval,
        validated=[event["step"] for event in run.history.events() if event["event"] == "validation"],
    )
    trainer.callbacks.insert(0, hooks)
    told = translated_errors(
        run, batch=lambda: _batch(data.plans["train"], hooks.loop.step), heartbeat=context.heartbeat
    )
    with closing(hooks), told, applied(OWN_STOPS), nemo_objects.base_kept(inputs.base):
        nemo_objects.load_from(trainer, base=inputs.base, checkpoint=job.checkpoint)
        llm.finetune(
            model=model,
            data=data,
            trainer=trainer,
            log=nemo_objects.build_log(run.path),
            optim=nemo_objects.build_optimizer(
                settings.optim,
                precision=settings.trainer.precision,
                max_steps=max_steps,
                distributed=settings.trainer.distributed_optimizer,
            ),
            peft=nemo_objects.build_peft(settings.peft, seed=settings.trainer.seed, start=inputs.start),
            tokenizer="model",
        )
    teardown(trainer, model)


def _batch(plan: "BatchPlan", step: int) -> str:
    return f"step {step + 1}, {plan.describe_rows(step)}"


def _context(job: _Job, batches: "Batches", *, first_rank: bool) -> "RunContext":
    from nemo_reasoning.training.callbacks.base import RunContext

    settings = job.run.settings
    timeout = settings.trainer.peer_timeout
    return RunContext(
        run=job.run,
        inputs=job.inputs,
        batches=batches,
        console=job.console,
        show=job.console.print if first_rank else lambda line: None,
        loggers=build_loggers(
            backend=settings.logger.backend,
            folder=job.run.path,
            run_name=settings.name,
            project=settings.logger.project,
            show=job.console.print,
        ),
        questions=job.questions,
        usage=job.usage,
        afterwards=job.afterwards,
        stop_signal=lambda: job.signals.received,
        heartbeat=None if timeout is None else Heartbeat(silence=timeout),
    )


def build_callbacks(context: "RunContext") -> "list[Callback]":
    """Return the callbacks that a run's settings ask for; each has its place in the order from its `position`."""
    from nemo_reasoning.training.callbacks.checkpointing import Checkpointing
    from nemo_reasoning.training.callbacks.evaluation import InTrainingEvaluation
    from nemo_reasoning.training.callbacks.generation import GenerationSamples
    from nemo_reasoning.training.callbacks.losses import InputGradients, NonFiniteSteps, SupervisedLoss
    from nemo_reasoning.training.callbacks.memory import GarbageCollection, MemoryFraction, MemoryMonitor
    from nemo_reasoning.training.callbacks.metrics import MetricsRecorder
    from nemo_reasoning.training.callbacks.nf4_digests import Nf4Digests
    from nemo_reasoning.training.callbacks.peers import Peers
    from nemo_reasoning.training.callbacks.preferences import PreferenceLoss
    from nemo_reasoning.training.callbacks.progress import ProgressDisplay
    from nemo_reasoning.training.callbacks.seeding import RunLength, StepSeed
    from nemo_reasoning.training.callbacks.throughput import ThroughputMonitor
    from nemo_reasoning.training.callbacks.time_budget import TimeBudget
    from nemo_reasoning.training.callbacks.usage import UsageRecorder

    kinds: list[type[Callback]] = [
        *(Peers, MemoryFraction, GarbageCollection, Nf4Digests, StepSeed, RunLength, SupervisedLoss, PreferenceLoss),
        *(InputGradients, NonFiniteSteps, MemoryMonitor, ThroughputMonitor, MetricsRecorder, UsageRecorder),
        *(ProgressDisplay, Checkpointing, TimeBudget, GenerationSamples, InTrainingEvaluation),
    ]
    return [callback for kind in kinds if (callback := kind.from_run(context)) is not None]
