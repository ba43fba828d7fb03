from pathlib import Path

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from prepared_rows import lines_of, nemotron_row, prepared, write_lines

from nemo_reasoning.data.prepare.dedup import NearlySeen, Seen, signature

CHOSEN = ("data=jsonl", "data.fast_tokenizer=false", "data.thinking_off_share=0", "data.validation_share=0.5")
WORDS = [f"word{number}" for number in range(300)]


@settings(deadline=None)
@given(st.lists(st.lists(st.integers(0, 40), max_size=30), max_size=12))
def test_seen_is_a_set(batches: list[list[int]]) -> None:
    seen, known = Seen(), set[int]()
    for batch in batches:
        hashes = np.array(batch, dtype=np.uint64)
        new = seen.new(hashes)
        expected = [value not in known and value not in batch[:place] for place, value in enumerate(batch)]
        assert new.tolist() == expected
        seen.add(hashes[new])
        known.update(batch)


def test_near_duplicates_are_those_above_the_similarity() -> None:
    seen = NearlySeen(0.8)
    close, far = [*WORDS[:298], "x", "y"], [*WORDS[:150], *WORDS[:150:-1]]
    assert [seen.add(signature(" ".join(words))) for words in (WORDS, close, far, far)] == [True, False, True, False]


def test_duplicates_are_dropped_over_units_and_subsets_and_the_first_stays(tmp_path: Path) -> None:
    answer = " ".join(WORDS)
    distinct = [nemotron_row(number) for number in range(60)]
    first = nemotron_row(100, output=f"{answer} first", reasoning="off", system_prompt="")
    nearly = nemotron_row(100, output=f"{answer} second", reasoning="off", system_prompt="")
    write_lines(tmp_path / "hub/SFT/code/a.jsonl", [*distinct[:30], first, distinct[0]])
    write_lines(tmp_path / "hub/SFT/math/a.jsonl", [*distinct[20:], nearly, first])
    chosen = (
        "data=local",
        f"data.root={tmp_path / 'hub'}",
        "data.subsets={code: null, math: null}",
        *CHOSEN[1:],
        "data.filters.languages=[]",
        "data.filters.near_duplicates=0.8",
    )
    outcomes = prepared(tmp_path / "out", *chosen, seq_length=2**16)["counts"]["outcomes"]
    assert outcomes["code"] == {"exact_duplicates": 1, "kept": 31}
    assert outcomes["math"] == {"exact_duplicates": 11, "kept": 30, "near_duplicates": 1}
    lines = [line for name in ("training", "validation") for line in lines_of(tmp_path / f"out/{name}.jsonl")]
    assert sum("word299 first" in line["messages"][-1]["content"] for line in lines) == 1
