"""The way from files of rows to a prepared folder; running it again continues, or finds it done."""

import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

from filelock import FileLock

from nemo_reasoning.artifacts import fingerprint
from nemo_reasoning.config.data import DataSettings, Executor, RowSampling
from nemo_reasoning.data.chat import ChatFormatter
from nemo_reasoning.data.prepare.filters import Languages
from nemo_reasoning.data.prepare.folder import QUARANTINE, prepared_before
from nemo_reasoning.data.prepare.inputs import check_unchanged, find_subsets, snapshot
from nemo_reasoning.data.prepare.output import write_output
from nemo_reasoning.data.prepare.plan import Plan, Preparation, first_objects, layouts_in, make_plan
from nemo_reasoning.data.prepare.preview import Sample, in_turn, samples_of, why_nothing
from nemo_reasoning.data.prepare.report import get_ready, heavy_losses
from nemo_reasoning.data.prepare.select import Selection
from nemo_reasoning.data.prepare.shards import Shard
from nemo_reasoning.data.prepare.units import Unit
from nemo_reasoning.data.schemas.layouts import declared
from nemo_reasoning.data.store import disk_errors
from nemo_reasoning.errors import DataError


def prepare_data(
    data: DataSettings,
    *,
    formatter: ChatFormatter,
    seq_length: int,
    out: Path,
    tell: Callable[[str], None] = print,
) -> dict[str, Any]:
    """Prepare a folder, or find that it holds the same rows already.

    It gets the token stores `train` and `validation`, both splits as messages,
    `quarantine.jsonl`, `report.html`, `lengths.png` and `manifest.json`. It appears complete or not at
    all; what is finished of a killed run lies in ".<name>.work-*" beside it and is used by the next one.
    The bytes written depend neither on the engine, nor on the number of workers, nor on interruptions.

    Args:
        data: Settings of conf/data.
        formatter: Tokenizer and chat template.
        seq_length: Most tokens of a row.
        out: Folder to write.
        tell: Called with a line of text at each stage.

    Returns:
        The manifest. The outcomes of each subset add up to its rows read.

    Raises:
        DataError: Rows cannot be read, too many are unusable, a split is empty, the disk is full, or something else
            stands where the folder is to be.
        TemplateError: The template does not suit the tokenizer.
    """
    _check(data, formatter)
    out = out.resolve() if out.is_symlink() else out  # whoever links it elsewhere wants the rows there
    preparation = Preparation(data, formatter, seq_length, out, tell)
    subsets = find_subsets(data)
    before = snapshot(subsets)
    inputs = preparation.inputs(subsets)
    out.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(out.parent / f".{out.name}.lock"):
        work = out.parent / f".{out.name}.work-{fingerprint([inputs, preparation.settings])}"
        manifest = prepared_before(out, inputs=inputs, settings=preparation.settings, tell=tell)
        if manifest is None:
            _remove_work(out, but=work)
            work.mkdir(exist_ok=True)
            with _workers(data, work):
                manifest = _run(preparation, make_plan(preparation, subsets, work), inputs, work, before)
        _remove_work(out)
    return manifest


def preview_data(data: DataSettings, *, formatter: ChatFormatter, seq_length: int, count: int) -> list[Sample]:
    """Return some rows as they would be trained on, reading little and writing nothing that stays.

    Args:
        data: Settings of conf/data.
        formatter: Tokenizer and chat template.
        seq_length: Most tokens of a row.
        count: How many; the subsets take turns.

    Raises:
        DataError: Rows cannot be read, or none is left.
        TemplateError: The template does not suit the tokenizer.
    """
    _check(data, formatter)
    sampling = RowSampling.head if data.sampling is RowSampling.head else RowSampling.block
    data = replace(data, sampling=sampling, engine=Executor.local, workers=1)
    subsets = [replace(subset, rows=count) for subset in find_subsets(data)]
    with tempfile.TemporaryDirectory() as scratch:
        plan = make_plan(Preparation(data, formatter, seq_length, Path(scratch), print), subsets, Path(scratch))
        shards: list[Shard] = []
        samples = in_turn([islice(_samples(plan, units, formatter, shards), count) for _, units in plan.units], count)
        if not samples:
            raise DataError(why_nothing(shards, [row for subset, _ in plan.units[:1] for row in first_objects(subset)]))
        layouts = {subset.name: layouts_in(subset, declared(data.columns)) for subset, _ in plan.units}
        return [replace(sample, layout=layouts[sample.subset]) for sample in samples]


