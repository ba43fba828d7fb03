"""Long answers that repeat themselves, as models that loop write them, take time in proportion to their length."""

from contextlib import suppress

import pytest

from nemo_reasoning.answers import answers_equal, extract_choice, extract_final_answer, extract_number
from nemo_reasoning.reasoning.switch import find_switch
from nemo_reasoning.reasoning.trace import TraceError, split_trace

LENGTH = 100_000
REPEATED = (
    *(
        "(",
        "{",
        "\\frac",
        "<",
        "$",
        " ",
        '"',
        "\\(",
        "½",
        ",111",
        "\\boxed{",
        "<answer>",
        "answer: ",
        "if answer ",
        "####",
    ),
    *(
        "A is correct ",
        "answer is not ",
        "answer to ",
        "option ",
        "1",
        "choose A ",
        "* ",
        "x\n",
        ") ",
        "`<think>",
        "/think ",
    ),
)
BEGINNINGS = ("", "The answer is ", "1é", "A", "option", "<think>", "```\n")


@pytest.mark.timeout(60)  # what is not linear takes hours
@pytest.mark.parametrize("part", REPEATED)
def test_what_is_repeated_takes_linear_time(part: str) -> None:
    for beginning in BEGINNINGS:
        text = f"{beginning}{part * (LENGTH // len(part) // len(BEGINNINGS))}x"
        extract_final_answer(text, last_number=True)
        extract_number(text)
        extract_choice(text, choices=["1", "2"])
        assert not answers_equal(text, "1")
        find_switch(text, "user")
        with suppress(TraceError):
            split_trace(text)
