"""What recipes/self_improve.py does: sample, keep what is right and short, train on, measure; round after round."""

import json
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console

from nemo_reasoning.artifacts import fingerprint, write_text
from nemo_reasoning.config import settings_to_dict
from nemo_reasoning.config.checks import refuse
from nemo_reasoning.config.evaluate import ProtocolName, ProtocolSettings
from nemo_reasoning.config.self_improve import SelfImproveSettings
from nemo_reasoning.config.train import SftSettings
from nemo_reasoning.errors import DataError
from nemo_reasoning.evaluation.evaluate import opened_once
from nemo_reasoning.evaluation.report.training import MODES
from nemo_reasoning.evaluation.runner import SampleRequest, collect_samples
from nemo_reasoning.evaluation.samples import Evaluation
from nemo_reasoning.improvement.problems import Problems, load_problems
from nemo_reasoning.improvement.report import Round, round_table, write_rounds
from nemo_reasoning.improvement.selection import answers, pairs
from nemo_reasoning.inference.engine import Engine
from nemo_reasoning.reasoning.sampling import Sampling
from nemo_reasoning.terminal import plain_console, quiet_output
from nemo_reasoning.training.checkpoints import content_id
from nemo_reasoning.training.dry_run import print_memory
from nemo_reasoning.training.folder_lock import FolderLock
from nemo_reasoning.training.memory.planner import fit_to_memory
from nemo_reasoning.training.run_dir import Run

_GREEDY = Sampling()


