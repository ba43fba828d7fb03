"""What a run is made of, by content: nothing of it changes when files are moved, copied or touched."""

from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nemo_reasoning.artifacts import file_sha256, fingerprint
from nemo_reasoning.config import settings_to_dict
from nemo_reasoning.config.train import SftSettings

_STORES = tuple(
    f"{split}/{array}.npy" for split in ("train", "validation") for array in ("tokens", "loss_mask", "offsets")
)

# What a checkpoint depends on, beside the content in `Identity`. Everything else may change between starts.
_FIXED = (
    *("model.init", "model.dtype", "peft", "loss", "optim"),
    *("trainer.seq_length", "trainer.global_batch_size", "trainer.precision", "trainer.seed"),
    *("trainer.fp8", "trainer.tf32", "trainer.distributed_optimizer"),
)
# How rows are prepared, but not which rows come out; where they lie is told by their content.
_FREE_DATA = {"paths", "root", "engine", "workers", "messages", "fast_tokenizer"}
_START = "peft.start_from"  # a place too: `Identity.start` tells which adapter lies there
_START_NAME = "the adapter it starts from"
_NAMES = {
    **{"rows": "the prepared rows", "template": "the chat template"},
    **{"tokenizer": "the tokenizer", "base": "the base weights"},
}


@dataclass(frozen=True)
class Identity:
    """What a run is made of, by content; None where it is not known, as of runs of version 0.1.

    Attributes:
        rows: Fingerprint of the prepared token ids and loss masks.
        template: Text of the chat template the rows were rendered with.
        tokenizer: Fingerprint of the tokenizer.
        base: Fingerprint of the base weights; None of random weights.
        start: The adapters it began from, the earliest first: name, hash of the weights, and what became of each;
            empty of a fresh adapter.
        source: What the user called the base model, and its revision; for people, not compared.
        revision: As `source`.
    """

    rows: str | None = None
    template: str | None = None
    tokenizer: str | None = None
    base: str | None = None
    start: list[dict[str, str]] | None = None
    source: str | None = None
    revision: str | None = None

    def fingerprints(self) -> dict[str, str | None]:
        """Return what identifies each part, by what people call it."""
        template = None if self.template is None else fingerprint(self.template)
        parts = {"rows": self.rows, "template": template, "tokenizer": self.tokenizer, "base": self.base}
        start = None if self.start is None else fingerprint(_weights(self.start))
        return {_NAMES[name]: part for name, part in parts.items()} | {_START_NAME: start}

    def differences(self, other: "Identity") -> list[str]:
        """Return the names of what differs between two identities, where both are known."""
        pairs = {said: (getattr(self, name), getattr(other, name)) for name, said in _NAMES.items()}
        pairs[_START_NAME] = (_weights(self.start), _weights(other.start))
        return [said for said, (one, two) in pairs.items() if None not in (one, two) and one != two]


def _weights(start: list[dict[str, str]] | None) -> list[tuple[str, str]] | None:
    """Return what tells the adapters a run began from, whatever they are called."""
    return None if start is None else [(entry["weights"], entry["start"]) for entry in start]


def rows_fingerprint(data: Path) -> str | None:
    """Return the fingerprint of prepared rows, from the bytes of their token stores; None if there are none."""
    files = [data / name for name in _STORES]
    if not all(file.is_file() for file in files):
        return None
    with ThreadPoolExecutor() as pool:
        return fingerprint(list(pool.map(file_sha256, files)))


def fixed_settings(settings: SftSettings) -> dict[str, Any]:
    """Return the settings that a checkpoint depends on, beside content, by their keys."""
    held = settings_to_dict(settings)
    return dict(pair for key in _FIXED for pair in _flat(key, _value(held, key)) if pair[0] != _START)


def changed_settings(before: SftSettings, now: SftSettings) -> list[str]:
    """Return the settings that a run depends on and that changed, each with both values."""
    was, held = settings_to_dict(before), settings_to_dict(now)
    keys = [*_FIXED, *(f"data.{name}" for name in held["data"] if name not in _FREE_DATA)]
    hours = before.trainer.hours, now.trainer.hours
    refitted = None not in hours and hours[0] != hours[1]
    return [said for key in keys for said in _differences(key, _value(was, key), _value(held, key))] + [
        f"trainer.hours was {hours[0]}, is {hours[1]}, but the steps are fitted once; for more of them set "
        "trainer.hours=null and trainer.max_steps"
    ] * refitted


def _flat(key: str, value: Any) -> list[tuple[str, Any]]:
    return [(f"{key}.{name}", held) for name, held in value.items()] if isinstance(value, dict) else [(key, value)]


def _differences(key: str, was: Any, now: Any) -> list[str]:
    """Say in words where two values of a setting differ, by the keys of single settings."""
    if isinstance(was, dict) and isinstance(now, dict):
        names = {**was, **now}
        return [said for name in names for said in _differences(f"{key}.{name}", was.get(name), now.get(name))]
    if was == now or (key == _START and None not in (was, now)):
        return []
    return [f"{key} was {was}, is {now}"]


def _value(settings: Mapping[str, Any], key: str) -> Any:
    value: Any = settings
    for part in key.split("."):
        value = value[part]
    return value
