"""Prepare pairs of answers, one of them preferred: rows with `prompt`, `chosen` and `rejected`, as TRL has them."""

import json
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from nemo_reasoning.artifacts import cached_folder, fingerprint, read_manifest, write_manifest
from nemo_reasoning.config.data import DataSettings
from nemo_reasoning.data.chat import ChatFormatter
from nemo_reasoning.data.prepare.dedup import question_key
from nemo_reasoning.data.prepare.files import Span, file_size
from nemo_reasoning.data.prepare.folder import QUARANTINE, SPLITS, prepared_before
from nemo_reasoning.data.prepare.formats import Format, format_of
from nemo_reasoning.data.prepare.inputs import describe_inputs, find_subsets
from nemo_reasoning.data.prepare.row_groups import count_row_groups, lines_of
from nemo_reasoning.data.schemas.dialogue import Row, fraction
from nemo_reasoning.data.schemas.rows import decode_row, parse_row
from nemo_reasoning.data.store import Encoded, TokenWriter, disk_errors
from nemo_reasoning.errors import DataError, RowError

CHOSEN, REJECTED = "chosen", "rejected"
_SHARED = ("reasoning", "system", "system_prompt")


@dataclass(frozen=True)
class Pair:
    """Two answers to one dialogue, the preferred one first.

    Attributes:
        rows: The dialogues.
        encoded: Their tokens.
    """

    rows: tuple[Row, Row]
    encoded: tuple[Encoded, Encoded]

    def to_line(self) -> str:
        """Return a line of training.jsonl: the preferred dialogue as messages, and the other answer."""
        preferred, other = ([turn.to_dict() for turn in row.messages] for row in self.rows)
        return json.dumps({"messages": preferred, REJECTED: other[-1:]}, ensure_ascii=False) + "\n"


def prepare_pairs(
    data: DataSettings,
    *,
    formatter: ChatFormatter,
    seq_length: int,
    out: Path,
    tell: Callable[[str], None] = print,
) -> dict[str, Any]:
    """Prepare a folder of pairs, or find that it holds the same ones already.

    The token stores `train` and `validation` hold two rows a pair, the preferred one first. Filters and the mixing of
    modes are for rows to imitate, and change nothing here; a row's mode is that of its answers.

    Args:
        data: Settings of conf/data; files of one's own, JSON Lines or Parquet.
        formatter: Tokenizer and chat template.
        seq_length: Most input positions of the two answers together, each behind its dialogue.
        out: Folder to write; it appears whole or not at all.
        tell: Called with a line of text where something was there already, and is damaged.

    Returns:
        The manifest.

    Raises:
        DataError: A file cannot be read, too many rows are unusable, or a split is empty.
        TemplateError: The template does not suit the tokenizer.
    """
    formatter.check()
    files = [file for subset in find_subsets(data) for file in subset.files]
    inputs = {
        "rows": describe_inputs(find_subsets(data), data),
        "tokenizer": fingerprint(formatter.tokenizer.backend_tokenizer.to_str()),
        "template": fingerprint(formatter.template),
    }
    settings = {
        "pairs": True,
        "seq_length": seq_length,
        "validation_share": data.validation_share,
        "seed": data.seed,
        "rows": data.rows,
    }

    def build(folder: Path) -> None:
        with disk_errors(out):
            counts = _write(folder, files, data, formatter, seq_length)
            produced = sorted(path for path in folder.rglob("*") if path.is_file())
            write_manifest(folder, stage="prepare", inputs=inputs, settings=settings, counts=counts, produced=produced)

    def current(folder: Path) -> bool:
        return prepared_before(folder, inputs=inputs, settings=settings, tell=tell) is not None

    return read_manifest(cached_folder(out, build, current=current))


