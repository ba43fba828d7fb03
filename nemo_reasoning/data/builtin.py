"""Problems with verifiable answers and written-out steps, for the demonstration and for tests.

Three families, each easy with a few written steps and hard for a small model without them: every
step is a sum or a product that such a model gets right, the whole is not. Rows come in the schema
of nvidia/Llama-Nemotron-Post-Training-Dataset.
"""

import hashlib
import math
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import accumulate, product
from typing import Any

from nemo_reasoning.errors import DataError
from nemo_reasoning.reasoning.messages import Mode
from nemo_reasoning.reasoning.switch import THINK_SYSTEM
from nemo_reasoning.reasoning.tags import with_thinking

HELD_OUT_SHARE = 5  # one problem in this many is never trained on


@dataclass(frozen=True, slots=True)
class Problem:
    """A question with its steps and its answer.

    Attributes:
        family: Kind of problem.
        prompt: The question.
        trace: Steps that lead to the answer.
        answer: The value asked for.
        final: The sentence that states it.
    """

    family: str
    prompt: str
    trace: str
    answer: str
    final: str

    @property
    def held_out(self) -> bool:
        """Whether the problem belongs to the held-out part of its family: a property of its text."""
        digest = hashlib.sha256(f"{self.family}:{self.prompt}".encode()).digest()
        return digest[0] % HELD_OUT_SHARE == 0


@dataclass(frozen=True, slots=True)
class _Family:
    """All problems of a kind: one for each choice of the numbers in it."""

    ranges: tuple[range, ...]
    build: Callable[..., Problem]

    def draw(self, numbers: random.Random) -> Problem:
        return self.build(*(numbers.choice(choices) for choices in self.ranges))

    def part(self, *, held_out: bool) -> list[Problem]:
        every = (self.build(*numbers) for numbers in product(*self.ranges))
        return [problem for problem in every if problem.held_out == held_out]


def _problem(family: str, prompt: str, steps: list[str], value: int) -> Problem:
    return Problem(family, prompt, "\n".join(steps), str(value), f"The answer is {value}.")


def _product(left: int, right: int) -> Problem:
    """Return a product by place values; a second part of two digits is added in two steps."""
    tens, ones = left // 10 * 10, left % 10
    steps = [f"{tens} * {right} = {tens * right}", f"{ones} * {right} = {ones * right}"]
    parts = [part for part in (ones * right // 10 * 10, ones * right % 10) if part] or [0]
    return _problem("product", f"What is {left} times {right}?", steps + _sums(tens * right, parts), left * right)


def _chain(start: int, added: int, factor: int, last: int) -> Problem:
    """Return three small operations, one after the other."""
    first = start + added
    steps = [
        f"{start} + {added} = {first}",
        f"{first} * {factor} = {first * factor}",
        *_sums(first * factor, [last]),
    ]
    prompt = f"Start with {start}, add {added}, multiply by {factor}, add {last}. What do you get?"
    return _problem("chain", prompt, steps, first * factor + last)


def _total(first: int, *others: int) -> Problem:
    """Return a sum of four numbers, added one at a time."""
    listed = ", ".join(map(str, (first, *others[:-1])))
    return _problem("total", f"Add {listed} and {others[-1]}.", _sums(first, others), first + sum(others))


def _sums(start: int, terms: Sequence[int]) -> list[str]:
    """Return the steps that add terms to a number one at a time.

    A digit is added to the ones first: a model that writes tens before ones would have to know of a carry beforehand.
    """
    steps = []
    for before, term in zip(accumulate(terms, initial=start), terms, strict=False):
        tens, ones = before // 10 * 10, before % 10
        if tens and ones and term < 10:
            steps += [f"{ones} + {term} = {ones + term}", f"{tens} + {ones + term} = {before + term}"]
        else:
            steps.append(f"{before} + {term} = {before + term}")
    return steps


_DIGITS = range(3, 10)
FAMILIES = {
    "product": _Family((range(11, 100), _DIGITS), _product),
    "chain": _Family((range(2, 10), range(2, 10), range(2, 6), range(2, 10)), _chain),
    "total": _Family((range(11, 60), _DIGITS, _DIGITS, _DIGITS), _total),
}


def held_out(*, count: int, seed: int) -> list[Problem]:
    """Return different problems that never occur in training, the families in turn.

    Raises:
        DataError: A family has too few of them.
    """
    wanted = math.ceil(count / len(FAMILIES))
    drawn = []
    for name, family in FAMILIES.items():
        problems = family.part(held_out=True)
        if wanted > len(problems):
            raise DataError(
                f"{count} held-out problems asked for, but the family {name!r} has only {len(problems)}; "
                f"ask for at most {len(problems) * len(FAMILIES)}"
            )
        drawn.append(random.Random(f"{seed}:{name}").sample(problems, wanted))
    return [problem for turn in zip(*drawn, strict=True) for problem in turn][:count]


def training_problems(*, seed: int) -> list[Problem]:
    """Return different problems, none of them a held-out one, the families in turn until the smallest has no more."""
    parts = {name: family.part(held_out=False) for name, family in FAMILIES.items()}
    for name, problems in parts.items():
        random.Random(f"{seed}:{name}").shuffle(problems)
    return [problem for turn in zip(*parts.values(), strict=False) for problem in turn]


def training_rows(*, count: int, seed: int, off_share: float) -> list[dict[str, Any]]:
    """Return rows in the schema of the Nemotron dataset, the families in turn; none is a held-out problem.

    Args:
        count: Number of rows.
        seed: One seed gives the same rows on every machine; a row depends on its place and the seed alone.
        off_share: Probability that a row answers without thinking.
    """
    return [_training_row(number, seed=seed, off_share=off_share) for number in range(count)]


def _training_row(number: int, *, seed: int, off_share: float) -> dict[str, Any]:
    numbers = random.Random(f"{seed}:{number}")
    mode: Mode = "off" if numbers.random() < off_share else "on"
    family = list(FAMILIES.values())[number % len(FAMILIES)]
    problem = family.draw(numbers)
    while problem.held_out:
        problem = family.draw(numbers)
    return {
        "input": [{"role": "user", "content": problem.prompt}],
        "output": with_thinking(problem.trace, problem.final) if mode == "on" else problem.final,
        "category": "math",
        "license": "Apache-2.0",
        "reasoning": mode,
        "generator": f"nemo-reasoning/{problem.family}",
        "used_in_training": ["demonstration"],
        "version": "v1",
        "system_prompt": THINK_SYSTEM[mode],
    }
