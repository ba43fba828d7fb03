"""Pairs of answers become two rows each, the preferred one first; what is no pair is named."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from composing import sft_settings
from tiny import chatml_tokenizer

from nemo_reasoning.config.data import DataSettings
from nemo_reasoning.data.chat import ChatFormatter, load_template
from nemo_reasoning.data.pairs import prepare_pairs
from nemo_reasoning.data.store import TokenStore
from nemo_reasoning.errors import DataError

THOUGHT, WRONG = "<think>\n1 + 1 = 2\n</think>\n\nIt is 2.", "<think>\n1 + 1 = 3\n</think>\n\nIt is 3."
ASKED = [{"role": "user", "content": "1 + 1?"}]


@pytest.fixture(scope="module")
def formatter() -> ChatFormatter:
    return ChatFormatter(chatml_tokenizer(), load_template("chatml"))


def settings(path: Path, **changes: str) -> DataSettings:
    chosen = {"validation_share": "0.4", "max_quarantined_share": "0.5"} | changes
    return sft_settings(
        "data=jsonl", f"data.paths=[{path}]", *(f"data.{key}={value}" for key, value in chosen.items())
    ).data


def written(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def numbered(row: dict[str, Any]) -> list[dict[str, Any]]:
    """Return a row twenty times with another question, so that both splits get some."""
    return [json.loads(json.dumps(row).replace("1 + 1?", f"{number}: 1 + 1?")) for number in range(20)]


@pytest.mark.parametrize(
    "row",
    [
        {"prompt": "1 + 1?", "chosen": THOUGHT, "rejected": WRONG},
        {"prompt": ASKED, "chosen": THOUGHT, "rejected": WRONG, "system": "detailed thinking on"},
        {"prompt": ASKED, "chosen": [{"role": "assistant", "content": THOUGHT}],
         "rejected": [{"role": "assistant", "content": WRONG}], "score": 3},
        {"chosen": [*ASKED, {"role": "assistant", "content": THOUGHT}],
         "rejected": [*ASKED, {"role": "assistant", "content": WRONG}]},
        {"prompt": "1 + 1?", "chosen": [*ASKED, {"role": "assistant", "content": THOUGHT}],
         "rejected": [*ASKED, {"role": "assistant", "content": WRONG}]},
    ],
    ids=["text", "turns and text", "turns", "without prompt", "prompt repeated"],
)  # fmt: skip
def test_every_public_layout(row: dict[str, Any], tmp_path: Path, formatter: ChatFormatter) -> None:
    path = written(tmp_path / "rows.jsonl", numbered(row))
    manifest = prepare_pairs(settings(path), formatter=formatter, seq_length=512, out=tmp_path / "out")
    counts, store = manifest["counts"], TokenStore.open(tmp_path / "out" / "train")

    assert counts["train"]["rows"] + counts["validation"]["rows"] == counts["read"] == 20
    assert len(store) == 2 * counts["train"]["rows"]
    first, second = store[0], store[1]
    prompt = int(first.loss_mask.argmax())
    assert np.array_equal(first.ids[:prompt], second.ids[:prompt])
    said = [formatter.tokenizer.decode(one.ids[one.loss_mask]) for one in (first, second)]
    assert [text.removesuffix("<|im_end|>").rstrip() for text in said] == [THOUGHT, WRONG]
    lines = (tmp_path / "out" / "training.jsonl").read_text(encoding="utf-8").splitlines()
    assert json.loads(lines[0])["messages"][0] == {"role": "system", "content": "detailed thinking on"}
    assert prepare_pairs(settings(path), formatter=formatter, seq_length=512, out=tmp_path / "out") == manifest


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ({"prompt": "1 + 1?", "chosen": THOUGHT}, "rejected is missing"),
        ({"prompt": "1 + 1?", "chosen": THOUGHT, "rejected": THOUGHT}, "are equal"),
        ({"prompt": "1 + 1?", "chosen": THOUGHT, "rejected": "It is 3."}, "two modes"),
        ({"prompt": "1 + 1?", "chosen": 2, "rejected": WRONG}, "chosen is a int"),
        ({"chosen": THOUGHT, "rejected": WRONG}, "do not alternate"),
        ({"chosen": [*ASKED, {"role": "assistant", "content": THOUGHT}],
          "rejected": [{"role": "user", "content": "2 + 2?"}, {"role": "assistant", "content": WRONG}]},
         "two dialogues"),
    ],
)  # fmt: skip
def test_what_is_no_pair_is_named(row: dict[str, Any], said: str, tmp_path: Path, formatter: ChatFormatter) -> None:
    good = numbered({"prompt": "1 + 1?", "chosen": THOUGHT, "rejected": WRONG})
    path = written(tmp_path / "rows.jsonl", [*good, row])
    manifest = prepare_pairs(settings(path), formatter=formatter, seq_length=512, out=tmp_path / "out")
    (entry,) = (tmp_path / "out" / "quarantine.jsonl").read_text(encoding="utf-8").splitlines()

    assert manifest["counts"]["outcomes"]["pairs"] == {"kept": 20, "quarantined": 1}
    assert said in json.loads(entry)["reason"]
    with pytest.raises(DataError, match="max_quarantined_share=0.01"):
        prepare_pairs(
            settings(path, max_quarantined_share="0.01"), formatter=formatter, seq_length=512, out=tmp_path / "strict"
        )


def test_a_pair_that_is_too_long_is_counted(tmp_path: Path, formatter: ChatFormatter) -> None:
    rows = numbered({"prompt": "1 + 1?", "chosen": THOUGHT, "rejected": WRONG})
    rows.append({"prompt": "1 + 1?", "chosen": THOUGHT, "rejected": WRONG.replace("3", "3" * 600)})
    path = written(tmp_path / "rows.jsonl", rows)
    manifest = prepare_pairs(settings(path), formatter=formatter, seq_length=300, out=tmp_path / "out")
    assert manifest["counts"]["outcomes"]["pairs"] == {"kept": 20, "too long together": 1}

    with pytest.raises(DataError, match=r"too long together.*raise trainer.seq_length"):
        prepare_pairs(settings(path), formatter=formatter, seq_length=20, out=tmp_path / "short")
