"""Layouts of rows: declared objects that say which columns are read, and what becomes of all the others.

A column is read by the row's layout, refused by name because it changes what the row means, known to change
nothing, or unknown: then it is counted and named. A value that is null is absent, before a layout is chosen.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, fields
from functools import lru_cache
from typing import Any

from nemo_reasoning.data.schemas.turns import TRACE_KEYS, TurnKeys
from nemo_reasoning.errors import ConfigError, RowError

# Columns that change what a row means and are not supported: why.
REFUSED: dict[str, str] = {
    **dict.fromkeys(("image", "images", "video", "videos", "audio", "audios"), "text is all that can be trained on"),
    **dict.fromkeys(("chosen", "rejected"), "preference pairs are no targets; keep the chosen answer as an answer"),
    **dict.fromkeys(("functions", "function_call"), "write them as tools and tool_calls"),
    **dict.fromkeys(("loss_weight", "sample_weight", "weights"), "rows are trained on or not; drop or repeat them"),
    **dict.fromkeys(("train_detail", "loss_spans", "masks"), "whole turns are trained on or not"),
    "kto_tag": "labels of good and bad answers are no targets; keep the good ones",
}
# Columns that say where a row comes from or how it was made, and nothing about what it teaches.
IGNORED = frozenset(
    """
    _id accuracy agent_ref answer_type author avg_length category categories choices_source code_language
    complexity conversation_id correct_answer correctness_count cot_type created_at created_timestamp data_source
    dataset date difficulty domain embedding expected_answer extra extra_info finish_reasons gemini_grade
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
COMMON = (
    "reasoning",
    "system_prompt",
    "system",
    "tools",
    "chat_template_kwargs",
    "enable_thinking",
    "license",
    "category",
)
TRACES = (
    *TRACE_KEYS,
    "thinking_trajectories",
    "thinking_trajectory",
    "deepseek_thinking_trajectory",
    "deepseek_reasoning",
    "reasoning_trace",
    "trace",
    "chain_of_thought",
)
VERDICTS = (
    "correctness_math_verify",
    "correctness_llama",
    "correctness",
    "verified",
    "is_correct",
    "is_verified",
    "is_reasoning_complete",
)


@dataclass(frozen=True, slots=True)
class Layout:
    """Which columns hold what. Of several names the first that a row has is read; `answer` names must be alone.

    Attributes:
        name: For messages and tables.
        turns: A whole dialogue.
        question: What the user asks: text, turns, or a prompt with Llama 3's headers.
        context: What belongs to the question and is put below it.
        answer: What the assistant says: text, turns, or a list of texts to choose from.
        reference: Read as the answer where none of `answer` is there, and otherwise a reference to check it by.
        trace: What the assistant thinks before the answer; must be alone.
        system: The system turn.
        history: Earlier pairs of question and answer.
        verdicts: Whether an answer is right; a list judges a list of answers.
        turn: Names within turns.
    """

    name: str
    turns: tuple[str, ...] = ()
    question: tuple[str, ...] = ()
    context: tuple[str, ...] = ()
    answer: tuple[str, ...] = ()
    reference: tuple[str, ...] = ()
    trace: tuple[str, ...] = TRACES
    system: tuple[str, ...] = ("system_prompt", "system")
    history: tuple[str, ...] = ()
    verdicts: tuple[str, ...] = ()
    turn: TurnKeys = field(default_factory=TurnKeys)

    @property
    def reads(self) -> frozenset[str]:
        """All columns that are read."""
        names = (getattr(self, column.name) for column in fields(self) if column.name not in ("name", "turn"))
        return frozenset(name for group in names for name in group)

    def fits(self, columns: frozenset[str]) -> bool:
        """Tell whether a row with these columns can have this layout."""
        if self.turns:
            return not columns.isdisjoint(self.turns)
        answers = {*self.answer, *self.reference}
        return not columns.isdisjoint(self.question) and not columns.isdisjoint(answers)


DECLARED = "data.columns"  # name of the layout that the settings declare
_ANSWERS = ("completion", "response", "output", "generation", "generated_solution", "generations", "solutions")
LAYOUTS = (
    Layout("messages", turns=("messages",)),
    Layout("sharegpt", turns=("conversations", "conversation")),
    Layout(
        "alpaca",
        question=("instruction",),
        context=("input", "context"),
        answer=("output", "response", "completion"),
        history=("history",),
    ),
    Layout("llama_nemotron", question=("input",), answer=("output",)),
    Layout("s1k", question=("question",), answer=("attempt", "deepseek_attempt"), reference=()),
    Layout(
        "prompt_completion",
        question=("prompt",),
        answer=_ANSWERS,
        reference=("answer", "solution"),
        verdicts=VERDICTS,
    ),
    Layout(
        "question_answer",
        question=("question", "problem", "query"),
        context=("context",),
        answer=(*_ANSWERS, "deepseek_solution", "r1_solution", "model_answer"),
        reference=("solution", "answer"),
        verdicts=VERDICTS,
    ),
)
# Where two layouts fit, the one named first is read if the pair stands here; any other pair is an error.
ORDER: dict[tuple[str, str], str] = {
    ("alpaca", "llama_nemotron"): "`input` belongs to the instruction",
    ("messages", "question_answer"): "OpenR1-Math-220k: the messages are made from problem and generations",
    ("sharegpt", "question_answer"): "OpenThoughts' metadata repeat problem and solution",
    ("s1k", "question_answer"): "the attempt is the model's, the solution a reference",
}


