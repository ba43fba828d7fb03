"""Corpora, settings and comparisons for the tests of data preparation."""

import json
import random
from functools import cache
from pathlib import Path
from typing import Any

from hydra import compose, initialize_config_dir
from tiny import chatml_tokenizer

from nemo_reasoning.artifacts import file_sha256
from nemo_reasoning.config import CONF_DIR, load_settings
from nemo_reasoning.config.data import DataSettings, PrepareSettings
from nemo_reasoning.data.chat import ChatFormatter, load_template
from nemo_reasoning.data.prepare.pipeline import prepare_data

SEQ_LENGTH = 2048
_PROSE = ("We", "add", "both", "numbers", "and", "check", "the", "sum.", "Then", "\\frac{a}{b}", "=", "$x^2$,", "so")
_CODE = "def add(a, b):\n\treturn a + b\n\nfor i in range(3):\n    print('done', i)\n"
_LICENSES = ("CC-BY-4.0", "Apache-2.0", "MIT")


def data_settings(*overrides: str) -> DataSettings:
    """Return the settings that conf/data composes."""
    with initialize_config_dir(str(CONF_DIR), version_base="1.3"):
        config = compose("prepare_data", overrides=list(overrides))
    return load_settings(config, PrepareSettings).data


@cache
def formatter() -> ChatFormatter:
    """Return a formatter with one token a byte."""
    return ChatFormatter(chatml_tokenizer(), load_template("chatml"))


def nemotron_row(number: int, *, seed: int = 0, **columns: Any) -> dict[str, Any]:
    """Return a row in the schema of the Nemotron dataset; its length varies a lot."""
    numbers = random.Random(f"{seed}:{number}")
    thinks = numbers.random() < 0.7
    words = [numbers.choice(_PROSE) for _ in range(int(numbers.lognormvariate(3, 1)) + 3)]
    answer = f"{' '.join(words)}\n{_CODE if number % 3 else 'é中'} The answer is {number}."
    row = {
        "input": [{"role": "user", "content": f"What is {number} + {numbers.randint(0, 99)}, and why?"}],
        "output": f"<think>\n{' '.join(words[::-1])}\n</think>\n\n{answer}" if thinks else answer,
        "category": "math",
        "license": numbers.choice(_LICENSES),
        "reasoning": "on" if thinks else "off",
        "generator": numbers.choice(("DeepSeek-R1", "Qwen-2.5")),
        "used_in_training": ["Nano", "Super"] if number % 2 else "no",
        "system_prompt": f"detailed thinking {'on' if thinks else 'off'}",
    }
    return {**row, **columns}


def write_lines(path: Path, rows: list[Any]) -> Path:
    """Write rows as JSON Lines; bytes as they are."""
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = [row if isinstance(row, bytes) else json.dumps(row, ensure_ascii=False).encode() for row in rows]
    path.write_bytes(b"".join(line + b"\n" for line in lines))
    return path


def corpus(path: Path, count: int, *, seed: int = 0) -> Path:
    """Write a corpus of good rows."""
    return write_lines(path, [nemotron_row(number, seed=seed) for number in range(count)])


def prepared(out: Path, *overrides: str, seq_length: int = SEQ_LENGTH) -> dict[str, Any]:
    """Prepare a folder with some settings and return its manifest."""
    data = data_settings(*overrides)
    return prepare_data(data, formatter=formatter(), seq_length=seq_length, out=out, tell=lambda line: None)


def digests(folder: Path) -> dict[str, str]:
    """Return the SHA-256 of every file below a folder."""
    return {str(path.relative_to(folder)): file_sha256(path) for path in sorted(folder.rglob("*")) if path.is_file()}


def lines_of(path: Path) -> list[Any]:
    """Return the values of a JSON Lines file."""
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