@dataclass(frozen=True)
class _Asker:
    """A trained model, and how it is asked.

    Attributes:
        settings: Of the command.
        run: The model's.
        engine: Opens it.
        console: Where progress goes.
    """

    settings: SelfImproveSettings
    run: Run
    engine: Callable[[], Engine]
    console: Console

    def answers(
        self,
        what: str,
        requests: Sequence[SampleRequest],
        *,
        log: Path,
        sampling: Sampling,
        seed: int,
        problems: Problems,
    ) -> Evaluation:
        """Return the answers to all requests; those that a log holds already are not asked for again."""
        tokens = self.settings.max_new_tokens
        protocol = ProtocolSettings(ProtocolName.ours, tokens, thinking_on=sampling, thinking_off=_GREEDY)
        step = max(1, len(requests) // 10)

        def told(done: int) -> None:
            if done % step == 0 or done == len(requests):
                self.console.print(f"{what}: {done} of {len(requests)} answers")

        identity = {
            "model": content_id(self.run.selected()[0]),
            "template": fingerprint(self.run.template),
            "protocol": settings_to_dict(protocol),
            "seed": seed,
            "questions": problems.identity,
        }
        return collect_samples(
            self.engine, requests, protocol=protocol, seed=seed, log=log, identity=identity, progress=told
        )


def self_improve(settings: SelfImproveSettings) -> Path:
    """Sample, select, train and measure for `rounds` rounds; run it again to go on, or to add rounds.

    Args:
        settings: Validated.

    Returns:
        The folder of the last round's run.

    Raises:
        ConfigError: The checkpoint is of another model than the settings train.
        DataError: There are too few problems, or no right answer to learn from.
        Stopped: A signal ended the training of a round; the user has been told.
    """
    run, out = Run.open(Path(settings.checkpoint)), Path(settings.output_dir)
    refuse(_differences(run.settings, settings))
    problems = load_problems(settings.problems, seed=settings.data.seed)
    console = plain_console(soft_wrap=True)
    with FolderLock(out).held():
        done, last = _rounds(settings, run, problems, out)
    console.print(round_table(done))
    console.print(f"report: {out / 'report.html'}\ncheckpoint: {last.path}")
    return last.path


def _rounds(settings: SelfImproveSettings, run: Run, problems: Problems, out: Path) -> tuple[list[Round], Run]:
    """Do all rounds, and return them with the run of the last one."""
    from nemo_reasoning.pipeline import fine_tune

    done, counts = list[Round](), dict[str, int]()
    for number in range(settings.rounds + 1):
        with _asking(run, settings, out) as asker:
            done.append(Round(number=number, evaluation=_measured(asker, problems, number=number), counts=counts))
            asker.console.print(f"round {number}: {done[-1].in_words()}")
            write_rounds(done, out)
            if number < settings.rounds:
                counts = _write_rows(asker, problems, number=number + 1)
        if number < settings.rounds:
            base = str(run.merged_base) if run.settings.peft.merges_start else None
            stage = fit_to_memory(settings.training(number + 1, start=str(run.path), base=base))
            run = Run.open(fine_tune(stage, started=time.monotonic()))
    return done, run


def _differences(before: SftSettings, now: SelfImproveSettings) -> list[str]:
    """Return where the checkpoint is of another model than the settings name."""
    pairs = {
        f"model.{name}": (getattr(before.model, name), getattr(now.model, name))
        for name in ("source", "revision", "template")
    }
    return [
        f"{name}={given}, but {now.checkpoint} was trained with {was}; choose its model, with model= as then"
        for name, (was, given) in pairs.items()
        if was != given
    ]


@contextmanager
def _asking(run: Run, settings: SelfImproveSettings, out: Path) -> Iterator[_Asker]:
    """Yield what asks the model of a run, which is loaded on first use and gone from memory afterwards."""
    from nemo_reasoning.inference.checkpoints import resolve_checkpoint
    from nemo_reasoning.inference.load import load_engine

    def load() -> Engine:
        files = resolve_checkpoint(str(run.path), cache_dir=Path(settings.cache_dir).expanduser())
        return load_engine(settings.engine, files.with_template(settings.model.template))

    with quiet_output(out / "log.txt") as terminal:
        console = plain_console(file=terminal, soft_wrap=not terminal.isatty())
        with opened_once(load) as engine:
            yield _Asker(settings, run, engine, console)


def _measured(asker: _Asker, problems: Problems, *, number: int) -> Evaluation:
    """Return what the model of a round answers to problems that no round asks, the likeliest token each time."""
    requests = problems.requests(problems.held_out, modes=MODES, budget=asker.settings.budget, samples=1)
    log = asker.settings.folder(number) / "held_out.jsonl"
    what = f"round {number}, held-out problems"
    return asker.answers(what, requests, log=log, sampling=_GREEDY, seed=0, problems=problems)


def _write_rows(asker: _Asker, problems: Problems, *, number: int) -> dict[str, int]:
    """Write what a round trains on, right answers or pairs, and return what became of all that were sampled.

    Raises:
        DataError: No answer is right.
    """
    settings, path = asker.settings, asker.settings.rows(number)
    seed = settings.data.seed + number
    requests = problems.requests(
        problems.of_round(number), modes=("on",), budget=settings.budget, samples=settings.samples
    )
    log = path.with_name("samples.jsonl")
    what = f"round {number}"
    found = asker.answers(what, requests, log=log, sampling=settings.sampling, seed=seed, problems=problems)
    choose = pairs if settings.loss.pairs else answers
    rows, outcomes = choose(found.samples, keep=settings.keep, drop_longest=settings.drop_longest)
    counts = ", ".join(f"{count} {name}" for name, count in outcomes.items())
    asker.console.print(f"round {number}: {counts}")
    if not rows:
        raise DataError(
            f"round {number} has nothing to learn from ({counts}; the answers lie in {log}); start from a better "
            "checkpoint, ask other problems, or raise samples or max_new_tokens"
        )
    origin = {"generator": f"{asker.run.path.name}, {asker.run.selected()[1]}", "seed": seed}
    write_text(path, "".join(json.dumps(row | origin, ensure_ascii=False) + "\n" for row in rows))
    return outcomes


def print_rounds(settings: SelfImproveSettings) -> None:
    """Print what the rounds would do, and the memory that a training of theirs needs."""
    asked, problems = settings.training(1, start=settings.checkpoint), settings.problems
    kept = problems.count * settings.keep
    print(
        f"{settings.rounds} rounds from {settings.checkpoint}: each samples {settings.samples} answers to "
        f"{problems.count} problems and trains on at most {kept} of them; {problems.held_out} other problems are "
        f"measured before and after each -> {settings.output_dir}"
    )
    print_memory(fit_to_memory(asked), asked=asked)