def declared(columns: Mapping[str, str | None]) -> Layout | None:
    """Return the layout that conf/data: columns names; None if it names nothing.

    Raises:
        ConfigError: It names neither turns nor a question and an answer.
    """
    named = {key: (name,) for key, name in columns.items() if name is not None}
    if not named:
        return None
    if "turns" not in named and not {"question", "answer"} <= set(named):
        raise ConfigError(
            f"data.columns names {', '.join(sorted(named))}: name turns, or question and answer, of your rows"
        )
    keys = {key: named.pop(key) for key in ("role", "content", "weight") if key in named}
    return Layout(DECLARED, **named, verdicts=VERDICTS, turn=TurnKeys(**keys))


@dataclass(frozen=True, slots=True)
class ColumnPlan:
    """What becomes of the columns of a row.

    Attributes:
        layout: The layout.
        refused: Columns that refuse the row unless they are empty.
        unknown: Columns nobody knows.
    """

    layout: Layout
    refused: tuple[str, ...]
    unknown: tuple[str, ...]


@lru_cache(maxsize=4096)
def plan_columns(columns: tuple[str, ...], mapping: Layout | None) -> ColumnPlan:
    """Return what becomes of the columns of a row, given those that are not null.

    Args:
        columns: Their names.
        mapping: The layout that the settings declare; None to find it.

    Raises:
        RowError: No layout fits, or several do.
    """
    present = frozenset(columns)
    layout = mapping or _choose(present)
    if not layout.fits(present):
        raise RowError(f"missing keys: found {sorted(present)}, but data.columns names {sorted(layout.reads)}")
    read = layout.reads | frozenset(COMMON)
    refused = tuple(name for name in columns if name in REFUSED and name not in layout.reads)
    spare = _spare(layout)
    unknown = [name for name in columns if name not in read | IGNORED and name not in REFUSED and name not in spare]
    return ColumnPlan(layout, refused, tuple(unknown))


def _spare(layout: Layout) -> frozenset[str]:
    """Return the columns of layouts that come after this one in the documented order: they say the same again.

    Where the settings name the columns, all other layouts come after.
    """
    later = {second for first, second in ORDER if first == layout.name}
    return frozenset(
        name for other in LAYOUTS if other.name in later or layout.name == DECLARED for name in other.reads
    )


def _choose(present: frozenset[str]) -> Layout:
    fitting = [layout for layout in LAYOUTS if layout.fits(present)]
    if not fitting:
        wanted = "; ".join(f"{layout.name}: {_wanted(layout)}" for layout in LAYOUTS)
        raise RowError(
            f"missing keys: found {sorted(present)}, which is none of the known layouts ({wanted}); "
            "name the columns with data.columns"
        )
    first, *others = fitting
    if clash := [other for other in others if (first.name, other.name) not in ORDER]:
        raise RowError(
            f"two layouts fit: {first.name} and {clash[0].name} by the columns {sorted(present)}; "
            "name the columns to read with data.columns"
        )
    return first


def _wanted(layout: Layout) -> str:
    if layout.turns:
        return " or ".join(layout.turns)
    return f"{' or '.join(layout.question)} with {' or '.join(layout.answer + layout.reference)}"


def only(value: Mapping[str, Any], names: tuple[str, ...], what: str) -> str | None:
    """Return the one column of some that a row has; None if it has none.

    Raises:
        RowError: It has two.
    """
    found = [name for name in names if value.get(name) not in (None, "", [])]
    if len(found) > 1 and len({str(value[name]) for name in found}) > 1:
        raise RowError(f"two {what}s: in the columns {found[0]} and {found[1]}; name one with data.columns.{what}")
    return found[0] if found else next((name for name in names if name in value), None)


def table() -> Iterator[tuple[str, str, str]]:
    """Yield (layout, columns that are read, columns that refuse a row) for the documentation."""
    for layout in LAYOUTS:
        yield layout.name, _wanted(layout), ", ".join(sorted(set(REFUSED) - layout.reads))
