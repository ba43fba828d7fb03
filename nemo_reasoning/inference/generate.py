"""From settings to answers: one prompt, a file of them, or a chat."""

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any, get_args

from rich.console import Console

from nemo_reasoning.answers import extract_final_answer
from nemo_reasoning.artifacts import file_sha256, write_json
from nemo_reasoning.config.inference import EffortSettings, GenerateSettings, Scaling
from nemo_reasoning.errors import DataError, EngineError
from nemo_reasoning.inference.chat_cli import Chat, line_reader, show_stream
from nemo_reasoning.inference.checkpoints import ModelFiles, resolve_checkpoint
from nemo_reasoning.inference.engine import Engine
from nemo_reasoning.inference.load import load_engine
from nemo_reasoning.inference.request import Completion, GenerationRequest
from nemo_reasoning.inference.scaling import Scaled, best_of, extend, vote
from nemo_reasoning.reasoning.messages import Message, Role

_WAVE = 64  # questions that are answered between two writes; a killed run loses at most these
Ask = Callable[[GenerationRequest], Scaled]


def generate(settings: GenerateSettings) -> None:
    """Load a model and ask it: the prompt, the rows of the file, or what somebody types.

    Raises:
        EngineError: The model cannot be loaded, or settings contradict each other.
        DataError: The file is unreadable, or a row asks nothing.
    """
    request = request_of(settings)
    rows = read_rows(Path(settings.input)) if settings.input else []
    files = resolve_checkpoint(settings.checkpoint, cache_dir=Path(settings.cache_dir).expanduser())
    engine = load_engine(settings.engine, files.with_template(settings.template))
    console = Console(highlight=False, soft_wrap=True)
    try:
        if settings.input:
            answer_file(engine, request, rows, settings=settings, console=console, model=_identity(files))
        elif settings.prompt is None:
            history = Path(settings.cache_dir).expanduser() / "chat_history"
            Chat(engine, request, console=console, read=line_reader(history, console=console)).run()
        elif settings.scaling is Scaling.none:
            show_stream(engine, replace(request, messages=(Message("user", settings.prompt),)), console=console)
        else:
            asked = replace(request, messages=(Message("user", settings.prompt),))
            show_scaled(scaled_by(engine, settings)(asked), console=console)
    finally:
        engine.close()


def _identity(files: ModelFiles) -> str:
    """Return what tells a model's answers from another model's."""
    if files.adapter is None:
        return files.base.name
    from nemo_reasoning.peft.hf_adapter import weights_file

    return file_sha256(weights_file(files.adapter))


def request_of(settings: GenerateSettings) -> GenerationRequest:
    """Return the settings as a request whose question is still to be put in.

    Raises:
        EngineError: They ask for thinking, and turn it off.
    """
    mode = settings.reasoning.value
    sampling = settings.thinking.sampling(mode)
    given = {name: value for name in ("temperature", "top_p") if (value := getattr(settings, name)) is not None}
    return GenerationRequest(
        messages=(Message("user", ""),),
        mode="on" if mode == "on" else "off",
        max_new_tokens=settings.max_new_tokens,
        thinking_budget=_budget(settings, settings.thinking.efforts),
        min_thinking=settings.min_thinking,
        sampling=replace(sampling, **given),
        seed=settings.seed,
    )


def _budget(settings: GenerateSettings, efforts: EffortSettings) -> int | None:
    if settings.effort is None:
        return settings.budget
    budget: int = getattr(efforts, settings.effort.value)
    return budget


