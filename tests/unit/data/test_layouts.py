"""Layouts of public data sets: read as their author meant them, or refused by the name of what is in the way."""

import json
import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nemo_reasoning.config.data import ColumnSettings
from nemo_reasoning.data.schemas.columns import IGNORED, REFUSED
from nemo_reasoning.data.schemas.layouts import COMMON, LAYOUTS, ORDER, declared
from nemo_reasoning.data.schemas.rows import parse_row
from nemo_reasoning.errors import ConfigError, RowError

TRACE, ANSWER, ASKED = "Four plus four is eight.", "It is 8.", "What is 4 + 4?"
THOUGHT = f"<think>\n{TRACE}\n</think>\n\n{ANSWER}"
ON = ["detailed thinking on", ASKED, THOUGHT]


def parse(value: Any, **options: Any) -> Any:
    return parse_row(json.loads(json.dumps(value)), origin="a:1", **options)


def said(value: Any, **options: Any) -> list[str]:
    return [turn.content for turn in parse(value, **options).messages]


def chat(*turns: tuple[str, Any, dict[str, Any]] | tuple[str, Any], **columns: Any) -> dict[str, Any]:
    return {"messages": [{"role": role, "content": text, **dict(*more)} for role, text, *more in turns], **columns}


TURNS = [{"role": "user", "content": ASKED}, {"role": "assistant", "content": THOUGHT}]
READ: dict[str, dict[str, Any]] = {
    "openai": {"messages": TURNS},
    "reasoning_content": chat(("user", ASKED), ("assistant", ANSWER, {"reasoning_content": TRACE, "tool_calls": []})),
    "thinking, null elsewhere": chat(("user", ASKED, {"thinking": None}), ("assistant", ANSWER, {"thinking": TRACE})),
    "both the same": chat(("user", ASKED), ("assistant", THOUGHT, {"reasoning_content": TRACE, "reasoning": TRACE})),
    "trace in the row": chat(("user", ASKED), ("assistant", ANSWER), reasoning_content=TRACE),
    "thinking part": chat(
        ("user", ASKED),
        ("assistant", [{"type": "thinking", "thinking": TRACE}, {"type": "text", "text": ANSWER}]),
    ),
    "Magistral's part": chat(
        ("user", ASKED),
        ("assistant", [{"type": "thinking", "thinking": [{"type": "text", "text": TRACE}]}, ANSWER]),
    ),
    "JSON text": {"messages": json.dumps(TURNS)},
    "struct of lists": {"conversations": {"from": ["human", "gpt"], "value": [ASKED, THOUGHT], "weight": None}},
    "sharegpt with columns": {"conversations": [{"from": "human", "value": ASKED}, {"from": "gpt", "value": THOUGHT}]},
    "empty system": {"system": "", "messages": [{"role": "system", "content": ""}, *TURNS]},
    "alpaca": {"instruction": ASKED, "input": "", "output": THOUGHT, "history": [], "system": None},
    "prompt turns": {"prompt": TURNS[:1], "completion": TURNS[1:]},
    "question and trace": {"question": ASKED, "reasoning": TRACE, "answer": ANSWER},
    "s1k": {"question": ASKED, "thinking_trajectories": [TRACE], "attempt": ANSWER, "solution": "8", "cot": None},
    "generations": {
        "problem": ASKED,
        "answer": "8",
        "generations": ["<think>x</think>9", THOUGHT, "<think>y</think>8"],
        "correctness_math_verify": [False, True, True],
        "correctness_llama": None,
    },
    "open-r1 with messages": {"problem": ASKED, "solution": "8", "generations": [THOUGHT], "messages": TURNS},
    "one solution": {"problem": ASKED, "solutions": [THOUGHT], "is_correct": True},
    "command": {"messages": [{"role": "user", "content": f"{ASKED} /think"}, TURNS[1]]},
    "sentence": {"messages": [{"role": "system", "content": "Detailed Thinking On."}, *TURNS]},
    "template arguments": {"messages": TURNS, "chat_template_kwargs": {"enable_thinking": True}},
    "flag": {"messages": TURNS, "enable_thinking": True, "reasoning": True},
    "nemotron v1": {
        "uuid": "u",
        "messages": [{"role": "system", "content": "", "tool_calls": []}, *TURNS],
        "metadata": '{"a": 1}',
        "reasoning": "on",
        "version": "v1",
    },
}


@pytest.mark.parametrize("name", READ)
def test_rows_say_what_their_author_meant(name: str) -> None:
    assert said(READ[name]) == ON


