"""Layouts of rows: declared objects that say which columns are read, and what becomes of all the others.

A column is read by the row's layout, refused by name because it changes what the row means, known to change
nothing, or unknown: then it is counted and named. A value that is null is absent, before a layout is chosen.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, fields, replace
from functools import lru_cache
from typing import Any

from nemo_reasoning.config.data import ColumnSettings
from nemo_reasoning.data.schemas.columns import IGNORED, QUESTION_PARTS, REFUSED, TRACES, renamed
from nemo_reasoning.data.schemas.turns import TurnKeys
from nemo_reasoning.data.schemas.verdicts import VERDICTS
from nemo_reasoning.errors import ConfigError, RowError

COMMON = (
    "reasoning",
    "thinking",
    "system_prompt",
    "system",
    "tools",
    "chat_template_kwargs",
    "enable_thinking",
    "license",
    "category",
    *VERDICTS,
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
        turn: Names within turns.
        ignored: Columns that the settings leave out.
    """

    name: str
    turns: tuple[str, ...] = ()
    question: tuple[str, ...] = ()
    context: tuple[str, ...] = ()
    answer: tuple[str, ...] = ()
    reference: tuple[str, ...] = ()
    trace: tuple[str, ...] = TRACES
    system: tuple[str, ...] = ("system_prompt", "system", "system_message")
    history: tuple[str, ...] = ()
    turn: TurnKeys = field(default_factory=TurnKeys)
    ignored: frozenset[str] = frozenset()

    @property
    def reads(self) -> frozenset[str]:
        """All columns that are read."""
        names = (getattr(self, column.name) for column in fields(self) if column.name not in _NO_COLUMNS)
        return frozenset(name for group in names for name in group)

    def fits(self, columns: frozenset[str]) -> bool:
        """Tell whether a row with these columns can have this layout."""
        if self.turns:
            return not columns.isdisjoint(self.turns)
        answers = {*self.answer, *self.reference}
        return not columns.isdisjoint(self.question) and not columns.isdisjoint(answers)


_NO_COLUMNS = ("name", "turn", "ignored")
DECLARED = "data.columns"  # name of the layout that the settings declare
_ANSWERS = (
    "completion",
    "response",
    "output",
    "generation",
    "generated_solution",
    "generations",
    "solutions",
    "responses",
)
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
        context=("context",),
        answer=_ANSWERS,
        reference=("answer", "solution"),
    ),
    Layout(
        "question_answer",
        question=("question", "problem", "query"),
        context=("context",),
        answer=(*_ANSWERS, "deepseek_solution", "r1_solution", "r1_generation", "model_answer"),
        reference=("solution", "answer"),
    ),
)
# Where two layouts fit, the one named first is read if the pair stands here; any other pair is an error.
ORDER: dict[tuple[str, str], str] = {
    ("alpaca", "llama_nemotron"): "`input` belongs to the instruction",
    ("messages", "question_answer"): "OpenR1-Math-220k: the messages are made from problem and generations",
    ("sharegpt", "question_answer"): "OpenThoughts' metadata repeat problem and solution",
    ("s1k", "question_answer"): "the attempt is the model's, the solution a reference",
}


def declared(columns: ColumnSettings) -> Layout | None:
    """Return the layout that conf/data: columns declares; None if it names nothing.

    Without turns, question and answer it changes single names of the layout that is found.

    Raises:
        ConfigError: It names half a layout, or one column twice.
    """
    named = {key: (name,) for key, name in vars(columns).items() if isinstance(name, str)}
    if not named and not columns.ignore:
        return None
    told = f"data.columns names {', '.join(sorted(named))}"
    if len({"question", "answer"} & set(named)) == 1 or {"turns", "question"} <= set(named):
        raise ConfigError(f"{told}: name either turns, or question and answer, of your rows")
    if twice := [name for name in named.values() if list(named.values()).count(name) > 1]:
        raise ConfigError(f"{told}: {twice[0][0]} stands for two of them; each needs a column of its own")
    if empty := [key for key, (name,) in named.items() if not name.strip()]:
        raise ConfigError(f"data.columns.{empty[0]}='' names no column; give its name, or null")
    ignored = frozenset(columns.ignore)
    keys: dict[str, Any] = {key: named.pop(key) for key in ("role", "content", "weight") if key in named}
    if "turns" in named and "trace" in named:
        keys["trace"] = named["trace"]  # of a turn or of the row
    keys["ignored"] = frozenset(name.rpartition(".")[2] for name in ignored if "." in name)
    parts: dict[str, Any] = dict(named)
    return Layout(DECLARED, **parts, turn=TurnKeys(**keys), ignored=ignored)


def _adapted(found: Layout, names: Layout) -> Layout:
    """Return a layout that was found, with the names that the settings give instead of its own."""
    trace = names.trace if names.trace != TRACES else ()
    return replace(
        found,
        answer=tuple(name for name in found.answer if name not in trace),
        reference=tuple(name for name in found.reference if name not in trace),
        trace=trace or found.trace,
        system=names.system if names.system != Layout(DECLARED).system else found.system,
        turn=replace(names.turn, trace=trace) if trace and found.turns else names.turn,
    )


@dataclass(frozen=True, slots=True)
class ColumnPlan:
    """What becomes of the columns of a row.

    Attributes:
        layout: The layout.
        renames: Columns in another case, with the names that are read.
        traces: Columns that may hold the trace, or the mode.
        refused: Columns that refuse the row unless they are empty: why.
        unknown: Columns nobody knows.
    """

    layout: Layout
    renames: Mapping[str, str]
    traces: tuple[str, ...]
    refused: Mapping[str, str]
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
    whole = mapping is not None and bool(mapping.turns or mapping.question)
    known = mapping.reads if mapping is not None and whole else _KNOWN
    renames = renamed(columns, known | frozenset(COMMON))
    present = frozenset(renames.get(name, name) for name in columns)
    layout = mapping if mapping is not None and whole else _choose(present)
    if mapping is not None and not whole:
        layout = _adapted(layout, mapping)
    if not layout.fits(present):
        raise RowError(f"missing keys: found {sorted(present)}, but data.columns names {_wanted(layout)}")
    read = layout.reads | frozenset(COMMON)
    why = REFUSED | QUESTION_PARTS if layout.question else REFUSED
    others = [name for name in present if name not in read | _spare(layout)]
    return ColumnPlan(
        layout,
        renames,
        tuple(name for name in dict.fromkeys((*layout.trace, "reasoning", "thinking")) if name in present),
        {name: why[name] for name in sorted(others) if name in why},
        tuple(name for name in sorted(others) if name not in IGNORED and name not in why),
    )


def _spare(layout: Layout) -> frozenset[str]:
    """Return the columns of layouts that come after this one in the documented order: they say the same again.

    Where the settings name the columns, all other layouts come after.
    """
    later = {second for first, second in ORDER if first == layout.name}
    return frozenset(
        name for other in LAYOUTS if other.name in later or layout.name == DECLARED for name in other.reads
    )


_KNOWN = frozenset(name for layout in LAYOUTS for name in layout.reads)


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
