"""How a question is put to a model, and how its completion is judged."""

from collections.abc import Mapping, Sequence

from nemo_reasoning.answers import first_final_letter, is_refusal
from nemo_reasoning.answers.choices import LETTERS
from nemo_reasoning.config.evaluate import ProtocolName
from nemo_reasoning.errors import ConfigError
from nemo_reasoning.evaluation.benchmarks.question import Question
from nemo_reasoning.evaluation.samples import Sample
from nemo_reasoning.inference.request import Completion
from nemo_reasoning.reasoning.messages import Mode

# Word for word, white space included: tutorials/llm/reasoning/evaluation/deploy_and_get_responses.py in NVIDIA/NeMo.
_NVIDIA_PROMPT = (
    "Given the following question and four candidate answers (A, B, C and D), choose the best answer.\n"
    "        Question: {question} A. {0} B. {1} C. {2} D. {3}\n"
    "        For simple problems, directly provide the answer with minimal explanation. For complex problems, use "
    "step-by-step format. Always conclude with: The final answer is [the_answer_letter], where the "
    "[the_answer_letter] is one of A, B, C or D."
)


def render_prompt(
    question: Question, *, protocol: ProtocolName, template: str, examples: Mapping[str, Sequence[Question]]
) -> str:
    """Return the user turn that asks a question.

    Args:
        question: What to ask.
        protocol: NVIDIA's replaces the template and shows no examples.
        template: With the places {question}, {choices} and {letters}.
        examples: Solved questions by subject, those under "" for any other; shown first, each with its answer.

    Raises:
        ConfigError: The protocol cannot ask this question, or the template names another place.
    """
    if protocol is ProtocolName.nvidia:
        if len(question.choices) != 4:
            raise ConfigError("protocol=nvidia asks for one of four letters: use it with gpqa_* and mmlu*")
        return _NVIDIA_PROMPT.format(*question.choices, question=question.text)
    shown = examples.get(question.subject) or examples.get("", ())
    solved = [f"{_filled(example, template)} {example.answer}" for example in shown]
    return "\n\n".join([*solved, _filled(question, template)])


def _filled(question: Question, template: str) -> str:
    letters = LETTERS[: len(question.choices)]
    try:
        return template.format(
            question=question.text,
            choices="\n".join(f"{letter}. {text}" for letter, text in zip(letters, question.choices, strict=True)),
            letters=", ".join(letters[:-1]) + f" or {letters[-1]}" if letters else "",
        )
    except (KeyError, IndexError, ValueError) as error:
        raise ConfigError(
            f"the prompt {template!r} has a place other than question, choices and letters ({error}); write other "
            "braces twice"
        ) from error


def judge(
    question: Question,
    completion: Completion,
    *,
    protocol: ProtocolName = ProtocolName.ours,
    prompt: str,
    mode: Mode,
    budget: int | None = None,
    index: int = 0,
    limit: int | None = None,
    seconds: float = 0.0,
) -> Sample:
    """Return the verdict on a completion.

    Ours never searches the thinking for the answer. NVIDIA's takes the first "The final answer is X" of the
    whole text, and nothing else. A server that returns thinking and counts no token of it has not measured it.
    """
    counted = completion.reasoning_tokens or not completion.reasoning
    if protocol is ProtocolName.nvidia:
        extracted = first_final_letter(completion.text)
    else:
        extracted = question.extract(completion.answer)
    return Sample(
        question=question.id,
        family=question.subject,
        mode=mode,
        budget=budget,
        index=index,
        prompt=prompt,
        expected=question.answer,
        extracted=extracted,
        correct=extracted is not None and question.accepts(extracted),
        well_formed=completion.well_formed,
        truncated=completion.finish_reason == "length",
        refused=extracted is None and is_refusal(completion.answer),
        reasoning=completion.reasoning,
        answer=completion.answer,
        text=completion.text,
        completion_tokens=completion.completion_tokens,
        reasoning_tokens=completion.reasoning_tokens if counted else None,
        max_new_tokens=limit if completion.lowered_to is None else completion.lowered_to,
        seconds=seconds,
    )