def scaled_by(engine: Engine, settings: GenerateSettings) -> Ask:
    """Return what asks a question in the way the settings choose."""
    options: dict[str, Any] = {"extract": partial(extract_final_answer, last_number=True)}
    if settings.scaling is Scaling.extend:
        step = max(settings.max_new_tokens // (2 * settings.n), 1)
        return partial(extend, engine, thinking=[step * number for number in range(settings.n)], **options)
    return partial(vote if settings.scaling is Scaling.vote else best_of, engine, n=settings.n, **options)


def show_scaled(found: Scaled, *, console: Console) -> None:
    """Print the answer and what it took."""
    if found.completion.reasoning:
        console.print(f"{found.completion.reasoning}\n", style="dim", markup=False)
    console.print(found.completion.answer, markup=False)
    votes = ", ".join(f"{answer}: {count}" for answer, count in found.votes.items()) or "none"
    console.print(
        f"answer {found.answer}  votes {votes}  {found.samples} samples, {found.tokens} tokens",
        style="dim",
        markup=False,
    )


def read_rows(path: Path) -> list[dict[str, Any]]:
    """Return the rows of a JSON Lines file, each with what is asked.

    Raises:
        DataError: It is unreadable, or a row asks nothing.
    """
    try:
        lines = path.read_text(encoding="utf-8-sig").split("\n")
    except OSError as error:
        raise DataError(f"input={path}: {error.strerror}; give a file of JSON Lines") from error
    except UnicodeDecodeError as error:
        raise DataError(f"input={path} is not UTF-8 text ({error}); convert it") from error
    rows = []
    for number, line in enumerate(lines, 1):
        if line.strip():
            rows.append(_row(line, place=f"{path}:{number}"))
    if not rows:
        raise DataError(f"input={path} has no row; write a JSON object with a prompt a line")
    return rows


def _row(line: str, *, place: str) -> dict[str, Any]:
    try:
        row = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise DataError(f"{place} is no JSON ({error}); write an object a line") from error
    if not isinstance(row, dict) or not (isinstance(row.get("prompt"), str) or isinstance(row.get("messages"), list)):
        raise DataError(f'{place} has neither a "prompt" nor "messages"; add one of them')
    if not all(map(_is_turn, row.get("messages") or ())) or row.get("messages") == []:
        raise DataError(f'{place}: a turn has a "role" ({", ".join(get_args(Role))}) and a "content" of text; mend it')
    if not all(_is_whole(message.content) for message in _messages(row)):
        raise DataError(f"{place}: a text holds half of a character (\\ud800 to \\udfff); remove it")
    return row


def _is_whole(text: str) -> bool:
    """Say whether a text can be encoded: JSON may hold half of a pair of surrogates."""
    return not any("\ud800" <= letter <= "\udfff" for letter in text)


def _line(row: Mapping[str, Any]) -> str:
    line = json.dumps(row, ensure_ascii=False)
    return (line if _is_whole(line) else json.dumps(row)) + "\n"


def _is_turn(turn: Any) -> bool:
    return isinstance(turn, dict) and turn.get("role") in get_args(Role) and isinstance(turn.get("content"), str)


def _messages(row: dict[str, Any]) -> tuple[Message, ...]:
    if row.get("messages") is None:
        return (Message("user", row["prompt"]),)
    return tuple(Message(turn["role"], turn["content"]) for turn in row["messages"])


def answer_file(
    engine: Engine,
    request: GenerationRequest,
    rows: list[dict[str, Any]],
    *,
    settings: GenerateSettings,
    console: Console,
    model: str = "",
) -> None:
    """Write each row with its answer, in order and as they are there; a row's seed depends on its place alone.

    All columns of the rows stay: where the model's would take the name of one, "model_" stands in front of it. What a
    killed run has written is kept, and not asked again.

    Args:
        engine: What answers.
        request: What all rows have in common.
        rows: From `read_rows`.
        settings: Of the command.
        console: Where to say what was written.
        model: What tells the model's answers from another model's.

    Raises:
        DataError: A row leaves too little of the model's context to the answer, or the output holds something else.
    """
    source = Path(settings.input or "")
    out = Path(settings.output) if settings.output else source.with_suffix(".answers.jsonl")
    shared = replace(request, messages=(Message("user", "?"),))
    scaled = settings.scaling is not Scaling.none
    asked_for: dict[str, Any] = {"model": model, "scaling": settings.scaling.value, "request": asdict(shared)}
    asked_for |= {"n": settings.n} if scaled else {}
    done = _claim(out, asked_for, rows)
    asked = [replace(request, messages=_messages(row), seed=request.seed + place) for place, row in enumerate(rows)]
    for number, each in enumerate(asked[done:], done + 1):
        _check_room(engine, each, place=f"question {number} of {source}")
    taken = {name for row in rows for name in row}
    with out.open("a", encoding="utf-8") as file:
        for row, answer in zip(rows[done:], _answers(engine, asked[done:], settings), strict=True):
            file.write(_line(row | _renamed(answer, taken)))
            file.flush()
    if clashing := sorted(taken & {*_COLUMNS, *(_VOTE_COLUMNS if scaled else ())}):
        renamed = ", ".join(_renamed(dict.fromkeys(clashing), taken))
        console.print(f"the rows have {', '.join(clashing)} already; the model's are {renamed}", markup=False)
    console.print(f"{len(rows)} answers in {out}" + (f", {done} of them from before" if done else ""), markup=False)


def _claim(out: Path, asked_for: dict[str, Any], rows: list[dict[str, Any]]) -> int:
    """Return how many rows an earlier start of the same command has answered; take off what it left half written.

    Raises:
        DataError: The file belongs to another command.
    """
    beside, asked_for = out.with_suffix(".settings.json"), json.loads(json.dumps(asked_for))
    text = out.read_bytes() if out.is_file() else b""
    whole = text[: text.rfind(b"\n") + 1]
    lines = _kept(whole) if beside.is_file() else []
    before = json.loads(beside.read_text(encoding="utf-8")) if beside.is_file() else None
    same = len(lines) <= len(rows) and all(
        isinstance(line, dict) and _line({name: line.get(name) for name in row}) == _line(row)  # NaN is no NaN's equal
        for line, row in zip(lines, rows, strict=False)
    )
    if text and (before != asked_for or not same):
        changed = [key for key in asked_for if before is not None and before.get(key) != asked_for[key]]
        why = f"made with another {' and '.join(changed)}" if changed else "of other rows or of something else"
        raise DataError(f"output={out} exists and is {why}; give another output=, or delete it")
    out.parent.mkdir(parents=True, exist_ok=True)
    write_json(beside, asked_for)
    if whole != text:
        with out.open("r+b") as file:
            file.truncate(len(whole))
    return len(lines)


def _kept(text: bytes) -> list[Any]:
    """Return the values of whole lines; None stands for a line that is no JSON."""
    lines: list[Any] = []
    for line in text.split(b"\n")[:-1]:
        try:
            lines.append(json.loads(line))
        except (ValueError, RecursionError):
            lines.append(None)
    return lines


def _answers(engine: Engine, asked: list[GenerationRequest], settings: GenerateSettings) -> Iterator[dict[str, Any]]:
    """Yield the columns of each answer, in the order of the requests."""
    if settings.scaling is not Scaling.none:
        for found in map(scaled_by(engine, settings), asked):
            yield _told(found.completion) | _vote_told(found)
        return
    for start in range(0, len(asked), _WAVE):
        yield from map(_told, engine.generate(asked[start : start + _WAVE]))


def _check_room(engine: Engine, request: GenerationRequest, *, place: str) -> None:
    try:
        room = engine.max_new_tokens_for(request)
    except EngineError as error:
        raise DataError(f"{place}: {error}") from error
    if room < request.max_new_tokens:
        raise DataError(
            f"{place} leaves {room} tokens of the model's context to its answer; shorten it, or lower "
            f"max_new_tokens={request.max_new_tokens}"
        )


_COLUMNS = (
    *("reasoning", "answer", "well_formed", "prompt_tokens", "completion_tokens", "reasoning_tokens"),
    "finish_reason",
)
_VOTE_COLUMNS = ("final_answer", "votes", "samples", "tokens")


def _told(completion: Completion) -> dict[str, Any]:
    return {name: getattr(completion, name) for name in _COLUMNS}


def _vote_told(found: Scaled) -> dict[str, Any]:
    return dict(zip(_VOTE_COLUMNS, (found.answer, found.votes, found.samples, found.tokens), strict=True))


def _renamed(answer: dict[str, Any], taken: set[str]) -> dict[str, Any]:
    """Return the columns of an answer under names that no row uses."""
    renamed = {}
    for name, value in answer.items():
        free = name
        while free in taken:
            free = f"model_{free}"
        renamed[free] = value
    return renamed
