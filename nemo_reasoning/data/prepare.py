"""From rows to tokenised splits on disk, with every row accounted for."""

import json
import tempfile
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any, Literal, TextIO, TypedDict

from nemo_reasoning.artifacts import MANIFEST, fingerprint, read_manifest, write_manifest
from nemo_reasoning.data.chat import ChatFormatter
from nemo_reasoning.data.dual_mode import fraction, turn_off_probability, turned_off
from nemo_reasoning.data.schema import Message, Rejected, Row
from nemo_reasoning.data.sources import RowSource
from nemo_reasoning.data.store import Encoded, TokenWriter
from nemo_reasoning.errors import DataError, RowError

Split = Literal["train", "validation"]
MESSAGES: dict[Split, str] = {"train": "training.jsonl", "validation": "validation.jsonl"}
QUARANTINE = "quarantine.jsonl"
_ROWS_AT_ONCE = 256


class PrepareSettings(TypedDict):
    """What shapes the prepared rows; recorded in the manifest.

    Attributes:
        seq_length: Most tokens of a row; a longer one is dropped and counted.
        validation_share: Share of the questions kept for validation.
        thinking_off_share: Share of the rows that do not think; thinking rows are turned off to reach it.
        max_quarantined_share: A larger share of unusable rows is an error.
        seed: Of the split and of the rows to turn off.
    """

    seq_length: int
    validation_share: float
    thinking_off_share: float
    max_quarantined_share: float
    seed: int


@dataclass
class _SplitCounts:
    rows: int = 0
    thinking_on: int = 0
    tokens: int = 0
    supervised_tokens: int = 0


@dataclass
class _Counts:
    """Where every row went."""

    read: int = 0
    train: _SplitCounts = field(default_factory=_SplitCounts)
    validation: _SplitCounts = field(default_factory=_SplitCounts)
    turned_off: int = 0
    too_long: int = 0
    quarantined: Counter[str] = field(default_factory=Counter)

    def to_dict(self) -> dict[str, Any]:
        """Return the counts as the manifest records them."""
        splits = {"train": vars(self.train), "validation": vars(self.validation)}
        return {**vars(self), **splits, "quarantined": dict(self.quarantined.most_common())}

    def reasons(self) -> str:
        """Return the reasons of the quarantined rows in words."""
        return ", ".join(f"{count} x {reason}" for reason, count in self.quarantined.most_common())


class _Output:
    """The files of a folder that is being filled."""

    def __init__(self, folder: Path, files: ExitStack) -> None:
        self._stores = {split: files.enter_context(TokenWriter(folder / split)) for split in MESSAGES}
        self._lines: dict[str, TextIO] = {
            name: files.enter_context((folder / name).open("w", encoding="utf-8"))
            for name in (*MESSAGES.values(), QUARANTINE)
        }

    def keep(self, split: Split, messages: Iterable[Message], encoded: Encoded) -> None:
        self._stores[split].append(encoded)
        self._write(MESSAGES[split], {"messages": [message.to_dict() for message in messages]})

    def quarantine(self, rejected: Rejected) -> None:
        found = {
            "file": rejected.file,
            "line": rejected.line,
            "reason": rejected.reason,
            "detail": rejected.detail,
        }
        self._write(QUARANTINE, found)

    def _write(self, name: str, value: dict[str, Any]) -> None:
        self._lines[name].write(json.dumps(value, ensure_ascii=False) + "\n")


def prepare(
    source: RowSource,
    *,
    formatter: ChatFormatter,
    settings: PrepareSettings,
    inputs: dict[str, Any],
    out: Path,
) -> dict[str, Any]:
    """Write `train/` and `validation/` token stores, both as messages, the quarantine and a manifest.

    The folder appears complete under its name, in place of an earlier one, or not at all. After an
    error the unusable rows stand in "<out>.quarantine.jsonl".

    Args:
        source: Rows and rejected rows; read once to count the modes, once to format.
        formatter: Renders and tokenises.
        settings: Split, switch and length; see conf/data.
        inputs: Where the rows came from, for the manifest.
        out: Folder to write.

    Returns:
        The manifest. Its counts add up: read = train + validation + too_long + quarantined.

    Raises:
        DataError: Too many rows are unusable, or a split is empty.
        TemplateError: The template does not suit the tokenizer.
    """
    formatter.check()
    listed = out.with_name(f"{out.name}.{QUARANTINE}")
    listed.unlink(missing_ok=True)
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=out.parent, prefix=f".{out.name}.") as scratch:
        partial = Path(scratch) / out.name
        partial.mkdir()
        counts = _fill(partial, source=source, formatter=formatter, settings=settings)
        try:
            _check(counts, settings)
        except DataError as error:
            (partial / QUARANTINE).replace(listed)
            raise DataError(f"{error}. The unusable rows are listed in {listed}") from error
        produced = sorted(path for path in partial.rglob("*") if path.is_file())
        manifest = write_manifest(
            partial,
            stage="prepare",
            inputs=inputs,
            settings=settings,
            counts=counts.to_dict(),
            produced=produced,
        )
        if out.exists():
            out.rename(Path(scratch) / "replaced")
        partial.rename(out)
    return manifest


