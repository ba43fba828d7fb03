"""Decide which rows of the shards are kept, taking shards in a fixed order."""

import json
import math
import pickle
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any, TextIO

import numpy as np
from numpy.typing import NDArray

from nemo_reasoning.config.data import DataSettings, RowSampling
from nemo_reasoning.data.prepare.dedup import NearlySeen, Seen
from nemo_reasoning.data.prepare.external import ArrayFile
from nemo_reasoning.data.prepare.inputs import Subset
from nemo_reasoning.data.prepare.shards import KEPT, MODES, QUARANTINED, ROW, Shard
from nemo_reasoning.data.prepare.units import Unit
from nemo_reasoning.data.prepare.worker import SIGNATURES
from nemo_reasoning.data.schemas.dialogue import fraction
from nemo_reasoning.errors import DataError
from nemo_reasoning.reasoning.messages import Mode

EXACT, NEAR = "exact_duplicates", "near_duplicates"
_EARLIEST_COMPLAINT = 10_000  # rows
_SECONDS_OF_SILENCE = 15


# Of a kept row: the facts of its shard, that shard's place among `Selection.shards`, its place there, and its tokens.
TAKEN = np.dtype([*ROW.descr, ("shard", "i4"), ("index", "i4"), ("length", "i4")])


@dataclass
class _Progress:
    """A subset on its way."""

    subset: Subset
    units: Iterator[Unit]
    lines: dict[str, int] = field(default_factory=Counter)
    outcomes: Counter[str] = field(default_factory=Counter)
    by_mode: Counter[tuple[Mode | None, str]] = field(default_factory=Counter)
    unknown: Counter[str] = field(default_factory=Counter)
    unused_answers: int = 0
    example: str = ""
    units_taken: int = 0
    exhausted: bool = False

    def count(self, names: list[str], outcomes: NDArray[Any], modes: NDArray[np.uint8]) -> None:
        """Count what became of rows."""
        pairs, counts = np.unique(outcomes.astype(np.int64) * len(MODES) + modes, return_counts=True)
        for pair, count in zip(pairs.tolist(), counts.tolist(), strict=True):
            name, mode = names[pair // len(MODES)], MODES[pair % len(MODES)]
            self.outcomes[name] += count
            self.by_mode[(mode, name)] += count

    @property
    def missing(self) -> float:
        wanted = math.inf if self.subset.rows is None else self.subset.rows
        return wanted - self.outcomes[KEPT]

    def next_units(self) -> list[Unit]:
        """Return about as many units as the missing rows need, judging by those taken."""
        if self.exhausted or self.missing <= 0:
            return []
        count = None
        if self.subset.rows is not None:
            count = 1
            if self.outcomes[KEPT]:
                count = math.ceil(self.missing * self.units_taken / self.outcomes[KEPT])
            elif self.units_taken:
                count = self.units_taken
        units = list(islice(self.units, count))
        self.exhausted = count is None or len(units) < count
        return units


class Selection:
    """Takes rows until every subset has as many as it wants.

    Attributes:
        taken: Kept rows, of dtype TAKEN, in the order they were taken.
        shards: Subset and folder of each shard with kept rows.
        licenses: Kept rows of each licence, by subset.
        encoded_again: Rows tokenised by the reference because an audit of the fast path failed.
    """

    def __init__(
        self,
        data: DataSettings,
        *,
        quarantine: TextIO,
        origins: dict[str, str],
        scratch: Path,
        tell: Callable[[str], None],
    ) -> None:
        """Take the settings.

        Args:
            data: Settings of conf/data.
            quarantine: Where unusable rows are listed.
            origins: Names of files to use for others in that list.
            scratch: Folder whose disk takes what grows with the rows.
            tell: Called with a line of text now and then.
        """
        self.data, self._quarantine, self._origins, self._tell = data, quarantine, origins, tell
        self._told = time.monotonic()
        self.taken, self.shards = ArrayFile(TAKEN, scratch), list[tuple[str, Path]]()
        self.licenses: defaultdict[str, Counter[str]] = defaultdict(Counter)
        self.encoded_again = 0
        self._exact = Seen(scratch)
        near = data.filters.near_duplicates
        self._near = None if near is None else NearlySeen(near)
        self._subsets: dict[str, _Progress] = {}

    def run(
        self,
        plans: Iterable[tuple[Subset, Iterator[Unit]]],
        make_shards: Callable[[list[Unit]], Iterable[Path]],
    ) -> None:
        """Make and take shards, in waves: a look at each subset first, then as many as it seems to need.

        Raises:
            DataError: More rows are unusable than data.max_quarantined_share allows.
        """
        self._subsets = {subset.name: _Progress(subset, units) for subset, units in plans}
        while wave := [unit for progress in self._subsets.values() for unit in progress.next_units()]:
            for unit, folder in zip(wave, make_shards(wave), strict=True):
                self._take(unit, folder)
                self._check_quarantine(least=_EARLIEST_COMPLAINT)
                self._tell_progress()
        self._check_quarantine(least=0)

    def outcomes(self) -> dict[str, dict[str, int]]:
        """Return what became of the rows of each subset; the values of one add up to its rows read."""
        return {name: dict(sorted(progress.outcomes.items())) for name, progress in self._subsets.items()}

    def outcomes_by_mode(self) -> dict[str, dict[str, dict[str, int]]]:
        """Return the same by mode: "on", "off", or "unknown" where a row was not understood so far."""
        found: dict[str, dict[str, dict[str, int]]] = {}
        for subset, progress in self._subsets.items():
            for (mode, name), count in sorted(progress.by_mode.items(), key=str):
                found.setdefault(subset, {}).setdefault(mode or "unknown", {})[name] = count
        return found

    def unknown_columns(self) -> dict[str, dict[str, int]]:
        """Return how many rows of each subset have each column that nobody knows."""
        found = {name: dict(sorted(progress.unknown.items())) for name, progress in self._subsets.items()}
        return {name: columns for name, columns in found.items() if columns}

    def unused_answers(self) -> int:
        """Return how many answers stood beside those that were chosen."""
        return sum(progress.unused_answers for progress in self._subsets.values())

    def shortfalls(self) -> dict[str, int]:
        """Return how many rows each subset has too few."""
        missing = {name: progress.missing for name, progress in self._subsets.items()}
        return {name: int(count) for name, count in missing.items() if 0 < count < math.inf}

    def _tell_progress(self) -> None:
        if time.monotonic() < self._told + _SECONDS_OF_SILENCE:
            return
        self._told = time.monotonic()
        kept = (
            f"{name} {progress.outcomes[KEPT]:,} of {progress.subset.rows or 'all'}"
            for name, progress in self._subsets.items()
        )
        self._tell(f"data: rows kept so far: {', '.join(kept)}")

    def _take(self, unit: Unit, folder: Path) -> None:
        """Keep the rows of a shard that are new, up to as many as are missing; the others count as not read.

        Rows of blocks are looked at in random order, so that the last of them give a sample and not their heads.
        """
        progress, shard = self._subsets[unit.subset], Shard.open(folder)
        names, outcomes = [*shard.names, EXACT, NEAR], np.array(shard.outcomes)
        places, rank = shard.rows["place"], self._rank(unit, len(outcomes))
        new = self._not_seen(shard)
        outcomes[places[~new]] = names.index(EXACT)
        kept, last = list[int](), len(outcomes)
        signatures = self._signatures(folder) if len(places) else []
        fresh = np.flatnonzero(new)
        for number in fresh[np.argsort(rank[places[fresh]], kind="stable")]:
            if len(kept) >= progress.missing:
                last = int(rank[places[number]])
                break
            if self._near is not None and not self._near.add(signatures[number]):
                outcomes[places[number]] = names.index(NEAR)
            else:
                kept.append(int(number))
        read = rank < last
        progress.units_taken += 1
        self.encoded_again += shard.encoded_again
        progress.count(names, outcomes[read], shard.modes[read])
        progress.unknown.update(shard.unknown)
        progress.unused_answers += shard.unused_answers
        self._list_unusable(unit, shard, progress, read)
        self._keep(unit.subset, folder, shard, np.array(sorted(kept), dtype=np.int64))

    def _rank(self, unit: Unit, rows: int) -> NDArray[np.int64]:
        """Return when each row of a unit is looked at, [rows]."""
        if unit.sampling is not RowSampling.block:  # head wants no other order, and reservoir has drawn one
            return np.arange(rows)
        seed = int(fraction(unit.name, purpose="rows of blocks", seed=self.data.seed) * 2**53)
        return np.random.Generator(np.random.PCG64(seed)).permutation(rows)

    def _not_seen(self, shard: Shard) -> NDArray[np.bool_]:
        if self.data.filters.exact_duplicates:
            return self._exact.new(shard.rows["content"])
        return np.ones(len(shard.rows), dtype=np.bool_)

    def _signatures(self, folder: Path) -> list[Any]:
        if self._near is None:
            return []
        signatures: list[Any] = pickle.loads((folder / SIGNATURES).read_bytes())  # noqa: S301 - of a worker of ours
        return signatures

    def _keep(self, subset: str, folder: Path, shard: Shard, indices: NDArray[np.int64]) -> None:
        if not len(indices):
            return
        rows = np.array(shard.rows[indices])
        self._exact.add(rows["content"])
        self.licenses[subset].update(shard.licenses[number] for number in rows["license"])
        taken = np.empty(len(rows), TAKEN)
        for name in ROW.names or ():
            taken[name] = rows[name]
        taken["shard"], taken["index"] = len(self.shards), indices
        taken["length"] = np.diff(shard.token_ends)[indices]
        self.taken.append(taken)
        self.shards.append((subset, folder))

    def _list_unusable(self, unit: Unit, shard: Shard, progress: _Progress, read: NDArray[np.bool_]) -> None:
        """Write unusable rows with their line in the file, where the file is read from its beginning."""
        for found in shard.quarantine:
            facts: dict[str, Any] = dict(found)
            if read[facts.pop("place")]:
                address = facts["file"]
                facts["file"] = self._origins.get(address, address)
                progress.example = progress.example or f"{facts['reason']}: {facts['detail']}"
                facts["line"] = (
                    progress.lines[address] + facts["line"] + 1 if unit.sampling is RowSampling.head else None
                )
                self._quarantine.write(json.dumps(facts, ensure_ascii=False, sort_keys=True) + "\n")
        if unit.sampling is RowSampling.head:
            progress.lines[unit.spans[0].address] += shard.lines

    def _check_quarantine(self, *, least: int) -> None:
        outcomes: Counter[str] = sum((progress.outcomes for progress in self._subsets.values()), Counter())
        unusable = Counter({name: count for name, count in outcomes.items() if name.startswith(QUARANTINED)})
        read, share = outcomes.total(), self.data.max_quarantined_share
        if unusable.total() > share * max(read, least):
            reasons = ", ".join(
                f"{count} x {name.removeprefix('quarantined: ')}" for name, count in unusable.most_common()
            )
            example = next((progress.example for progress in self._subsets.values() if progress.example), "")
            raise DataError(
                f"{unusable.total()} of {read} rows are unusable ({reasons}), more than "
                f"data.max_quarantined_share={share}; repair the rows or raise the share. The first: {example}"
            )