def test_an_instruction_and_its_input_are_the_question_and_history_comes_before() -> None:
    row = {"instruction": "Translate.", "input": "Good day", "output": "Bonjour", "history": [["Hi", "Salut"]]}
    assert said(row | {"system": "Be kind."}) == [
        "detailed thinking off\n\nBe kind.",
        *("Hi", "Salut", "Translate.\n\nGood day", "Bonjour"),
    ]


def test_developer_turns_are_system_turns_and_join_the_column() -> None:
    row = chat(("developer", "Be kind."), ("user", ASKED), ("assistant", ANSWER), system_prompt="Answer in English.")
    assert said(row)[0] == "detailed thinking off\n\nAnswer in English.\n\nBe kind."


def test_pairs_are_turns_and_an_earlier_empty_trace_is_none() -> None:
    pairs = [{"input": "a", "output": "<think>\n\n</think>\n\nb"}, {"input": ASKED, "output": THOUGHT}]
    row = parse({"conversation": pairs})
    assert [turn.content for turn in row.messages] == ["detailed thinking on", "a", "b", *ON[1:]]
    assert [turn.target for turn in row.messages[2::2]] == [False, True]


def test_unused_generations_are_counted() -> None:
    assert parse(READ["generations"]).unused == 2


@pytest.mark.parametrize(
    "mark",
    [
        {"weight": 0},
        {"train": False},
        {"loss_mask": 0},
        {"weight": 0.0, "train": False},
        {"train": "False "},
        {"weight": "0"},
    ],
)
def test_turns_marked_as_context_stay_context_and_keep_their_mark(mark: dict[str, Any]) -> None:
    other = {key: 1 for key in mark}
    row = parse(chat(("user", "a"), ("assistant", "9", mark), ("user", "b"), ("assistant", "8", other)))
    assert [(turn.target, turn.excluded) for turn in row.messages[2::2]] == [(False, True), (True, False)]


CALL = {"id": "c", "type": "function", "function": {"name": "add", "arguments": '{"a": 4}'}}


def test_tool_calls_and_results_are_turns() -> None:
    row = parse(
        chat(
            ("user", ASKED),
            ("assistant", None, {"tool_calls": [CALL], "reasoning_content": "Add."}),
            ("tool", "8", {"tool_call_id": "c", "name": "add"}),
            ("assistant", THOUGHT),
            tools=[{"type": "function", "function": {"name": "add"}}],
        )
    )
    _, _, call, result, last = row.messages
    assert call.tool_calls[0]["function"]["arguments"] == {"a": 4}
    assert (call.content, result.role, result.tool_call_id) == ("<think>\nAdd.\n</think>\n\n", "tool", "c")
    assert (last.content, row.messages[0].tools[0]["function"]["name"]) == (THOUGHT, "add")


SPOILT: list[tuple[dict[str, Any], str]] = [
    ({"text": "free text"}, "missing keys"),
    ({"messages": TURNS, "conversations": TURNS}, "two layouts fit: messages and sharegpt"),
    ({"messages": TURNS, "prompt": ASKED, "response": "other"}, "two layouts fit: messages and prompt_completion"),
    ({"question": ASKED, "prompt": "b", "answer": "c"}, "two layouts fit: prompt_completion and question_answer"),
    ({"prompt": ASKED, "response": "a", "completion": "b"}, "two answers: in the columns completion and response"),
    ({"prompt": ASKED, "thinking": "a", "reasoning": "b c", "response": "d"}, "two traces"),
    (chat(("user", ASKED), ("assistant", THOUGHT, {"reasoning_content": "another"})), "two traces"),
    (chat(("user", ASKED, {"reasoning": "hm hm"}), ("assistant", "a")), "trace of a user turn"),
    ({"messages": TURNS, "images": ["a.png"]}, "column images"),
    ({"prompt": ASKED, "chosen": "a", "rejected": "b", "response": "a"}, "column chosen"),
    ({"messages": TURNS, "metadata": {"train_turns": [1]}}, "column metadata.train_turns"),
    ({"messages": TURNS, "metadata": '{"train_turns": [1]}'}, "column metadata.train_turns"),
    (chat(("user", "-"), ("assistant", "a")) | {"messages": None, "prompt": "-", "response": "a"}, "placeholder"),
    (chat(("user", ASKED), ("assistant", "a", {"weight": 0.5})), "unknown weight"),
    (chat(("user", ASKED), ("assistant", "a", {"weight": 0, "train": True})), "weights contradict each other"),
    (chat(("user", ASKED, {"weight": 1}), ("assistant", "a")), "weight of a user turn"),
    (chat(("user", ASKED), ("assistant", "a", {"tool_calls": [CALL]})), "ends with a tool call"),
    (chat(("user", ASKED, {"tool_calls": [CALL]}), ("assistant", "a")), "tool calls of a user turn"),
    ({"problem": ASKED, "generations": ["a", "b"], "correctness": [False, False]}, "no right answer"),
    ({"problem": ASKED, "generated_solution": "a", "is_correct": False}, "no right answer"),
    ({"messages": {"role": ["user"], "content": ["a", "b"]}}, "wrong type: the lists in messages differ in length"),
    ({"messages": TURNS, "chat_template_kwargs": {"enable_thinking": False}}, "contradicts its switch"),
    ({"messages": [{"role": "user", "content": f"/no_think {ASKED}"}, TURNS[1]]}, "contradicts its switch"),
    ({"messages": TURNS, "reasoning": "perhaps"}, "unknown reasoning"),
]


