"""Rows in 20 layouts and 10 kinds of damage, shuffled into one file: every row is accounted for by name."""

import json
import random
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from prepared_rows import digests, lines_of, prepared

from nemo_reasoning.artifacts import read_manifest

TRACE = "We add both numbers and find the sum."


def thought(number: int) -> str:
    return f"<think>\n{TRACE}\n</think>\n\nIt is {number}."


def asked(layout: str, number: int) -> str:
    return f"Question {number} of {layout}?"


def _turns(question: str, answer: str, **more: Any) -> list[dict[str, Any]]:
    return [{"role": "user", "content": question}, {"role": "assistant", "content": answer, **more}]


def rows_of(number: int) -> dict[str, tuple[dict[str, Any], str]]:
    """Return a row of each layout with the mode it is to have."""
    q = {name: asked(name, number) for name in LAYOUTS}
    on, off = thought(number), f"It is {number}."
    headers = "<|start_header_id|>user<|end_header_id|>\n\n{}<|eot_id|>"
    return {
        "messages": ({"messages": _turns(q["messages"], on)}, "on"),
        "reasoning_content": ({"messages": _turns(q["reasoning_content"], off, reasoning_content=TRACE)}, "on"),
        "parts": ({"messages": _turns(q["parts"], [{"type": "text", "text": off}])}, "off"),
        "developer": ({"messages": [{"role": "developer", "content": "Be kind."}, *_turns(q["developer"], on)]}, "on"),
        "text": ({"messages": json.dumps(_turns(q["text"], on))}, "on"),
        "struct": ({"messages": {"role": ["user", "assistant"], "content": [q["struct"], off]}}, "off"),
        "weights": ({"messages": [*_turns("Hi", "9", weight=0), *_turns(q["weights"], off)]}, "off"),
        "arguments": (
            {"messages": _turns(q["arguments"], off), "chat_template_kwargs": {"enable_thinking": False}},
            "off",
        ),
        "command": ({"messages": _turns(q["command"] + " /no_think", off)}, "off"),
        "sharegpt": (
            {"conversations": [{"from": "human", "value": q["sharegpt"]}, {"from": "gpt", "value": on}]},
            "on",
        ),
        "openthoughts": (
            {
                "system": "Be brief.",
                "conversations": [
                    {"from": "user", "value": q["openthoughts"]},
                    {"from": "assistant", "value": f"<|begin_of_thought|>{TRACE}<|end_of_thought|>{off}"},
                ],
            },
            "on",
        ),
        "alpaca": ({"instruction": q["alpaca"], "input": "", "output": off}, "off"),
        "nemotron": ({"input": _turns(q["nemotron"], "")[:1], "output": on, "reasoning": "on"}, "on"),
        "older": ({"input": headers.format(q["older"]), "output": off + "<|eot_id|>", "reasoning": "off"}, "off"),
        "completion": ({"prompt": q["completion"], "completion": on}, "on"),
        "completion turns": (
            {"prompt": _turns(q["completion turns"], "")[:1], "completion": [{"role": "assistant", "content": on}]},
            "on",
        ),
        "trace column": ({"question": q["trace column"], "thinking": TRACE, "answer": off}, "on"),
        "generations": (
            {"problem": q["generations"], "generations": ["Nine.", on], "correctness": [False, True]},
            "on",
        ),
        "s1k": ({"question": q["s1k"], "thinking_trajectories": [TRACE], "attempt": off, "solution": "8"}, "on"),
        "closing tag": ({"prompt": q["closing tag"], "response": f"{TRACE}\n</think>\n\n{off}"}, "on"),
    }


LAYOUTS = (
    *("messages", "reasoning_content", "parts", "developer", "text", "struct", "weights", "arguments", "command"),
    *("sharegpt", "openthoughts", "alpaca", "nemotron", "older", "completion", "completion turns", "trace column"),
    *("generations", "s1k", "closing tag"),
)
DAMAGE: dict[str, bytes | dict[str, Any]] = {
    "quarantined: not JSON": b'{"messages": [',
    "quarantined: not UTF-8": b'{"messages": "\xff"}',
    "quarantined: not an object": b"[1, 2, 3]",
    "quarantined: missing keys": {"text": "free text"},
    "quarantined: wrong type": {"messages": "no JSON"},
    "quarantined: column images": {"messages": _turns("a", "b"), "images": ["a.png"]},
    "quarantined: two layouts fit": {"messages": _turns("a", "b"), "prompt": "a", "response": "b"},
    "quarantined: unknown role": {"messages": [{"role": "narrator", "content": "a"}]},
    "quarantined: empty answer": {"prompt": "a", "response": "\u200b"},
    "unclosed_think": {"prompt": "a", "response": "<thinking>never closed"},
}
CHOSEN = ("data=jsonl", "data.max_quarantined_share=1", "data.thinking_off_share=0", "data.validation_share=0.3")


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    lines = [json.dumps(row).encode() for number in range(10) for row, _ in rows_of(number).values()]
    lines += [row if isinstance(row, bytes) else json.dumps(row).encode() for row in DAMAGE.values()]
    random.Random(1).shuffle(lines)
    path = tmp_path / "rows.jsonl"
    path.write_bytes(b"\n".join(lines) + b"\n")
    return path


def test_every_row_of_every_layout_and_damage_is_accounted_for(corpus: Path, tmp_path: Path) -> None:
    for workers in (1, 2):
        prepared(tmp_path / f"{workers}" / "out", *CHOSEN, f"data.paths=[{corpus}]", f"data.workers={workers}")
    assert digests(tmp_path / "1" / "out") == digests(tmp_path / "2" / "out")
    out = tmp_path / "1" / "out"
    assert read_manifest(out)["counts"]["outcomes"]["rows"] == {**dict.fromkeys(DAMAGE, 1), "kept": 200}
    lines = [line["messages"] for name in ("training", "validation") for line in lines_of(out / f"{name}.jsonl")]
    found = Counter((turns[0]["content"].split("\n")[0], turns[-2]["content"].split(" of ")[1]) for turns in lines)
    wanted = {(f"detailed thinking {mode}", f"{name}?"): 10 for name, (_, mode) in rows_of(0).items()}
    assert found == wanted
    for turns in lines:
        number = int(turns[-2]["content"].split()[1])
        assert turns[-1]["content"] in (thought(number), f"It is {number}.")
    assert {row["reason"] for row in lines_of(out / "quarantine.jsonl")} == {
        name.removeprefix("quarantined: ") for name in DAMAGE if name.startswith("quarantined: ")
    }
