"""Budgets of thinking are exact, whatever a model wants to write."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pieces import END, PIECES, TOKENIZER, request, thinking_tokens, write, write_offered

from nemo_reasoning.errors import EngineError
from nemo_reasoning.inference.detokenizer import StopFinder
from nemo_reasoning.reasoning.messages import Mode
from nemo_reasoning.reasoning.tags import split_thinking

TOKENS = st.integers(0, len(PIECES) - 1)
OPEN, CLOSE = PIECES.index("<think>"), PIECES.index("</think>")
wishes = st.one_of(
    st.lists(TOKENS, min_size=1, max_size=70),
    st.lists(TOKENS, min_size=1, max_size=70).map(lambda tokens: [OPEN, *tokens]),
)

stops = st.lists(st.sampled_from(["a", "b ", "ab", "42", "</", "\n", "think", "aa", "."]), max_size=2).map(tuple)


def tokens_of(*pieces: str) -> list[int]:
    return [PIECES.index(piece) for piece in pieces]


@settings(max_examples=500)
@given(
    wanted=wishes,
    mode=st.sampled_from(["on", "off"]),
    thinking=st.booleans(),
    budget=st.none() | st.integers(0, 20),
    limit=st.integers(1, 80),
    least=st.integers(0, 20),
    stop=stops,
)
def test_whatever_a_model_wants_the_limits_hold_and_all_views_agree(
    wanted: list[int], mode: Mode, thinking: bool, budget: int | None, limit: int, least: int, stop: tuple[str, ...]
) -> None:
    budget = None if mode == "off" else budget
    least = 0 if mode == "off" else least if budget is None else min(least, budget)
    asked = request(mode=mode, budget=budget, limit=limit, least=least, stop=stop)
    completion, deltas, tokens = write(asked, wanted, thinking=thinking)
    assert completion.reasoning_tokens == thinking_tokens(tokens, thinking=thinking)
    if mode == "off" or budget is not None:
        assert completion.reasoning_tokens <= (budget or 0)
    cut_short = limit <= TOKENIZER.forced_tokens.longest_closing + 1  # too few tokens to close a block of the prompt
    assert completion.answer.strip() or stop or (thinking and cut_short)
    assert completion.completion_tokens <= limit
    if least and limit > 60 and not thinking:
        assert completion.reasoning_tokens >= least
    # One text: deltas, the whole, the parser and the log-probabilities say the same.
    assert "".join(delta.reasoning for delta in deltas) == completion.reasoning
    assert "".join(delta.answer for delta in deltas) == completion.answer
    whole = split_thinking(TOKENIZER.decode(tokens), mode, prefilled=thinking)
    finder = StopFinder(stop)
    assert (completion.reasoning, completion.answer) == (whole.reasoning, finder.push(whole.answer) + finder.finish())
    assert not any(word in completion.answer for word in stop)
    assert len(completion.logprobs) == completion.completion_tokens
    streamed = tuple(entry for delta in deltas for entry in delta.logprobs)
    assert streamed == tuple(entry for entry in completion.logprobs if entry.part != "end")
    for entries in (streamed, completion.logprobs):
        assert "".join(entry.text for entry in entries if entry.part == "answer") == completion.answer
    if PIECES.index("x</think>y") not in tokens:  # which thinks and answers at once
        assert sum(entry.part == "thinking" for entry in completion.logprobs) == completion.reasoning_tokens


@given(wanted=wishes, limit=st.integers(20, 60))
def test_an_answer_that_has_begun_is_the_models(wanted: list[int], limit: int) -> None:
    wanted = [PIECES.index("a"), *wanted]
    completion, _, tokens = write(request(limit=limit), wanted)
    expected = [wanted[min(place, len(wanted) - 1)] for place in range(limit)]
    ended = END in expected
    assert tokens == (expected[: expected.index(END)] if ended else expected)
    assert completion.answer == TOKENIZER.decode(tokens)
    assert completion.reasoning_tokens == 0
    assert completion.finish_reason == ("stop" if ended else "length")


def test_the_beginning_of_a_tag_is_taken_back() -> None:
    wanted = tokens_of("\n", "<", "think", ">", "42")
    completion, deltas, tokens = write(request(mode="off", limit=20), [*wanted, END])
    assert "think" not in completion.text
    assert completion.answer.startswith("/")  # the next best token at the place of "<"
    assert "".join(delta.answer for delta in deltas) == completion.answer


@pytest.mark.parametrize(
    ("budget", "least", "pieces", "text"),
    [
        (3, 0, ["<think>\n", "a", "a", "a"], "<think>\naa\n</think>\n\na"),  # a newline stands before the tag
        (1, 0, ["<think>", "a", "42"], "<think>a</think>\n\n42"),
        (0, 0, ["<think>", "a"], "<think></think>\n\na"),
        (2, 0, ["<think>", "</", "think", "a"], "<think></think>\n\na"),  # the tag it has begun is finished
        (2, 0, ["<think>", "<", "t", "a"], "<think><t</think>\n\na"),  # the beginning of the other tag is not
        (9, 0, ["<think>", "a", "\n", "</", "think", ">\n\n", "42"], "<think>a\n</think>\n\n42"),
        (9, 0, ["<think>", "a", "", "42"], "<think>a</think>\n\n42"),  # an end within the block closes it
        (9, 0, ["<think>", "</think>", "", "42"], "<think></think><42"),  # there is no end without an answer
        (2, 0, ["<think>", "a", "a", "</think>", "42"], "<think>a\n</think>\n\na</think>42"),  # too late, but harmless
        (9, 0, ["42", "<", "think", ">", ""], "42<think>"),  # an answer may mention a tag
        (9, 0, ["<think>", "a", "</think>", "<", "think", ">", "42"], "<think>a</think>/"),  # no second thoughts
        (9, 2, ["a", "b ", "</think>", "a"], "<think>\nab </think>a"),
        (
            9,
            3,
            ["a", ".</", "think", ">", "a"],
            "<think>\na.</Wait",
        ),  # part of the tag stands in a token with other text
    ],
)
def test_examples(budget: int, least: int, pieces: list[str], text: str) -> None:
    completion, _, _ = write(request(budget=budget, least=least, limit=60), [*tokens_of(*pieces), END])
    assert completion.text.startswith(text)


def test_a_block_closed_too_early_goes_on_with_wait() -> None:
    wanted = tokens_of("a", "a", "a", "\n", "</", "think", ">", "b ", "\n", "</think>", "42")
    completion, deltas, _ = write(request(least=6), [*wanted, END])
    assert completion.text == "<think>\naaa\nWaitb \n</think>42"
    assert completion.reasoning == "aaa\nWaitb"
    assert completion.reasoning_tokens == 7
    assert "".join(delta.reasoning for delta in deltas) == completion.reasoning


def test_the_block_is_closed_in_time_for_an_answer() -> None:
    completion, _, _ = write(request(budget=1000, limit=40), [OPEN, PIECES.index("a")])
    closing = TOKENIZER.forced_tokens.longest_closing
    assert completion.reasoning_tokens == 40 - 1 - 10 - closing
    assert len(completion.answer) >= 10


def test_the_phrases_are_the_tokens_of_the_middle_of_a_text() -> None:
    spoken = TOKENIZER.forced_tokens
    assert TOKENIZER.decode(spoken.opening) == "<think>\n"
    assert [TOKENIZER.decode(closing) for closing in spoken.closings] == [
        "</think>"[size:] + "\n\n" for size in range(8)
    ]
    assert (TOKENIZER.decode(spoken.wait), TOKENIZER.decode(spoken.newline)) == ("Wait", "\n")


def test_stop_strings_end_the_answer_and_not_the_thinking() -> None:
    wanted = tokens_of("<think>", "a", "b ", "</think>", "42", " ", "a", "b ", "t")
    completion, deltas, _ = write(request(stop=("ab", "zz")), wanted)
    assert (completion.reasoning, completion.answer, completion.finish_reason) == ("ab", "42 ", "stop")
    assert completion.text == "<think>ab </think>42 "
    assert "".join(delta.answer for delta in deltas) == "42 "


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"budget": -1}, "thinking_budget=-1"),
        ({"budget": 3, "least": 4}, "min_thinking=4"),
        ({"budget": 3, "mode": "off"}, "mode=off"),
        ({"stop": ("",)}, "empty string"),
    ],
)
def test_contradictions_are_refused(fields: dict[str, object], message: str) -> None:
    with pytest.raises(EngineError, match=message):
        request(**fields)


@given(
    wanted=wishes, budget=st.none() | st.integers(0, 12), mode=st.sampled_from(["on", "off"]), thinking=st.booleans()
)
def test_tokens_that_come_from_elsewhere_keep_the_limits_too(
    wanted: list[int], budget: int | None, mode: Mode, thinking: bool
) -> None:
    asked = request(budget=budget if mode == "on" else None, mode=mode)
    expected, _, _ = write(asked, wanted, thinking=thinking)
    found = write_offered(asked, wanted, thinking=thinking)
    assert (found.text, found.reasoning_tokens) == (expected.text, expected.reasoning_tokens)
