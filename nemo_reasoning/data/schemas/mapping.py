"""Propose which columns of an unknown data set hold what."""

import re
from collections.abc import Mapping, Sequence
from typing import Any

from nemo_reasoning.data.schemas.columns import IGNORED
from nemo_reasoning.data.schemas.turns import CONTENT_KEYS, ROLES, turns_in_text

_PLAIN = re.compile(r"[\w.-]+")

_WORD = re.compile(r"[^\W\d_]+")
# What names speak of, in the most spoken languages; a hint of up to four Latin letters is a word of its own.
_HINTS = {
    "system": ("system", "persona", "instructions"),
    "trace": (
        "think",
        "reason",
        "thought",
        "trace",
        "cot",
        "rationale",
        "scratch",
        "gedanke",
        "überleg",
        "razonamiento",
    )
    + ("raisonnement", "pensamiento", "ragionamento", "raciocínio", "рассужд", "мысл", "思考", "推理", "思维", "추론"),
    "question": ("question", "prompt", "problem", "query", "ask", "user", "instruction", "input", "inst", "frage")
    + ("aufgabe", "pregunta", "pergunta", "domanda", "вопрос", "задача", "问题", "題目", "题目", "質問", "問題", "질문")
    + ("문제", "سؤال", "प्रश्न", "pertanyaan", "soru", "q"),
    "answer": ("answer", "response", "completion", "output", "solution", "reply", "assistant", "final", "resp", "ans")
    + (
        "antwort",
        "lösung",
        "respuesta",
        "réponse",
        "reponse",
        "resposta",
        "risposta",
        "ответ",
        "решение",
        "答案",
        "回答",
    )
    + ("解答", "답", "정답", "جواب", "إجابة", "उत्तर", "jawaban", "cevap", "a"),
}


def propose_mapping(rows: Sequence[Mapping[str, Any]]) -> str | None:
    """Return overrides of data.columns that seem to fit some rows; None if nothing does.

    A list of objects one of whose values is always a role is the dialogue. Else columns of text are told by
    their names, and by their lengths where names say nothing: answers are longer than questions.
    """
    columns = {name: [row[name] for row in rows if row.get(name) is not None] for row in rows for name in row}
    for name, values in columns.items():
        if values and (turns := _turn_keys(values)):
            role, content = turns
            return _overrides({"turns": name, "role": role, "content": content})
    texts = {
        name: values
        for name, values in columns.items()
        if name not in IGNORED and values and all(isinstance(value, str) for value in values)
    }
    hinted = {what: _hinted(texts, what) for what in _HINTS}
    chosen = {what: name for what, name in hinted.items() if name is not None}
    rest = sorted(set(texts) - set(chosen.values()), key=lambda name: sum(map(len, texts[name])))
    for what in ("answer", "question"):
        if what not in chosen and rest:
            chosen[what] = rest.pop()
    if not {"question", "answer"} <= set(chosen):
        return None
    return _overrides(dict(sorted(chosen.items())))


def _overrides(columns: Mapping[str, str]) -> str:
    """Return overrides as a shell takes them."""
    return " ".join(
        f"data.columns.{what}={name}" if _PLAIN.fullmatch(name) else f"'data.columns.{what}=\"{name}\"'"
        for what, name in columns.items()
    )


def _turn_keys(values: Sequence[Any]) -> tuple[str, str] | None:
    """Return the keys of role and content of turns in a column, if that is what it holds."""
    read = [turns_in_text(value) if isinstance(value, str) else value for value in values]
    turns = [turn for value in read if isinstance(value, list) for turn in value]
    if not turns or not all(isinstance(turn, dict) for turn in turns):
        return None
    names = {key for turn in turns for key in turn}
    roles = [key for key in sorted(names) if all(str(turn.get(key)).strip().lower() in ROLES for turn in turns)]
    texts = [key for key in sorted(names - set(roles)) if all(isinstance(turn.get(key), str) for turn in turns)]
    if not roles or not texts:
        return None
    known = [key for key in CONTENT_KEYS if key in texts]
    return roles[0], known[0] if known else max(texts, key=lambda key: sum(len(turn[key]) for turn in turns))


def _hinted(texts: Mapping[str, Any], what: str) -> str | None:
    """Return the column of text whose name speaks of a part, and of no part that is looked for before."""
    parts = list(_HINTS)
    earlier = [hint for part in parts[: parts.index(what)] for hint in _HINTS[part]]
    for hint in _HINTS[what]:
        for name in sorted(texts):
            if _speaks_of(name, hint) and not any(_speaks_of(name, other) for other in earlier):
                return name
    return None


def _speaks_of(name: str, hint: str) -> bool:
    plain = name.lower()
    return hint in (_WORD.findall(plain) if len(hint) < 5 and hint.isascii() else plain)