@pytest.mark.parametrize(("value", "reason"), SPOILT)
def test_what_is_in_the_way_is_named(value: dict[str, Any], reason: str) -> None:
    with pytest.raises(RowError, match=f"^{re.escape(reason)}"):
        parse(value)


READ_NAMES = frozenset(name for row in READ.values() for name in row)
KNOWN = (
    IGNORED | READ_NAMES | set(REFUSED) | set(COMMON) | frozenset(name for layout in LAYOUTS for name in layout.reads)
)


@given(name=st.text(min_size=1, max_size=8).filter(lambda name: name not in KNOWN), value=st.text(min_size=1))
def test_any_unknown_column_is_counted_and_changes_nothing(name: str, value: str) -> None:
    row = parse({"messages": TURNS, name: value})
    assert (row.messages[-1].content, row.unknown) == (THOUGHT, {name})
    for nothing in (None, "", [], {}):
        assert parse({"messages": TURNS, name: nothing}).unknown == frozenset()


@given(name=st.text("xyzäö_", min_size=4, max_size=8))
def test_any_unknown_key_of_a_turn_is_counted(name: str) -> None:
    assert parse(chat(("user", ASKED, {name: 1}), ("assistant", ANSWER))).unknown == {f"messages.{name}"}


@pytest.mark.parametrize("name", sorted(REFUSED))
def test_every_refused_column_is_refused_by_name_unless_it_is_empty(name: str) -> None:
    with pytest.raises(RowError, match=f"^column {name}: "):
        parse({"messages": TURNS, name: ["x"]})
    for nothing in (None, "", [], {}):
        assert said({"messages": TURNS, name: nothing}) == ON


@given(
    nulls=st.sets(st.sampled_from(sorted({name for layout in LAYOUTS for name in layout.reads}))),
    name=st.sampled_from(sorted(READ)),
)
def test_null_is_absent_before_a_layout_is_chosen(nulls: set[str], name: str) -> None:
    assert said({**dict.fromkeys(sorted(nulls - set(READ[name]))), **READ[name]}) == ON


def test_any_two_layouts_that_fit_are_an_error_or_in_the_documented_order() -> None:
    for first in LAYOUTS:
        for second in LAYOUTS:
            rows = [_example(layout.turns, layout.question, layout.answer) for layout in (first, second)]
            if first is second or LAYOUTS.index(first) > LAYOUTS.index(second):
                continue
            both = rows[1] | rows[0]
            if (first.name, second.name) in ORDER:
                assert said(both)[1].startswith(ASKED)
            else:
                with pytest.raises(RowError, match="two layouts fit|two answers"):
                    parse(both)


def _example(turns: tuple[str, ...], question: tuple[str, ...], answer: tuple[str, ...]) -> dict[str, Any]:
    return {turns[0]: TURNS} if turns else {question[0]: ASKED, answer[0]: THOUGHT}


def columns_of(names: dict[str, Any]) -> Any:
    parts = ("question", "answer", "trace", "system", "turns", "role", "content", "weight")
    return declared(ColumnSettings(**{**dict.fromkeys(parts), "ignore": [], **names}))


def test_a_mapping_reads_any_names() -> None:
    columns = columns_of({"question": "frage", "answer": "antwort", "trace": "gedanken", "system": "rolle"})
    row = {"frage": ASKED, "antwort": ANSWER, "gedanken": TRACE, "rolle": "Be kind.", "answer": "not this"}
    assert said(row, mapping=columns) == ["detailed thinking on\n\nBe kind.", *ON[1:]]
    turns = columns_of({"turns": "verlauf", "role": "wer", "content": "was", "weight": "zählt"})
    row = {"verlauf": [{"wer": "user", "was": ASKED}, {"wer": "assistant", "was": THOUGHT, "zählt": 1}], "messages": 5}
    assert said(row, mapping=turns) == ON
    with pytest.raises(RowError, match="data.columns names"):
        parse({"messages": TURNS}, mapping=columns)
    assert columns_of({}) is None
    with pytest.raises(ConfigError, match="question and answer"):
        columns_of({"answer": "antwort"})
