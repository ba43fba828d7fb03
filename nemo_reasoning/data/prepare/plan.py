"""What is prepared and how: plain files, units of work, and the tokenisation that proved itself."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

from nemo_reasoning.artifacts import file_sha256, fingerprint, write_text
from nemo_reasoning.config import settings_to_dict
from nemo_reasoning.config.data import DamagedFiles, DataSettings, DataSource, Executor, RowSampling
from nemo_reasoning.data.chat import ChatFormatter
from nemo_reasoning.data.prepare import executors, ray_cluster
from nemo_reasoning.data.prepare.files import Span, file_size
from nemo_reasoning.data.prepare.filters import FilteredOut, Filters
from nemo_reasoning.data.prepare.formats import Format, cut_line, format_of
from nemo_reasoning.data.prepare.inputs import Subset, describe_inputs, write_builtin
from nemo_reasoning.data.prepare.row_groups import lines_of
from nemo_reasoning.data.prepare.tokenise import FastEncoder, prove
from nemo_reasoning.data.prepare.units import IndexRows, Unit, index_spans, plan_units, sampling_of
from nemo_reasoning.data.prepare.unpack import Unpack
from nemo_reasoning.data.prepare.worker import MakeShard
from nemo_reasoning.data.schemas.layouts import Layout, declared
from nemo_reasoning.data.schemas.rows import decode_row, layout_of
from nemo_reasoning.errors import DataError, RowError
from nemo_reasoning.reasoning.messages import Message

_FORMAT = 2  # of the folder; raised when the same settings would give another result
_PROVEN_ROWS, _PROVEN_PLACES, _PROVEN_BYTES = 256, 4, 512 * 2**10
Input = TypeVar("Input")
Output = TypeVar("Output")


@dataclass(frozen=True)
class Preparation:
    """What is prepared, and where to.

    Attributes:
        data: Settings of conf/data.
        formatter: Tokenizer and chat template.
        seq_length: Most tokens of a row.
        out: Folder to write.
        tell: Called with a line of text at each stage.
    """

    data: DataSettings
    formatter: ChatFormatter
    seq_length: int
    out: Path
    tell: Callable[[str], None]

    @property
    def settings(self) -> dict[str, Any]:
        """What shapes the result; engine and workers do not."""
        settings = settings_to_dict(self.data)
        del settings["engine"], settings["workers"]
        return {**settings, "seq_length": self.seq_length, "format": _FORMAT}

    def inputs(self, subsets: Sequence[Subset]) -> dict[str, Any]:
        """Return what identifies rows, tokenizer and template."""
        return {
            "rows": describe_inputs(list(subsets), self.data),
            "tokenizer": fingerprint(self.formatter.tokenizer.backend_tokenizer.to_str()),
            "template": fingerprint(self.formatter.template),
            "overlap_files": {path: file_sha256(Path(path)) for path in self.data.filters.overlap_files},
        }

    def each(self, function: Callable[[Input], Output], inputs: Sequence[Input]) -> Iterator[Output]:
        """Yield a function's results, computed by the workers."""
        run = ray_cluster.run if self.data.engine is Executor.ray else executors.run
        return run(function, inputs, workers=self.data.workers)


@dataclass(frozen=True)
class Plan:
    """What the workers do.

    Attributes:
        units: Each subset with its units of work.
        make_shard: Turns a unit into a shard.
        origins: The file that a plain file was made from.
        backend: What tokenises, in words.
    """

    units: list[tuple[Subset, Iterator[Unit]]]
    make_shard: MakeShard
    origins: dict[str, str]
    backend: str


def make_plan(preparation: Preparation, subsets: Sequence[Subset], work: Path) -> Plan:
    """Unpack and index what needs it, prove the tokenisation, and plan the units.

    Args:
        preparation: What is prepared.
        subsets: From `find_subsets`.
        work: Folder for intermediate files; what is finished there is used.
    """
    data, origins = preparation.data, dict[str, str]()
    plain = [_plain(preparation, subset, work, origins) for subset in subsets]
    units = [(subset, plan_units(subset, data, _index(preparation, subset, work))) for subset in plain]
    tokenizer_json, backend = _choose_tokenizer(preparation, plain, work)
    make = MakeShard(data, preparation.formatter, preparation.seq_length, tokenizer_json, _made(work / "shards"))
    return Plan(units, make, origins, backend)


def _made(folder: Path) -> Path:
    folder.mkdir(exist_ok=True)
    return folder


def _plain(preparation: Preparation, subset: Subset, work: Path, origins: dict[str, str]) -> Subset:
    """Return a subset of plain JSON Lines files, noting in `origins` what they were made from."""
    if preparation.data.source is DataSource.builtin:
        path = str(write_builtin(preparation.data, work / "builtin.jsonl"))
        origins[path] = "builtin"
        return replace(subset, files=(path,))
    kinds = {file: format_of(file) for file in subset.files}
    if set(kinds.values()) == {Format.parquet} and sampling_of(subset, preparation.data) is RowSampling.block:
        return replace(subset, by_row_group=True)
    packed = [(file, kind) for file, kind in kinds.items() if kind is not Format.lines]
    for file in (file for file, kind in packed if kind is Format.array):
        preparation.tell(f"data: {file} is a JSON array; each of its elements is read as a row")
    unpacked = list(preparation.each(Unpack(_made(work / "unpacked")), packed))
    damage = [found.damage for found in unpacked if found.damage]
    damage += [told for file, kind in kinds.items() if kind is Format.lines and (told := _cut_end(file))]
    _weigh(preparation, damage)
    plain = {file: str(found.path) for (file, _), found in zip(packed, unpacked, strict=True)}
    origins.update({path: file for file, path in plain.items()})
    return replace(subset, files=tuple(plain.get(file, file) for file in subset.files))


