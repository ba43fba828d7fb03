"""Settings of recipes/self_improve.py: those of the training of a round, and how its rows come to be."""

from dataclasses import dataclass, replace
from pathlib import Path

from nemo_reasoning.config import checks
from nemo_reasoning.config.adapter import is_run
from nemo_reasoning.config.data import DataSource
from nemo_reasoning.config.evaluate import BenchmarkLayout
from nemo_reasoning.config.inference import EngineSettings
from nemo_reasoning.config.train import SftSettings
from nemo_reasoning.config.train import problems as training_problems
from nemo_reasoning.reasoning.sampling import Sampling

_VALIDATED = 5  # problems of a round, of which not all may be solved
_LAYOUTS = (BenchmarkLayout.builtin, BenchmarkLayout.jsonl, BenchmarkLayout.gsm8k, BenchmarkLayout.math)


@dataclass
class ProblemSettings:
    """`problems` of conf/self_improve.yaml."""

    layout: BenchmarkLayout
    source: str | None
    revision: str | None
    files: list[str]
    prompt: str
    count: int
    held_out: int

    def problems(self) -> list[str]:
        """Return what cannot be read or asked, each with its remedy."""
        found = checks.positive({f"problems.{name}": getattr(self, name) for name in ("count", "held_out")})
        if self.layout not in _LAYOUTS:
            names = ", ".join(layout.value for layout in _LAYOUTS)
            found.append(f"problems.layout={self.layout.value}: choose one of {names}; a choice can be guessed")
        if (self.source is None) != (self.layout is BenchmarkLayout.builtin):
            found.append(
                f"problems.layout={self.layout.value} with problems.source={self.source}: built-in problems have no "
                "source, all others need one, and problems.layout=jsonl, gsm8k or math"
            )
        return found


@dataclass
class SelfImproveSettings(SftSettings):
    """conf/self_improve.yaml."""

    checkpoint: str
    rounds: int
    problems: ProblemSettings
    samples: int
    budget: int | None
    max_new_tokens: int
    sampling: Sampling
    keep: int
    drop_longest: float
    engine: EngineSettings

    def folder(self, number: int) -> Path:
        """Return where a round keeps what is its own; of round 0 the measurement of the start."""
        return Path(self.output_dir) / f"round-{number}"

    def rows(self, number: int) -> Path:
        """Return the file of what a round trains on."""
        return self.folder(number) / "rows.jsonl"

    def training(self, number: int, *, start: str | None, base: str | None = None) -> SftSettings:
        """Return the settings of the training of a round, which are those of a run like any other.

        Args:
            number: Of the round, counted from 1.
            start: Run whose adapter it begins with; None where that is not known yet.
            base: Directory of the model under that adapter; None for the one the settings name.
        """
        own = {name: getattr(self, name) for name in SftSettings.__dataclass_fields__}
        stage = replace(
            SftSettings(**own),
            name=f"{self.name}-{number}",
            output_dir=str(self.folder(number) / "run"),
            dry_run=False,
            peft=replace(self.peft, start_from=start),
            data=replace(
                self.data,
                source=DataSource.jsonl,
                paths=[str(self.rows(number))],
                rows=None,
                root=None,
                revision=None,
                layout={},
                subsets={},
                mix={},
            ),
        )
        return stage if base is None else replace(stage, model=replace(self.model, source=base, revision=None))


def validate(settings: SelfImproveSettings) -> None:
    """Refuse rounds that cannot run.

    Raises:
        ConfigError: Lists every problem found, each with its remedy.
    """
    start = settings.checkpoint if is_run(settings.checkpoint) else None
    checks.refuse([*_own_problems(settings), *training_problems(settings.training(1, start=start))])


def _own_problems(settings: SelfImproveSettings) -> list[str]:
    above = ("rounds", "samples", "max_new_tokens", "keep")
    found = checks.positive({name: getattr(settings, name) for name in above})
    found += [
        *checks.below_one({"drop_longest": settings.drop_longest}),
        *checks.not_negative({"budget": settings.budget}),
    ]
    found += [f"sampling.{problem}" for problem in settings.sampling.problems()]
    found += [*settings.problems.problems(), *settings.engine.problems()]
    if settings.samples > 1 and settings.sampling.temperature == 0:
        found.append(f"samples={settings.samples}: with temperature 0 all are equal; raise sampling.temperature")
    if not is_run(settings.checkpoint):
        found.append(
            f"checkpoint={settings.checkpoint} is no run; give the folder that recipes/sft_lora.py wrote, such as "
            "outputs/demo"
        )
    count, share = settings.problems.count, settings.data.validation_share
    if count * share < _VALIDATED:
        found.append(
            f"problems.count={count} with data.validation_share={share}: fewer than {_VALIDATED} problems to validate "
            "on; raise one of them"
        )
    trainer = settings.trainer
    if trainer.devices * trainer.num_nodes > 1:
        found.append(
            f"trainer.devices={trainer.devices}, trainer.num_nodes={trainer.num_nodes}: rounds sample and train in one "
            "process; set both to 1, or train the rows of a round with recipes/sft_lora.py and peft.start_from="
        )
    if settings.launch.starts_elsewhere:
        found.append(f"launch={settings.launch.kind.value}: rounds run where they are started; leave launch out")
    if settings.restart:
        found.append("restart=True: set false, and delete the folder of a round to do it again")
    if settings.evaluate:
        found.append(f"evaluate={settings.evaluate}: set 0: every round is measured on problems.held_out")
    return found
