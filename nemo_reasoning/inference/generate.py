"""From settings to answers: one prompt, a file of them, or a chat."""

import json
from collections.abc import Callable
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any, get_args

from rich.console import Console

from nemo_reasoning.answers import extract_final_answer
from nemo_reasoning.artifacts import write_text
from nemo_reasoning.config.inference import EffortSettings, GenerateSettings, Scaling
from nemo_reasoning.errors import DataError, EngineError
from nemo_reasoning.inference.chat_cli import Chat, show_stream
from nemo_reasoning.inference.checkpoints import resolve_checkpoint
from nemo_reasoning.inference.engine import Engine
from nemo_reasoning.inference.load import load_engine
from nemo_reasoning.inference.request import Completion, GenerationRequest
from nemo_reasoning.inference.scaling import Scaled, best_of, extend, vote
from nemo_reasoning.reasoning.messages import Message, Role

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
            answer_file(engine, request, rows, settings=settings, console=console)
        elif settings.prompt is None:
            Chat(engine, request, console=console).run()
        elif settings.scaling is Scaling.none:
            show_stream(engine, replace(request, messages=(Message("user", settings.prompt),)), console=console)
        else:
            asked = replace(request, messages=(Message("user", settings.prompt),))
            show_scaled(scaled_by(engine, settings)(asked), console=console)
    finally:
        engine.close()


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
        lines = path.read_text(encoding="utf-8").splitlines()
    except OSError as error:
        raise DataError(f"input={path}: {error.strerror}; give a file of JSON Lines") from error
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
    except json.JSONDecodeError as error:
        raise DataError(f"{place} is no JSON ({error}); write an object a line") from error
    if not isinstance(row, dict) or not (isinstance(row.get("prompt"), str) or isinstance(row.get("messages"), list)):
        raise DataError(f'{place} has neither a "prompt" nor "messages"; add one of them')
    if not all(map(_is_turn, row.get("messages", ()))) or row.get("messages") == []:
        raise DataError(f'{place}: a turn has a "role" ({", ".join(get_args(Role))}) and a "content" of text; mend it')
    return row


def _is_turn(turn: Any) -> bool:
    return isinstance(turn, dict) and turn.get("role") in get_args(Role) and isinstance(turn.get("content"), str)


def _messages(row: dict[str, Any]) -> tuple[Message, ...]:
    if "messages" not in row:
        return (Message("user", row["prompt"]),)
    return tuple(Message(turn["role"], turn["content"]) for turn in row["messages"])


def answer_file(
    engine: Engine,
    request: GenerationRequest,
    rows: list[dict[str, Any]],
    *,
    settings: GenerateSettings,
    console: Console,
) -> None:
    """Write each row with its answer; a row's seed depends on its place alone.

    Raises:
        DataError: A row leaves too little of the model's context to the answer.
    """
    source = Path(settings.input or "")
    out = Path(settings.output) if settings.output else source.with_suffix(".answers.jsonl")
    asked = [replace(request, messages=_messages(row), seed=request.seed + place) for place, row in enumerate(rows)]
    for number, each in enumerate(asked, 1):
        _check_room(engine, each, place=f"question {number} of {source}")
    if settings.scaling is Scaling.none:
        answers = [_told(completion) for completion in engine.generate(asked)]
    else:
        ask = scaled_by(engine, settings)
        answers = [_told(found.completion) | _vote_told(found) for found in map(ask, asked)]
    lines = [json.dumps(row | answer, ensure_ascii=False) for row, answer in zip(rows, answers, strict=True)]
    write_text(out, "\n".join(lines) + "\n")
    console.print(f"{len(rows)} answers in {out}", markup=False)


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


def _told(completion: Completion) -> dict[str, Any]:
    told = asdict(completion)
    del told["text"], told["logprobs"]
    return told


def _vote_told(found: Scaled) -> dict[str, Any]:
    return {"final_answer": found.answer, "votes": found.votes, "samples": found.samples, "tokens": found.tokens}
