"""Typed settings of conf/data, which every recipe that needs rows shares."""

from dataclasses import dataclass
from enum import Enum


class DataSource(Enum):
    """Where the rows come from."""

    builtin = "builtin"
    jsonl = "jsonl"
    nemotron = "nemotron"


class Sampling(Enum):
    """Which rows are taken when fewer are wanted than there are."""

    block = "block"
    reservoir = "reservoir"
    head = "head"


class Order(Enum):
    """How the prepared rows follow each other."""

    shuffle = "shuffle"
    curriculum = "curriculum"


class Engine(Enum):
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
class DataSettings:
    """conf/data."""

    source: DataSource
    paths: list[str]
    rows: int | None
    root: str | None
    revision: str | None
    layout: dict[str, list[str]]
    subsets: dict[str, int | None]
    sampling: Sampling
    block_kb: int
    shard_mb: int
    filters: FilterSettings
    thinking_off_share: float
    validation_share: float
    max_quarantined_share: float
    order: Order
    packing_window: int
    messages: bool
    fast_tokenizer: bool
    engine: Engine
    workers: int | None
    seed: int