def _write(
    folder: Path, files: list[str], data: DataSettings, formatter: ChatFormatter, seq_length: int
) -> dict[str, Any]:
    outcomes: Counter[str] = Counter()
    modes: Counter[str] = Counter()
    rows: Counter[str] = Counter()
    with (
        (folder / QUARANTINE).open("w", encoding="utf-8") as quarantine,
        TokenWriter(folder / "train") as train,
        TokenWriter(folder / "validation") as validation,
        (folder / SPLITS["train"]).open("w", encoding="utf-8") as train_lines,
        (folder / SPLITS["validation"]).open("w", encoding="utf-8") as validation_lines,
    ):
        targets = {"train": (train, train_lines), "validation": (validation, validation_lines)}
        for origin, line in _lines(files):
            if outcomes["kept"] == data.rows:
                break
            try:
                pair = _pair(decode_row(line), origin, formatter)
            except RowError as error:
                outcomes["quarantined"] += 1
                quarantine.write(json.dumps({"origin": origin, "reason": str(error)}, ensure_ascii=False) + "\n")
                continue
            if sum(len(one.ids) - 1 for one in pair.encoded) > seq_length:
                outcomes["too long together"] += 1
                continue
            key = question_key(pair.rows[0].question)
            held_out = fraction(key, purpose="split", seed=data.seed) < data.validation_share
            split = "validation" if held_out else "train"
            outcomes["kept"] += 1
            modes[pair.rows[0].mode] += 1
            rows[split] += 1
            for one in pair.encoded:
                targets[split][0].append(one)
            targets[split][1].write(pair.to_line())
    _check(outcomes, rows, data, folder)
    return {
        "read": outcomes.total(),
        "groups": [{"mode": mode, "rows": count} for mode, count in modes.items()],
        "outcomes": {"pairs": dict(outcomes)},
        **{split: {"rows": rows[split]} for split in SPLITS},
    }


def _check(outcomes: Mapping[str, int], rows: Mapping[str, int], data: DataSettings, folder: Path) -> None:
    total = sum(outcomes.values())
    if outcomes.get("quarantined", 0) > data.max_quarantined_share * total:
        first = json.loads((folder / QUARANTINE).read_text(encoding="utf-8").split("\n")[0])
        raise DataError(
            f"{outcomes['quarantined']} of {total} rows cannot be used as pairs, and data.max_quarantined_share="
            f"{data.max_quarantined_share}; the first, {first['origin']}: {first['reason']}"
        )
    for split in SPLITS:
        if not rows.get(split):
            told = ", ".join(f"{count} {name}" for name, count in outcomes.items()) or "no row at all"
            raise DataError(
                f"the {split} split of the pairs is empty: {told}; add rows, change data.validation_share="
                f"{data.validation_share}, or raise trainer.seq_length"
            )


def _lines(files: list[str]) -> Iterator[tuple[str, bytes]]:
    """Yield "file:place" and content of every line that is not blank."""
    for file in files:
        kind = format_of(file)
        if kind is Format.parquet:
            spans = [Span(file, 0, 0, 0, row_group=number) for number in range(count_row_groups(file))]
        elif kind is Format.lines:
            size = file_size(file)
            spans = [Span(file, size, 0, size)]
        else:
            raise DataError(f"{file} is {kind.value}; pairs are read from JSON Lines and Parquet: unpack it")
        for span in spans:
            yield from ((f"{file}:{line.offset}", line.content) for line in lines_of(span) if line.content.strip())


def _pair(value: Mapping[str, Any], origin: str, formatter: ChatFormatter) -> Pair:
    """Return the two dialogues of a row.

    Raises:
        RowError: "reason: detail" of what makes it unusable.
    """
    for name in (CHOSEN, REJECTED):
        if not value.get(name):
            raise RowError(f"no pair: the column {name} is missing or empty")
    dialogues = tuple(_dialogue(value, name) for name in (CHOSEN, REJECTED))
    first, second = (parse_row(dialogue, origin=origin) for dialogue in dialogues)
    if first.mode != second.mode:
        raise RowError(f"two modes: the chosen answer is thinking {first.mode}, the rejected one {second.mode}")
    if first.messages[:-1] != second.messages[:-1]:
        raise RowError("two dialogues: chosen and rejected differ before their last turns")
    if first.messages[-1] == second.messages[-1]:
        raise RowError("no pair: chosen and rejected are equal")
    rows = tuple(replace(row, messages=_last_target(row)) for row in (first, second))
    encoded = (formatter.encode(rows[0].messages), formatter.encode(rows[1].messages))
    return Pair((rows[0], rows[1]), encoded)


def _last_target(row: Row) -> Any:
    """Return the turns of a row, of which the last alone is compared."""
    return (*(replace(turn, target=False) for turn in row.messages[:-1]), row.messages[-1])


def _dialogue(value: Mapping[str, Any], name: str) -> dict[str, Any]:
    """Return a row of turns that ends with one of the answers; text or turns, with or without the prompt before."""
    answer, prompt = value[name], value.get("prompt", value.get("input"))
    turns = [{"role": "assistant", "content": answer}] if isinstance(answer, str) else answer
    if not isinstance(turns, list):
        raise RowError(f"wrong type: {name} is a {type(answer).__name__}, neither text nor turns")
    if isinstance(prompt, str) and (isinstance(answer, str) or len(turns) == 1):
        turns = [{"role": "user", "content": prompt}, *turns]
    elif isinstance(prompt, list):
        turns = [*prompt, *turns]
    return {"messages": turns} | {key: value[key] for key in _SHARED if value.get(key) is not None}
