"""A question with a known answer."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from random import Random
from typing import Literal

from nemo_reasoning.answers import answers_equal, extract_choice, extract_final_answer, extract_number
from nemo_reasoning.answers.choices import LETTERS

Kind = Literal["choice", "number", "math", "text"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """What is asked, and what is right.

    Attributes:
        id: Different for every question of a benchmark, the same whenever it is read.
        text: The question, without its choices.
        choices: In the order shown; empty if the answer is not one of several.
        answer: The letter of the right choice, or the answer itself.
        kind: How an answer is found and compared.
        subject: Part of the benchmark it belongs to.
    """

    id: str
    text: str
    choices: tuple[str, ...]
    answer: str
    kind: Kind
    subject: str

    def extract(self, text: str) -> str | None:
        """Return the answer that a text without thinking gives, or None."""
        if self.kind == "choice":
            return extract_choice(text, choices=self.choices)
        if self.kind == "number":
            return extract_number(text)
        return extract_final_answer(text, last_number=self.kind == "math")

    def accepts(self, extracted: str) -> bool:
        """Tell whether an extracted answer is right."""
        return extracted == self.answer if self.kind == "choice" else answers_equal(extracted, self.answer)


def choice_question(*, id: str, text: str, choices: Sequence[str], right: int, subject: str) -> Question:
    """Return a question whose answer is the choice of index `right`.

    Raises:
        ValueError: There is no such choice.
    """
    if not 0 <= right < len(choices) <= len(LETTERS):
        raise ValueError(f"choice {right} of {len(choices)} is right")
    return Question(
        id=id,
        text=text.strip(),
        choices=tuple(choice.strip() for choice in choices),
        answer=LETTERS[right],
        kind="choice",
        subject=subject,
    )


def shuffled(question: Question, numbers: Random) -> Question:
    """Return the question with its choices, if it has any, in another order, and the letter that is now right."""
    if not question.choices:
        return question
    order = list(range(len(question.choices)))
    numbers.shuffle(order)
    right = LETTERS.index(question.answer)
    return replace(
        question,
        choices=tuple(question.choices[place] for place in order),
        answer=LETTERS[order.index(right)],
    )