def _cut_end(file: str) -> str | None:
    """Return what is wrong with the end of a file of JSON Lines."""
    unfinished = cut_line(file)
    if unfinished is None:
        return None
    return f"{file} ({file_size(file):,} bytes) is cut: its last row breaks off after {unfinished:,} bytes"


def _weigh(preparation: Preparation, damage: list[str]) -> None:
    """Tell what files have lost.

    Raises:
        DataError: Something, and the settings do not say to go on without it.
    """
    if damage and preparation.data.damaged_files is DamagedFiles.stop:
        raise DataError(
            f"{'; '.join(damage)}. Download the file again, or go on with its whole rows: data.damaged_files=keep"
        )
    for told in damage:
        preparation.tell(f"data: {told}")


def _index(preparation: Preparation, subset: Subset, work: Path) -> list[Path]:
    spans = index_spans(subset, preparation.data)
    jobs = [(number, subset.files.index(span.address), span) for number, span in enumerate(spans)]
    return list(preparation.each(IndexRows(_made(work / f"index-{subset.name}"), preparation.data.seed), jobs))


def _choose_tokenizer(preparation: Preparation, subsets: list[Subset], work: Path) -> tuple[Path | None, str]:
    """Return the file for the fast path, if it proves itself, and what the manifest says about it."""
    if not preparation.data.fast_tokenizer:
        return None, "tokenizers, as data.fast_tokenizer=false asks for"
    formatter, path = preparation.formatter, work / "tokenizer.json"
    write_text(path, formatter.tokenizer.backend_tokenizer.to_str())
    try:
        encoder = FastEncoder(formatter, tokenizer_json=path)
    except Exception as error:  # noqa: BLE001 - whatever is wrong with the fast path, the manifest says it
        return None, f"tokenizers; tokie cannot be used: {error}"
    mapping = declared(preparation.data.columns)
    filters = Filters(preparation.data.filters, seq_length=preparation.seq_length, mapping=mapping)
    sample = _sample(subsets, filters)
    if not sample:
        return None, "tokenizers; there is no usable row to compare tokie on"
    if (found := prove(encoder, sample)) is not None:
        preparation.tell(f"data: tokenising with tokenizers, because tokie {found}")
        return None, f"tokenizers; tokie {found}"
    return path, f"tokie, equal to tokenizers on {len(sample)} rows"


def _sample(subsets: Sequence[Subset], filters: Filters) -> list[tuple[Message, ...]]:
    """Return dialogues from a few places of every file, as many from each."""
    spans = [span for subset in subsets for span in _places_of(subset)]
    share, sample = -(-_PROVEN_ROWS // max(1, len(spans))), list[tuple[Message, ...]]()
    for span in spans:
        usable = (messages for line in lines_of(span) if (messages := _dialogue(line.content, filters)) is not None)
        sample += [messages for messages, _ in zip(usable, range(share), strict=False)]
    return sample[:_PROVEN_ROWS]


def _places_of(subset: Subset) -> list[Span]:
    """Return a few places of every file; of Parquet files that are read by row group, two files are enough."""
    if subset.by_row_group:
        return [Span(file, 0, 0, 0, row_group=0) for file in subset.files[:: max(1, len(subset.files) - 1)]]
    return [span for file in subset.files for span in _places(file)]


def _places(file: str) -> list[Span]:
    size = file_size(file)
    starts = sorted({size * part // _PROVEN_PLACES for part in range(_PROVEN_PLACES)})
    return [Span(file, size, start, min(size, start + _PROVEN_BYTES)) for start in starts if start < size]


def first_objects(subset: Subset) -> list[dict[str, Any]]:
    """Return the objects at the beginning of the first file of a subset."""
    found = []
    for span in _places_of(replace(subset, files=subset.files[:1]))[:1]:
        for line in lines_of(span):
            with suppress(RowError):
                found.append(decode_row(line.content))
    return found


def layouts_in(subset: Subset, mapping: Layout | None) -> str:
    """Return the layouts of the first rows, each with the columns it is read from."""
    found = list[str]()
    for value in first_objects(subset):
        with suppress(RowError):
            found.append(layout_of(value, mapping=mapping))
    return "; ".join(dict.fromkeys(found))


def _dialogue(line: bytes, filters: Filters) -> tuple[Message, ...] | None:
    """Return the dialogue in a line, None where no row is kept: the workers deal with those."""
    try:
        return filters.read(decode_row(line), origin="sample").messages
    except (RowError, FilteredOut):
        return None
