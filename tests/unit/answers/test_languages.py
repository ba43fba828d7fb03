"""Answers as models state them: choices in English and other languages, numbers, and what states nothing."""

import json
from pathlib import Path

import pytest

from nemo_reasoning.answers import answers_equal, extract_choice, extract_number

CHOICES = ["Paris", "London", "Rome", "Berlin"]
_FILE = Path(__file__).parents[2] / "data" / "answers_stated.jsonl"
STATED = [json.loads(line) for line in _FILE.read_text(encoding="utf-8").splitlines()]


@pytest.mark.parametrize(("text", "choice"), [(case["text"], case["choice"]) for case in STATED if "choice" in case])
def test_a_choice_is_read_in_every_dressing_and_language(text: str, choice: str | None) -> None:
    assert extract_choice(text, choices=CHOICES) == choice


@pytest.mark.parametrize(("text", "number"), [(case["text"], case["number"]) for case in STATED if "number" in case])
def test_a_number_is_read_in_every_language_and_notation(text: str, number: str) -> None:
    found = extract_number(text)
    assert found is not None
    assert answers_equal(found, number)


def test_the_twelve_most_spoken_languages_are_among_them() -> None:
    languages = {case["language"] for case in STATED}
    assert languages >= {"en", "zh", "hi", "es", "ar", "fr", "bn", "pt", "ru", "ur", "id", "de"}
