"""Prepare a corpus as guides do it, with `datasets`: `prepare_guide.py CORPUS OUT WORKERS`.

Load, format with a system turn per mode, drop rows whose thinking is not closed, turn 30 % of the
thinking rows off, tokenise with the chat template, drop what is too long, split 95/5, save.
"""

import random
import sys
from pathlib import Path
from typing import Any

from datasets import load_dataset
from transformers import AutoTokenizer

from nemo_reasoning.data.chat import load_template
from nemo_reasoning.models.hub import PACKAGED_MODEL, fetch_tokenizer

SEQ_LENGTH = 8192
CACHE = Path("~/.cache/nemo_reasoning").expanduser()
TOKENIZER = AutoTokenizer.from_pretrained(fetch_tokenizer(PACKAGED_MODEL, revision=None, cache_dir=CACHE))
TEMPLATE = load_template("chatml")


def well_formed(row: dict[str, Any]) -> bool:
    """Tell whether thinking is there exactly when the row says so."""
    closed = "<think>" in row["output"] and "</think>" in row["output"]
    return closed == (row["reasoning"] == "on")


def formatted(row: dict[str, Any]) -> dict[str, Any]:
    """Return the row as messages, 30 % of the thinking ones without their thinking."""
    mode, answer = row["reasoning"], row["output"]
    if mode == "on" and random.Random(answer).random() < 0.3:
        mode, answer = "off", answer.partition("</think>")[2].strip()
    system = {"role": "system", "content": f"detailed thinking {mode}"}
    return {"messages": [system, *row["input"], {"role": "assistant", "content": answer}]}


def tokenised(row: dict[str, Any]) -> dict[str, Any]:
    """Return token ids and the mask of what the assistant says."""
    tokens = TOKENIZER.apply_chat_template(
        row["messages"], chat_template=TEMPLATE, tokenize=True, return_dict=True, return_assistant_tokens_mask=True
    )
    return {"input_ids": tokens["input_ids"], "loss_mask": tokens["assistant_masks"]}


def main() -> None:
    """Prepare."""
    corpus, out, workers = sys.argv[1], sys.argv[2], int(sys.argv[3])
    rows = load_dataset("json", data_files=corpus, split="train")
    rows = rows.filter(well_formed, num_proc=workers)
    rows = rows.map(formatted, num_proc=workers, remove_columns=rows.column_names)
    rows = rows.map(tokenised, num_proc=workers)
    rows = rows.filter(lambda row: len(row["input_ids"]) <= SEQ_LENGTH, num_proc=workers)
    rows.train_test_split(test_size=0.05, seed=17).save_to_disk(out, num_proc=workers)


if __name__ == "__main__":
    main()
