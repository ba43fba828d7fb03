"""Settings of conf/data, which every recipe that needs rows shares, and of recipes/prepare_data.py."""

import math
from dataclasses import dataclass
from enum import Enum

from nemo_reasoning.config import checks
from nemo_reasoning.config.model import ModelSettings

ALIASES = {"coding": "code"}
BYTES_PER_TOKEN = 4  # of English prose, roughly


class DataSource(Enum):
    """Where the rows come from."""

    builtin = "builtin"
    jsonl = "jsonl"
    nemotron = "nemotron"


class RowSampling(Enum):
    """Which rows are taken when fewer are wanted than there are."""

    block = "block"
    reservoir = "reservoir"
    head = "head"


class DamagedFiles(Enum):
    """What a file that is cut or cannot be unpacked does."""

    stop = "stop"
    keep = "keep"


class Order(Enum):
    """How the prepared rows follow each other."""

    shuffle = "shuffle"
    curriculum = "curriculum"


class Executor(Enum):
    """What runs the workers."""

    local = "local"
    ray = "ray"


@dataclass
class FilterSettings:
    """conf/data: filters. A value of false, null or [] turns one off."""

    empty_think: bool
    unclosed_think: bool
    think_in_off_row: bool
    no_think_in_on_row: bool
    missing_box: bool
    used_in_training: str | None
    languages: list[str]
    language_confidence: float
    licenses: list[str]
    generators: list[str]
    max_tokens: int | None
    max_completion_tokens: int | None
    exact_duplicates: bool
    near_duplicates: float | None
    overlap_files: list[str]
    overlap_words: int


@dataclass
class ColumnSettings:
    """conf/data: columns. Names of the columns of your rows, and of the keys of their turns; columns to leave out."""

    question: str | None
    answer: str | None
    trace: str | None
    system: str | None
    turns: str | None
    role: str | None
    content: str | None
    weight: str | None
    ignore: list[str]


@dataclass
class DataSettings:
    """conf/data."""

    source: DataSource
    paths: list[str]
    rows: int | None
    root: str | None
    revision: str | None
    layout: dict[str, list[str]]
    subsets: dict[str, int | None]
    mix: dict[str, float]
    bytes_per_row: int | None
    columns: ColumnSettings
    sampling: RowSampling
    block_kb: int
    shard_mb: int
    filters: FilterSettings
    thinking_off_share: float
    validation_share: float
    max_quarantined_share: float
    damaged_files: DamagedFiles
    order: Order
    messages: bool
    fast_tokenizer: bool
    engine: Executor
    workers: int | None
    seed: int

    @property
    def wanted_rows(self) -> dict[str, int | None]:
        """Rows of each subset: as listed, or as the weights of a mix share them; None is all there are."""
        if self.mix:
            total, rows = sum(self.mix.values()), self.rows or 0
            return {name: max(1, round(rows * weight / total)) for name, weight in self.mix.items() if weight}
        return {ALIASES.get(name, name): rows for name, rows in self.subsets.items()}

    @property
    def tokens_per_row(self) -> int | None:
        """Tokens of an average row of a published set, None of what nobody has measured."""
        return None if self.bytes_per_row is None else self.bytes_per_row // BYTES_PER_TOKEN

    def forecast(self) -> str | None:
        """Say what reading from a hub will take, before filters; None for files of one's own and built-in problems."""
        if self.source is not DataSource.nemotron:
            return None
        wanted = self.wanted_rows
        listed = ", ".join(f"{name} {'all' if rows is None else f'{rows:,}'}" for name, rows in wanted.items())
        modes = f"{self.thinking_off_share:.0%} of the thinking rows will answer without thinking, besides rows that do"
        if None in wanted.values() or self.bytes_per_row is None:
            return f"rows: {listed}; how many bytes they take is known once the first are read; {modes}"
        rows = sum(filter(None, wanted.values()))
        size = rows * self.bytes_per_row
        tokens = size / BYTES_PER_TOKEN
        return (
            f"rows: {rows:,} ({listed}), streaming about {size / 1e9:.2g} GB and training on about {tokens / 1e6:,.0f} "
            f"million tokens, before filters and at the average row; {modes}"
        )

    def problems(self) -> list[str]:
        """Return what cannot be prepared, each with its remedy."""
        filters = self.filters
        counted = ("rows", "workers", "block_kb", "shard_mb")
        limits = ("max_tokens", "max_completion_tokens", "overlap_words")
        above = {
            **{f"data.{name}": getattr(self, name) for name in counted},
            **{f"data.filters.{name}": getattr(filters, name) for name in limits},
            **{f"data.subsets.{name}": rows for name, rows in self.subsets.items()},
        }
        shares = {
            "data.thinking_off_share": self.thinking_off_share,
            "data.max_quarantined_share": self.max_quarantined_share,
            "data.filters.language_confidence": filters.language_confidence,
            "data.filters.near_duplicates": filters.near_duplicates,
        }
        found = [*checks.positive(above), *checks.shares(shares)]
        if filters.near_duplicates == 0:
            found.append("data.filters.near_duplicates=0: would call all rows alike; null turns the filter off")
        if not 0 < self.validation_share < 1:  # neither split may be empty
            found.append(f"data.validation_share={self.validation_share}: must be above 0, and below 1")
        for name in {*self.layout, *self.subsets, *self.mix}:  # of files too
            if "/" in name or name.startswith("."):
                found.append(f"data.layout, subsets or mix has the name {name}: no slash, and no dot at its beginning")
        return found + self._source_problems()

    def _source_problems(self) -> list[str]:
        if self.source is DataSource.builtin and self.rows is None:
            return ["data.rows=null: the built-in problems never end; give a number of rows"]
        if self.source is DataSource.jsonl and not self.paths:
            return ["data.paths=[]: name at least one file, as in data.paths=[rows.jsonl]"]
        if self.source is DataSource.nemotron and not self.subsets and not self.mix:
            return ["data.subsets={}: name at least one, as in data.subsets={math: 1000}"]
        return self._mix_problems() if self.mix else []

    def _mix_problems(self) -> list[str]:
        if self.source is not DataSource.nemotron:
            return [f"data.mix={self.mix} names subsets; choose data=mix, or data=nemotron"]
        if self.rows is None:
            return ["data.mix without data.rows: say how many rows there are to be in all"]
        told = "a weight is a share of the rows, a number of 0 or above; their sum need not be 1"
        wrong = {name: weight for name, weight in self.mix.items() if not 0 <= weight < math.inf}
        found = [f"data.mix.{name}={weight}: {told}" for name, weight in wrong.items()]
        if not found and not any(self.mix.values()):
            found.append(f"data.mix={self.mix}: no weight is above 0; {told}")
        if unknown := sorted(set(self.mix) - set(self.layout)):
            found.append(f"data.mix names {', '.join(unknown)}; data.layout has {', '.join(sorted(self.layout))}")
        return found


@dataclass
class PrepareSettings:
    """conf/prepare_data.yaml."""

    output_dir: str
    cache_dir: str
    seq_length: int
    preview: int
    model: ModelSettings
    data: DataSettings


def validate(settings: PrepareSettings) -> None:
    """Refuse settings that cannot prepare data.

    Raises:
        ConfigError: Lists every problem found, each with its remedy.
    """
    checks.refuse(
        [
            *checks.positive({"seq_length": settings.seq_length}),
            *checks.not_negative({"preview": settings.preview}),
            *settings.data.problems(),
        ]
    )