def prepare_once(
    source: RowSource, *, formatter: ChatFormatter, settings: PrepareSettings, tokenizer_revision: str, out: Path
) -> dict[str, Any]:
    """Return the manifest of a prepared folder, preparing it unless it holds the same rows already.

    Arguments and errors are those of `prepare`; `tokenizer_revision` identifies the tokenizer's content.
    """
    inputs = {
        **source.inputs(),
        "tokenizer": tokenizer_revision,
        "template": fingerprint(formatter.template),
    }
    if (out / MANIFEST).is_file():
        manifest = read_manifest(out)
        if (manifest["inputs"], manifest["settings"]) == (inputs, dict(settings)):
            return manifest
    return prepare(source, formatter=formatter, settings=settings, inputs=inputs, out=out)


def _fill(folder: Path, *, source: RowSource, formatter: ChatFormatter, settings: PrepareSettings) -> _Counts:
    """Write stores, messages and quarantine; a fixed number of rows is in memory at a time."""
    counts, rows = _Counts(), iter(source)
    probability = _off_probability(source, share=settings["thinking_off_share"])
    with ExitStack() as files:
        output = _Output(folder, files)
        while batch := list(islice(rows, _ROWS_AT_ONCE)):
            switched = [_switched(row, probability=probability, seed=settings["seed"]) for row in batch]
            counts.read += len(batch)
            counts.turned_off += sum(before is not after for before, after in zip(batch, switched, strict=True))
            for item in _formatted(switched, formatter):
                _place(item, settings=settings, output=output, counts=counts)
    return counts


def _off_probability(source: RowSource, *, share: float) -> float:
    if share == 0:
        return 0.0
    modes = Counter(row.mode for row in source if isinstance(row, Row))
    return turn_off_probability(on=modes["on"], off=modes["off"], share=share)


def _switched(row: Row | Rejected, *, probability: float, seed: int) -> Row | Rejected:
    return row if isinstance(row, Rejected) else turned_off(row, probability=probability, seed=seed)


def _formatted(rows: list[Row | Rejected], formatter: ChatFormatter) -> Iterator[tuple[Row, Encoded] | Rejected]:
    """Yield the rows in order, each with its tokens; one that cannot be formatted as rejected."""
    results = iter(formatter.encode_all([row.messages for row in rows if isinstance(row, Row)]))
    for row in rows:
        if isinstance(row, Rejected):
            yield row
            continue
        result = next(results)
        yield Rejected.at(row.origin, result) if isinstance(result, RowError) else (row, result)


def _place(
    item: tuple[Row, Encoded] | Rejected, *, settings: PrepareSettings, output: _Output, counts: _Counts
) -> None:
    """Count a row and write it where it belongs; rows with the same question share a split."""
    if isinstance(item, Rejected):
        counts.quarantined[item.reason] += 1
        output.quarantine(item)
        return
    row, encoded = item
    if len(encoded.ids) > settings["seq_length"]:
        counts.too_long += 1
        return
    held = fraction(row.question, purpose="split", seed=settings["seed"]) < settings["validation_share"]
    output.keep("validation" if held else "train", row.messages, encoded)
    split = counts.validation if held else counts.train
    split.rows += 1
    split.thinking_on += row.mode == "on"
    split.tokens += len(encoded.ids)
    split.supervised_tokens += int(encoded.loss_mask.sum())


def _check(counts: _Counts, settings: PrepareSettings) -> None:
    bad, reasons = counts.quarantined.total(), counts.reasons()
    if bad > settings["max_quarantined_share"] * counts.read:
        raise DataError(
            f"{bad} of {counts.read} rows are unusable ({reasons}), more than "
            f"data.max_quarantined_share={settings['max_quarantined_share']}; repair the rows or raise the share"
        )
    for name, split in (("train", counts.train), ("validation", counts.validation)):
        if not split.rows:
            raise DataError(
                f"the {name} split is empty: of {counts.read} rows read, {bad} are unusable"
                f"{f' ({reasons})' if reasons else ''} and {counts.too_long} longer than "
                f"trainer.seq_length={settings['seq_length']}; add rows, or change "
                f"data.validation_share={settings['validation_share']}"
            )
