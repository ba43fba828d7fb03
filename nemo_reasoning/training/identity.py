"""What a run is made of, by content: nothing of it changes when files are moved, copied or touched."""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from nemo_reasoning.artifacts import file_sha256, fingerprint

_STORES = tuple(
    f"{split}/{array}.npy" for split in ("train", "validation") for array in ("tokens", "loss_mask", "offsets")
)


@dataclass(frozen=True)
class Identity:
    """What a run is made of, by content; None where it is not known, as of runs of version 0.1.

    Attributes:
        rows: Fingerprint of the prepared token ids and loss masks.
        template: Text of the chat template the rows were rendered with.
        tokenizer: Fingerprint of the tokenizer.
        base: Fingerprint of the base weights; None of random weights.
        source: What the user called the base model, and its revision; for people, not compared.
        revision: As `source`.
    """

    rows: str | None = None
    template: str | None = None
    tokenizer: str | None = None
    base: str | None = None
    source: str | None = None
    revision: str | None = None

    def differences(self, other: "Identity") -> list[str]:
        """Return the names of what differs between two identities, where both are known."""
        names = {"rows": "the prepared rows", "template": "the chat template", "tokenizer": "the tokenizer"}
        names["base"] = "the base weights"
        pairs = {name: (getattr(self, name), getattr(other, name)) for name in names}
        return [names[name] for name, (one, two) in pairs.items() if None not in (one, two) and one != two]


def rows_fingerprint(data: Path) -> str | None:
    """Return the fingerprint of prepared rows, from the bytes of their token stores; None if there are none."""
    files = [data / name for name in _STORES]
    if not all(file.is_file() for file in files):
        return None
    with ThreadPoolExecutor() as pool:
        return fingerprint(list(pool.map(file_sha256, files)))
