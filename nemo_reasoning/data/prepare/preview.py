"""Show rows as they would be trained on, before anything is written."""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.text import Text

from nemo_reasoning.artifacts import write_text
from nemo_reasoning.data.chat import ChatFormatter
from nemo_reasoning.data.prepare.report import page_environment
from nemo_reasoning.data.prepare.shards import Shard
from nemo_reasoning.errors import DataError


@dataclass(frozen=True)
class Sample:
    """A row as text.

    Attributes:
        subset: Its subset.
        mode: "on" or "off".
        tokens: How many.
        supervised: How many are trained on.
        pieces: Stretches of text, each with whether it is trained on.
    """

    subset: str
    mode: str
    tokens: int
    supervised: int
    pieces: list[tuple[str, bool]]


def samples_of(shard: Shard, subset: str, formatter: ChatFormatter) -> Iterator[Sample]:
    """Yield the kept rows of a shard."""
    for number, facts in enumerate(shard.rows):
        row = slice(shard.token_ends[number], shard.token_ends[number + 1])
        ids, mask = shard.tokens[row], shard.loss_mask[row]
        mode = "on" if facts["thinking"] else "off"
        yield Sample(subset, mode, len(ids), int(mask.sum()), _pieces(ids, mask, formatter))


def in_turn(samples: list[Iterator[Sample]], count: int) -> list[Sample]:
    """Return the first samples, the subsets in turn.

    Raises:
        DataError: There is none.
    """
    found = [sample for turn in zip_longest(*samples) for sample in turn if sample is not None][:count]
    if not found:
        raise DataError("no row to show is left after the filters; see data.filters and seq_length")
    return found


def _pieces(ids: NDArray[np.int32], mask: NDArray[np.bool_], formatter: ChatFormatter) -> list[tuple[str, bool]]:
    edges = [0, *(np.flatnonzero(np.diff(mask)) + 1).tolist(), len(ids)]
    stretches = zip(edges, edges[1:], strict=False)
    return [(formatter.tokenizer.decode(ids[start:end].tolist()), bool(mask[start])) for start, end in stretches]


def show(samples: list[Sample], console: Console) -> None:
    """Print samples with what is trained on in green."""
    for number, sample in enumerate(samples, start=1):
        title = f"{number}. {sample.subset}, thinking {sample.mode}"
        console.rule(f"{title}: {sample.tokens} tokens, {sample.supervised} supervised", align="left")
        text = Text()
        for content, supervised in sample.pieces:
            text.append(content, style="black on green" if supervised else "dim")
        console.print(text)


def write_page(samples: list[Sample], path: Path) -> None:
    """Write samples as one HTML page."""
    write_text(path, page_environment().get_template("preview.html.jinja").render(samples=samples))
