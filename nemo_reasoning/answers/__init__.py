"""Find the final answer in a text, and tell whether two answers are the same."""

from nemo_reasoning.answers.choices import extract_choice, first_final_letter
from nemo_reasoning.answers.equality import answers_equal
from nemo_reasoning.answers.extraction import extract_final_answer, extract_number, is_refusal

__all__ = [
    "answers_equal",
    "extract_choice",
    "extract_final_answer",
    "extract_number",
    "first_final_letter",
    "is_refusal",
]
