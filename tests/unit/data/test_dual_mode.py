"""The thinking switch: found, settled, contradicted and turned off."""

import numpy as np
import pytest
from chats import dialogue
from hypothesis import given
from hypothesis import strategies as st

from nemo_reasoning.data.schemas.dialogue import Row, fraction, settle, turned_off, without_thinking
from nemo_reasoning.errors import RowError
from nemo_reasoning.reasoning.messages import Message
from nemo_reasoning.reasoning.tags import with_thinking

THOUGHT = with_thinking("2 + 2 = 4", "It is 4.")
WORDS = st.text("abc \n", min_size=1, max_size=12).filter(str.strip)
NOTHING: frozenset[str] = frozenset()


def row(*turns: str, system: str = "") -> Row:
    messages, mode = settle(dialogue(*turns, system=system), stated=frozenset())
    return Row(messages, mode, category="math", license="CC-BY-4.0", origin="a.jsonl:1")


@pytest.mark.parametrize("system", ["", "detailed thinking on", "Be brief.", "detailed thinking on\n\nBe brief."])
def test_the_last_turn_decides_the_mode(system: str) -> None:
    instructions = "\n\nBe brief." if "brief" in system else ""
    for answer, mode in ((THOUGHT, "on"), ("It is 4.", "off")):
        if mode == "off" and "thinking" in system:
            continue
        messages, found = settle(dialogue("2 + 2?", answer, system=system), stated=frozenset())
        assert found == mode
        assert messages == (
            Message("system", f"detailed thinking {mode}{instructions}"),
            Message("user", "2 + 2?"),
            Message("assistant", answer),
        )


@pytest.mark.parametrize(
    "system",
    [
        "Be brief.\ndetailed thinking on",
        "  detailed thinking on  \n\n\nBe brief.\n",
        "detailed thinking on\ndetailed thinking on\nBe brief.",
        "detailed thinking on\r\n\r\nBe brief.",
    ],
)
def test_the_switch_is_found_on_any_line_and_put_first(system: str) -> None:
    messages, _ = settle(dialogue("2 + 2?", THOUGHT, system=system), stated=frozenset())
    assert messages[0].content == "detailed thinking on\n\nBe brief."


def test_words_about_thinking_are_no_switch() -> None:
    system = "Use detailed thinking on hard problems."
    messages, mode = settle(dialogue("2 + 2?", "It is 4.", system=system), stated=frozenset())
    assert (mode, messages[0].content) == ("off", f"detailed thinking off\n\n{system}")


@pytest.mark.parametrize(
    ("answer", "system", "stated"),
    [
        (THOUGHT, "detailed thinking off", NOTHING),
        ("It is 4.", "detailed thinking on", NOTHING),
        (THOUGHT, "", {"off"}),
        ("It is 4.", "", {"on"}),
        (THOUGHT, "detailed thinking on", {"off"}),
        (THOUGHT, "detailed thinking on\ndetailed thinking off", NOTHING),
        (THOUGHT, "detailed thinking off", {"on"}),
    ],
)
def test_a_contradiction_is_refused(answer: str, system: str, stated: set[str]) -> None:
    with pytest.raises(RowError, match="^contradicts its switch: the answer is thinking (on|off): "):
        settle(dialogue("2 + 2?", answer, system=system), stated=frozenset(stated))


def test_an_earlier_answer_without_thinking_is_context_of_a_thinking_one() -> None:
    messages, mode = settle(dialogue("Hi", "Hello.", "1 + 3?", "<think>4</think>4", "2 + 2?", THOUGHT), stated=NOTHING)
    assert mode == "on"
    assert [(turn.content, turn.target) for turn in messages if turn.role == "assistant"] == [
        ("Hello.", False),
        ("<think>\n4\n</think>\n\n4", True),
        (THOUGHT, True),
    ]


def test_every_answer_is_a_target_where_none_thinks() -> None:
    messages, mode = settle(dialogue("Hi", " Hello.\n", "2 + 2?", "4"), stated=NOTHING)
    assert mode == "off"
    assert [turn for turn in messages if turn.role == "assistant"] == [
        Message("assistant", "Hello."),
        Message("assistant", "4"),
    ]


