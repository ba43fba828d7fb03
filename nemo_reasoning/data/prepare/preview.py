"""Show rows as they would be trained on, before anything is written."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.text import Text

from nemo_reasoning.artifacts import page_template, write_text
from nemo_reasoning.data.chat import ChatFormatter
from nemo_reasoning.data.prepare.shards import QUARANTINED, Shard
from nemo_reasoning.data.schemas.mapping import propose_mapping
from nemo_reasoning.errors import harmless


@dataclass(frozen=True)
class Sample:
    """A row as text.

    Attributes:
        subset: Its subset.
        mode: "on" or "off".
        tokens: How many.
        supervised: How many are trained on.
        pieces: Stretches of text, each with whether it is trained on.
        layout: Layouts of its subset, with the columns they are read from.
    """

    subset: str
    mode: str
    tokens: int
    supervised: int
    pieces: list[tuple[str, bool]]
    layout: str = ""


def samples_of(shard: Shard, subset: str, formatter: ChatFormatter) -> Iterator[Sample]:
    """Yield the kept rows of a shard."""
    for number, facts in enumerate(shard.rows):
        row = slice(shard.token_ends[number], shard.token_ends[number + 1])
        ids, mask = shard.tokens[row], shard.loss_mask[row]
        mode = "on" if facts["thinking"] else "off"
        yield Sample(subset, mode, len(ids), int(mask.sum()), _pieces(ids, mask, formatter))


def in_turn(samples: list[Iterator[Sample]], count: int) -> list[Sample]:
    """Return the first samples, the subsets in turn; none if no row is left."""
    return [sample for turn in zip_longest(*samples) for sample in turn if sample is not None][:count]


def why_nothing(shards: Sequence[Shard], rows: Sequence[Mapping[str, Any]]) -> str:
    """Return why there is no row to show: what became of the rows, and which columns may hold what.

    Args:
        shards: What was read.
        rows: Some of the objects in it.
    """
    ends = Counter(shard.names[outcome] for shard in shards for outcome in shard.outcomes.tolist())
    told = ", ".join(f"{count} x {name}" for name, count in ends.most_common(5)) or "there is no row at all"
    details = [f"{found['reason']}: {found['detail']}" for shard in shards for found in shard.quarantine][:1]
    proposal = propose_mapping(rows) if any(name.startswith(f"{QUARANTINED}missing keys") for name in ends) else None
    found = [f"no row to show ({told})", *details]
    if proposal:
        found.append(f"these columns may fit: {proposal}")
    elif not details:
        found.append("see data.filters and seq_length")
    return "; ".join(found)


def _pieces(ids: NDArray[np.int32], mask: NDArray[np.bool_], formatter: ChatFormatter) -> list[tuple[str, bool]]:
    edges = [0, *(np.flatnonzero(np.diff(mask)) + 1).tolist(), len(ids)]
    stretches = zip(edges, edges[1:], strict=False)
    return [(formatter.tokenizer.decode(ids[start:end].tolist()), bool(mask[start])) for start, end in stretches]


def show(samples: list[Sample], console: Console) -> None:
    """Print samples with what is trained on in green."""
    for number, sample in enumerate(samples, start=1):
        title = f"{number}. {sample.subset} ({sample.layout}), thinking {sample.mode}"
        console.rule(Text(f"{title}: {sample.tokens} tokens, {sample.supervised} supervised"), align="left")
        text = Text()
        for content, supervised in sample.pieces:
            text.append(harmless(content), style="black on green" if supervised else "dim")
        console.print(text)


def write_page(samples: list[Sample], path: Path) -> None:
    """Write samples as one HTML page."""
    write_text(path, page_template("nemo_reasoning.data.prepare", "preview.html.jinja").render(samples=samples))
