"""Names of columns, and of keys of turns: what holds a trace, what changes a row's meaning, what says nothing."""

import re
from typing import Any

from nemo_reasoning.reasoning.switch import stated_mode

# Where data sets keep a trace, in a turn or in the row.
TRACES = (
    "reasoning_content",
    "reasoning",
    "thinking",
    "thinking_content",
    "thinking_process",
    "thinking_trace",
    "thinking_trajectories",
    "thinking_trajectory",
    "thought",
    "thoughts",
    "think",
    "deepseek_thinking_trajectory",
    "deepseek_reasoning",
    "deepseek_reasoning_content",
    "r1_reasoning",
    "reasoning_trace",
    "reasoning_text",
    "reasoning_process",
    "reasoning_chain",
    "trace",
    "chain_of_thought",
    "complex_cot",
    "cot",
)
# Columns that change what a row means and are not supported: why. The same holds for keys of turns.
REFUSED: dict[str, str] = {
    **dict.fromkeys(("image", "images", "video", "videos", "audio", "audios"), "text is all that can be trained on"),
    **dict.fromkeys(("chosen", "rejected"), "preference pairs are no targets; keep the chosen answer as an answer"),
    **dict.fromkeys(("functions", "function_call"), "write them as tools and tool_calls"),
    **dict.fromkeys(("weight", "train", "loss_mask", "trainable"), "it belongs into turns; drop or repeat whole rows"),
    **dict.fromkeys(("loss_weight", "sample_weight", "weights"), "rows are trained on or not; drop or repeat them"),
    **dict.fromkeys(("train_detail", "loss_spans", "masks", "mask"), "whole turns are trained on or not"),
    "kto_tag": "labels of good and bad answers are no targets; keep the good ones",
}
# Columns that belong to a question, and refuse a row whose layout does not read them.
QUESTION_PARTS: dict[str, str] = dict.fromkeys(
    ("input", "context", "contexts", "documents", "passages", "passage", "options", "choices", "instructions"),
    "it may belong to the question; put it there",
)
# Columns that say where a row comes from or how it was made, and nothing about what it teaches.
IGNORED = frozenset(
    """
    _id accuracy agent_ref answer_type author avg_length category categories choices_source code_language
    complexity conversation_id correct_answer correctness_count cot_type created_at created_timestamp data_source
    dataset date difficulty domain embedding expected_answer extra extra_info gemini_grade
    gemini_grade_reason generator ground_truth hash hf_url id idx inference_mode index instruction_id is_synthetic
    lang language languages length level license licence meta metadata model model_name n_tokens name num_tokens
    num_turns original_index pass_rate_72b_tir pass_rate problem_id problem_is_valid problem_source problem_type
    prompt_id quality question_id question_type reference references row_id sample_id score seed solution_is_valid
    source source_id source_type split subset sub_category subdomain subject synthetic tags task timestamp token_count
    topic topics type url used_in used_in_training uuid verdict_source version word_count year deepseek_grade
    deepseek_grade_reason generation_model message_lens responses_lens test_cases starter_code input_format
    output_format time_limit memory_limit
    """.split()  # noqa: SIM905 - a list of words
)
# Keys of turns that say nothing about what they teach.
IGNORED_KEYS = frozenset({"id", "index", "timestamp", "model", "refusal", "annotations", "date", "lang", "language"})
EMPTY: tuple[Any, ...] = (None, "", [], {}, "[]", "{}")

_HUMP = re.compile(r"(?<=[a-z0-9])(?=[A-Z])")
_WORD, _SIGN = re.compile(r"[a-z]+"), re.compile(r"[\s_.-]+")
_TRACE_WORDS = frozenset(
    [
        "think",
        "thinks",
        "thinking",
        "thought",
        "thoughts",
        "reasoning",
        "cot",
        "rationale",
        "scratchpad",
        "trajectory",
        "trace",
        "monologue",
    ]
)
_WEIGHT_WORDS = frozenset(
    [
        "weight",
        "weights",
        "loss",
        "mask",
        "masked",
        "train",
        "training",
        "trainable",
        "trained",
        "supervised",
        "learn",
        "target",
    ]
)


def _words(name: str) -> frozenset[str]:
    """Return the words of a name: of `thinkingSteps` and `Thinking-Steps` thinking and steps."""
    return frozenset(_WORD.findall(_HUMP.sub("_", name).lower()) + _WORD.findall(name.lower()))


def _compact(name: str) -> str:
    return _SIGN.sub("", name.lower())


def may_be_trace(name: str, value: Any) -> bool:
    """Tell whether a column or key that nobody knows speaks of thinking, and holds more than a word."""
    if _TRACE_WORDS.isdisjoint(_words(name)):
        return False
    if isinstance(value, str):
        return " " in value.strip() and stated_mode(value) is None
    return isinstance(value, list | dict)


def may_be_weight(name: str, value: Any) -> bool:
    """Tell whether a key of a turn that nobody knows may say that the turn is not to be trained on."""
    return value not in (1, *EMPTY) and not _WEIGHT_WORDS.isdisjoint(_words(name))


def renamed(names: tuple[str, ...], known: frozenset[str]) -> dict[str, str]:
    """Return the known name of each name that is one but for case and signs, as `reasoningContent` is.

    Those that would then stand there twice are left as they are.
    """
    plainly = {_compact(name): name for name in sorted(known)}
    found = {name: plainly[_compact(name)] for name in names if name not in known and _compact(name) in plainly}
    taken = [*found.values(), *names]
    return {name: plain for name, plain in found.items() if taken.count(plain) == 1}
