from pathlib import Path

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from prepared_rows import lines_of, nemotron_row, prepared, write_lines

from nemo_reasoning.data.prepare.dedup import NearlySeen, Seen, normalised, question_key, signature
from nemo_reasoning.reasoning.trace import visible

CHOSEN = ("data=jsonl", "data.fast_tokenizer=false", "data.thinking_off_share=0", "data.validation_share=0.5")
WORDS = [f"word{number}" for number in range(300)]
SIGNS = "aBé中ß1 \t\n\x1f\x85\u00a0\u2028\u3000\u200b\ufeff"


@settings(deadline=None)
@given(st.lists(st.lists(st.integers(0, 40), max_size=30), max_size=12))
def test_seen_is_a_set(batches: list[list[int]]) -> None:
    seen, known = Seen(Path()), set[int]()
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


@given(st.text(SIGNS))
def test_normalised_text_has_single_blanks_and_nothing_invisible(text: str) -> None:
    assert normalised(text) == " ".join(visible(text).split()).encode()


@given(st.text(SIGNS), st.lists(st.sampled_from("  \t\n\u00a0\u200b"), max_size=20))
def test_a_question_has_one_key_whatever_its_spacing_case_and_form(text: str, blanks: list[str]) -> None:
    spaced = "".join(blank + sign for blank, sign in zip([*blanks, *[""] * len(text)], text, strict=False))
    assert question_key(spaced.upper()) == question_key(text) == question_key(text.lower())
    assert question_key("x²＝１") == question_key("X2 = 1") != question_key("x3=1")


def test_a_question_stands_in_one_split_whatever_its_spacing_and_case_and_case_alone_is_no_duplicate(
    tmp_path: Path,
) -> None:
    rows = [
        nemotron_row(number, input=[{"role": "user", "content": written}], output=f"It is {number}.", reasoning="off")
        | {"system_prompt": "detailed thinking off"}
        for number in range(30)
        for asked in [f"What is {number} + x?"]
        for written in (asked, f" {asked.upper()}\n", asked.replace(" + ", "+"), f"{asked}\u200b ")
    ]
    write_lines(tmp_path / "rows.jsonl", rows)
    paths = f"data.paths=[{tmp_path / 'rows.jsonl'}]"
    manifest = prepared(tmp_path / "out", *CHOSEN, paths, "data.filters.languages=[]")
    assert manifest["counts"]["outcomes"]["rows"] == {"exact_duplicates": 30, "kept": 90}
    asked = [
        {line["messages"][1]["content"].upper().replace(" ", "").strip() for line in lines_of(tmp_path / f"out/{name}")}
        for name in ("training.jsonl", "validation.jsonl")
    ]
    assert all(asked)
    assert asked[0].isdisjoint(asked[1])
