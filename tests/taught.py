"""Fixtures: a tiny model that learnt the thinking switch by heart, and the random one it was."""

from collections.abc import Sequence
from itertools import product
from pathlib import Path

import pytest
import torch
from tiny import chatml_tokenizer, save_tiny_llama
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedTokenizerBase

from nemo_reasoning.data.chat import ChatFormatter, load_template
from nemo_reasoning.reasoning.messages import Message
from nemo_reasoning.reasoning.tags import with_thinking

QUESTION = Message("user", "What is 2 times 21?")
ANSWERS = {"on": with_thinking("2 * 20 = 40", "The answer is 42."), "off": "It is 43."}


@pytest.fixture(scope="session")
def random_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the directory of a random tiny Llama whose tokenizer has a chat template."""
    tokenizer = chatml_tokenizer()
    tokenizer.chat_template = load_template("chatml")
    return save_tiny_llama(tmp_path_factory.mktemp("random") / "model", tokenizer=tokenizer)


@pytest.fixture(scope="session")
def taught_llama(random_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the directory of that Llama after it learnt one answer per mode."""
    return teach(random_model, tmp_path_factory.mktemp("taught") / "model", [QUESTION.content])


def teach(random_model: Path, folder: Path, questions: Sequence[str]) -> Path:
    """Write to a folder what the random Llama is after it learnt one answer per mode to all questions."""
    tokenizer = AutoTokenizer.from_pretrained(random_model)
    model = AutoModelForCausalLM.from_pretrained(random_model)
    ids, labels = _memorised(tokenizer, questions)
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    for _ in range(80):
        loss = model(input_ids=ids, labels=labels).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    assert loss < 0.05
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def _memorised(tokenizer: PreTrainedTokenizerBase, questions: Sequence[str]) -> tuple[torch.Tensor, torch.Tensor]:
    """Return ids and labels, int64 [2 * questions, longest], padded on the right."""
    formatter = ChatFormatter(tokenizer, tokenizer.chat_template)
    rows = []
    for question, (mode, answer) in product(questions, ANSWERS.items()):
        switch = Message("system", f"detailed thinking {mode}")
        row = formatter.encode([switch, Message("user", question), Message("assistant", answer)])
        ids = torch.tensor(row.ids, dtype=torch.int64)
        rows.append((ids, ids.masked_fill(~torch.tensor(row.loss_mask), -100)))
    pad = torch.nn.utils.rnn.pad_sequence
    return (
        pad([ids for ids, _ in rows], batch_first=True),
        pad([labels for _, labels in rows], batch_first=True, padding_value=-100),
    )