def _samples(plan: Plan, units: Iterator[Unit], formatter: ChatFormatter, shards: list[Shard]) -> Iterator[Sample]:
    """Yield the rows of units, noting the shards they come from."""
    for unit in units:
        shards.append(plan.make_shard.build(unit)[0])
        yield from samples_of(shards[-1], unit.subset, formatter)


def _check(data: DataSettings, formatter: ChatFormatter) -> None:
    """Say at once what the template or the language filter lacks."""
    formatter.check()
    if data.filters.languages:
        Languages(data.filters.languages, confidence=data.filters.language_confidence)


def _workers(data: DataSettings, work: Path) -> AbstractContextManager[None]:
    """Return what has to be there while rows are prepared: a cluster, or nothing."""
    if data.engine is not Executor.ray:
        return nullcontext()
    from nemo_reasoning.data.prepare import ray_cluster

    return ray_cluster.joined(work)


def _remove_work(out: Path, *, but: Path | None = None) -> None:
    """Remove what runs left unfinished, but for one of them."""
    for work in out.parent.glob(f".{out.name}.work-*"):
        if work != but:
            shutil.rmtree(work)


def _run(
    preparation: Preparation, plan: Plan, inputs: dict[str, Any], work: Path, before: Mapping[str, tuple[int, int]]
) -> dict[str, Any]:
    """Make the shards that are missing and write the folder from them."""
    out = preparation.out
    listed = out.with_name(f"{out.name}.{QUARANTINE}")
    listed.unlink(missing_ok=True)
    with tempfile.TemporaryDirectory(dir=work, prefix="result.") as scratch:
        partial = Path(scratch) / out.name
        partial.mkdir()
        get_ready()
        try:
            selection = _select(preparation, plan, partial / QUARANTINE)
            check_unchanged(before)
            with disk_errors(out):
                manifest = write_output(
                    partial,
                    preparation=preparation,
                    selection=selection,
                    inputs=inputs,
                    backend=plan.backend,
                    scratch=Path(scratch),
                )
        except DataError as error:
            if not (partial / QUARANTINE).stat().st_size:
                raise
            (partial / QUARANTINE).replace(listed)
            raise DataError(f"{error}. The unusable rows are listed in {listed}") from error
        if out.exists():
            out.rename(Path(scratch) / "replaced")
        partial.rename(out)
    return manifest


def _select(preparation: Preparation, plan: Plan, quarantine: Path) -> Selection:
    with quarantine.open("w", encoding="utf-8") as lines:
        selection = Selection(
            preparation.data,
            quarantine=lines,
            origins=plan.origins,
            scratch=quarantine.parents[1],  # not in what is going to be the result
            tell=preparation.tell,
        )
        selection.run(plan.units, lambda units: preparation.each(plan.make_shard, units))
    for name, count in selection.shortfalls().items():
        preparation.tell(f"data: {name} has {count} rows fewer than asked for: there are no more")
    for name, columns in selection.unknown_columns().items():
        told = ", ".join(f"{column} ({rows:,} rows)" for column, rows in columns.items())
        preparation.tell(f"warning: {name} has columns that were not read, because nobody knows them: {told}")
    for told in heavy_losses(selection.outcomes_by_mode()):
        preparation.tell(f"warning: {told}")
    return selection
