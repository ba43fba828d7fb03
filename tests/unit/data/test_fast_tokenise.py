from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from prepared_rows import SEQ_LENGTH, corpus, data_settings, digests

from nemo_reasoning.data.chat import ChatFormatter, load_template
from nemo_reasoning.data.prepare.pipeline import prepare_data
from nemo_reasoning.data.prepare.tokenise import FastEncoder, prove, same
from nemo_reasoning.data.store import Encoded, TokenStore
from nemo_reasoning.errors import RowError
from nemo_reasoning.reasoning.messages import Message

ASKED = Message("user", "What is 2 + 2?")


def dialogue(answer: str, *, asked: str = ASKED.content) -> list[Message]:
    return [Message("system", "detailed thinking on"), Message("user", asked), Message("assistant", answer)]


DIALOGUES = [
    dialogue("<think>\n2 + 2 = 4\n</think>\n\nIt is \\boxed{4}."),
    dialogue("it's\n\t'regex', don't\t're"),  # where tokie 0.1.4 errs
    dialogue("日本語 and émile 👩‍👩‍👧 \u00a0\u3000 ½ ²"),
    [
        *dialogue("One."),
        Message("user", "And then?"),
        Message("assistant", "Two.", target=False),
        ASKED,
        Message("assistant", "Three."),
    ],
    dialogue("<|im_end|> in the text"),
    dialogue("")[:2],
]


@pytest.fixture(scope="module")
def reference(smollm2_hf: Path) -> ChatFormatter:
    return ChatFormatter.load(smollm2_hf, template=load_template("chatml"))


@pytest.fixture(scope="module")
def encoder(smollm2_hf: Path, reference: ChatFormatter) -> FastEncoder:
    return FastEncoder(reference, tokenizer_json=smollm2_hf / "tokenizer.json")


def test_ids_masks_and_refusals_are_those_of_the_reference(encoder: FastEncoder, reference: ChatFormatter) -> None:
    results = encoder.encode_all(DIALOGUES)
    assert all(same(found, wanted) for found, wanted in zip(results, reference.encode_all(DIALOGUES), strict=True))
    assert [isinstance(result, RowError) for result in results] == [False] * 4 + [True] * 2
    assert prove(encoder, DIALOGUES) is None


class _WrongEncoder(FastEncoder):
    """Errs in one word, as a faulty tokenizer might."""

    def _ids(self, texts: list[str]) -> tuple[NDArray[np.int32], NDArray[np.int64]]:
        ids, lengths = super()._ids(texts)
        ends = np.cumsum(lengths)
        ids[[ends[number] - 1 for number, text in enumerate(texts) if "wrong" in text]] += 1
        return ids, lengths


@pytest.fixture
def wrong(smollm2_hf: Path, reference: ChatFormatter) -> FastEncoder:
    return _WrongEncoder(reference, tokenizer_json=smollm2_hf / "tokenizer.json")


def test_a_difference_on_the_users_rows_is_found(wrong: FastEncoder) -> None:
    assert prove(wrong, DIALOGUES) is None
    found = prove(wrong, [*DIALOGUES, dialogue("wrong", asked="Is this right?")])
    assert found == "differs on the row that asks 'Is this right?'"


def test_a_batch_in_which_an_audited_row_differs_is_tokenised_by_the_reference(
    wrong: FastEncoder, reference: ChatFormatter
) -> None:
    batch = [dialogue(f"wrong {number}") for number in range(1500)]
    assert not same(wrong.encode_unaudited(batch[:1])[0], reference.encode(batch[0]))
    expected = _all(reference, batch)
    assert all(same(found, wanted) for found, wanted in zip(_all(wrong, batch), expected, strict=True))
    assert wrong.encoded_again == 1500


def _all(encoder: Any, batch: Sequence[Sequence[Message]]) -> list[Encoded | RowError]:
    results: list[Encoded | RowError] = encoder.encode_all(batch)
    return results


def test_a_folder_prepared_fast_holds_the_same_tokens_and_says_so(reference: ChatFormatter, tmp_path: Path) -> None:
    path = corpus(tmp_path / "rows.jsonl", 400)
    said = {}
    for name, fast in (("fast", "true"), ("slow", "false")):
        data = data_settings("data=jsonl", f"data.paths=[{path}]", f"data.fast_tokenizer={fast}")
        manifest = prepare_data(data, formatter=reference, seq_length=SEQ_LENGTH, out=tmp_path / name, tell=print)
        said[name] = manifest["counts"]["tokenizer"]
    assert said["fast"].startswith("tokie, equal to tokenizers on 25")
    assert said["slow"].startswith("tokenizers")
    differing = {
        file for file, digest in digests(tmp_path / "fast").items() if digests(tmp_path / "slow")[file] != digest
    }
    assert differing == {"manifest.json"}
    assert np.diff(TokenStore.open(tmp_path / "fast" / "train").lengths).any()