@pytest.mark.parametrize(
    ("turns", "reason"),
    [
        ([], "no final assistant turn"),
        ([Message("system", "s")], "no final assistant turn"),
        (dialogue("Hi"), "no final assistant turn"),
        (dialogue("Hi", "Hello.", "Bye"), "no final assistant turn"),
        ([Message("assistant", "Hello.")], "turns do not alternate"),
        ([*dialogue("a"), *dialogue("b", "c")], "turns do not alternate"),
        ([*dialogue("a", "b"), Message("assistant", "c")], "turns do not alternate"),
        ([*dialogue("a", "b"), *dialogue("c", "d", system="s")], "turns do not alternate"),
        ([Message("system", "s"), *dialogue("c", "d", system="s")], "turns do not alternate"),
        (dialogue(" \n", "Hello."), "empty user turn"),
        (dialogue("Hi", "  "), "empty answer"),
        (dialogue("Hi", "", "Bye", "Bye."), "empty answer"),
        (dialogue("Hi", "<think>a</think> \n"), "empty answer"),
        (dialogue("Hi", "<think> </think>Hello."), "empty thinking"),
        (dialogue("Hi", "<think>Hello."), "malformed thinking"),
        (dialogue("Hi", "Hm </think>Hello."), "malformed thinking"),
        (dialogue("Hi", "\u200b"), "empty answer"),
        (dialogue("Hi", "<think>\ufeff</think>Hello."), "empty thinking"),
        (dialogue("\u200b", "Hello."), "empty user turn"),
        (dialogue("Hi", THOUGHT + THOUGHT), "malformed thinking"),
        (dialogue("Hi", "Well. " + THOUGHT), "malformed thinking"),
        (dialogue("Hi", THOUGHT, "Bye", "Bye."), "thinks in an earlier turn only"),
    ],
)
def test_unusable_dialogues_are_refused(turns: list[Message], reason: str) -> None:
    with pytest.raises(RowError, match=f"^{reason}: "):
        settle(turns, stated=NOTHING)


@given(turns=st.lists(st.tuples(WORDS, WORDS, WORDS | st.none()), min_size=1, max_size=3), system=WORDS | st.just(""))
def test_settling_twice_changes_nothing(turns: list[tuple[str, str, str | None]], system: str) -> None:
    spoken = [
        part
        for user, answer, trace in turns
        for part in (user, answer if trace is None or turns[-1][2] is None else with_thinking(trace, answer))
    ]
    messages, mode = settle(dialogue(*spoken, system=system), stated=NOTHING)
    assert settle(messages, stated=frozenset([mode])) == (messages, mode)


def test_without_thinking_only_the_answers_remain() -> None:
    thinking = row("Hi", "Hello.", "2 + 2?", THOUGHT, system="detailed thinking on\n\nBe brief.")
    silent = without_thinking(thinking)
    assert silent.mode == "off"
    assert silent.messages == (
        Message("system", "detailed thinking off\n\nBe brief."),
        *dialogue("Hi", "Hello.", "2 + 2?", "It is 4."),
    )
    assert (silent.category, silent.license, silent.origin) == ("math", "CC-BY-4.0", "a.jsonl:1")
    assert settle(silent.messages, stated=frozenset(["off"])) == (silent.messages, "off")


def test_rows_are_turned_off_with_the_given_probability() -> None:
    rows = [row(f"question {number}", THOUGHT) for number in range(2000)]
    for probability in (0.0, 0.3, 1.0):
        modes = [turned_off(each, probability=probability, seed=1).mode for each in rows]
        assert modes.count("off") / len(rows) == pytest.approx(probability, abs=0.04)
    assert turned_off(rows[0], probability=0.0, seed=1) is rows[0]
    silent = row("question", "It is 4.")
    assert turned_off(silent, probability=1.0, seed=1) is silent


@given(text=st.text(), purpose=st.sampled_from(["split", "switch"]), seed=st.integers())
def test_a_fraction_depends_on_its_arguments_alone(text: str, purpose: str, seed: int) -> None:
    value = fraction(text, purpose=purpose, seed=seed)
    assert 0 <= value < 1
    fraction("something else", purpose="split", seed=0)
    assert fraction(text, purpose=purpose, seed=seed) == value


def test_fractions_are_the_same_everywhere() -> None:
    first_8_bytes_of_sha256 = 0.5744185460332808  # of "17:split:What is 2 + 2?", over 2**64
    assert fraction("What is 2 + 2?", purpose="split", seed=17) == first_8_bytes_of_sha256


def test_fractions_are_even_and_independent() -> None:
    texts = [f"question {number}" for number in range(4000)]
    columns = [
        [fraction(text, purpose=purpose, seed=seed) for text in texts]
        for purpose, seed in (("split", 1), ("switch", 1), ("split", 2))
    ]
    for column in columns:
        assert np.histogram(column, bins=10, range=(0, 1))[0] == pytest.approx(400, rel=0.2)
    assert np.corrcoef(columns) == pytest.approx(np.eye(3), abs=0.06)
