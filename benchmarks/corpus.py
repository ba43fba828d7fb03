"""A synthetic corpus with realistic text: mathematics, LaTeX, code and several languages."""

import inspect
import json
import random
import sysconfig
from pathlib import Path
from typing import Any

_LANGUAGES = (
    "Wir addieren beide Seiten und prüfen das Ergebnis noch einmal.",
    "La suma de los ángulos de un triángulo es de ciento ochenta grados.",
    "Nous vérifions d’abord que la fonction est continue sur l’intervalle.",
    "まず方程式の両辺を二乗して、解を確かめます。",
    "我们先把方程两边同时平方，然后检验每一个解。",
    "Сначала возведём обе части уравнения в квадрат и проверим корни.",
    "먼저 방정식의 양변을 제곱한 다음 해를 확인합니다.",
    "हम पहले समीकरण के दोनों पक्षों का वर्ग करते हैं।",
)
_STEPS = (
    "We need {a} times {b}. First {a} * {c} = {d}, so we carry {e} and go on.",
    "Let x = {a}/{b}. Then \\frac{{{a}}}{{{b}}} + \\sqrt{{{c}}} > {e}, which contradicts the claim above.",
    "Wait, that is not right: if n = {a}, then n^2 - {b}n + {c} = 0 has no real root. Let me check {d} again.",
    "By symmetry $\\sum_{{k=1}}^{{{b}}} k^{{{e}}} = \\binom{{{a}}}{{{e}}}$, hence the limit is {c}.",
    "The loop runs {a} times, and each pass costs O(log {b}); in total about {d} operations.",
    "So the remaining cases are {a}, {b} and {c}; only {e} of them satisfies both conditions.",
)


def write_corpus(path: Path, *, megabytes: float, seed: int = 0) -> Path:
    """Write rows in the schema of the Nemotron dataset until the file is large enough.

    Completions are log-normal around 2,000 tokens, seven in ten rows think.

    Args:
        path: File to write.
        megabytes: Its size, at least.
        seed: Of everything.
    """
    code, numbers, written, count = _sources(), random.Random(seed), 0, 0
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as lines:
        while written < megabytes * 1e6:
            line = json.dumps(_row(count, code, numbers), ensure_ascii=count % 2 == 0).encode() + b"\n"
            written += lines.write(line)
            count += 1
    return path


def _row(count: int, code: list[str], numbers: random.Random) -> dict[str, Any]:
    size = min(30_000, int(numbers.lognormvariate(8.3, 0.7)))  # characters; about three make a token
    thinks = numbers.random() < 0.7
    trace = text(size if thinks else 0, code, numbers)
    answer = text(max(200, size // 5), code, numbers) + f"\n\nThe final answer is \\boxed{{{count}}}."
    question = f"Problem {count}. {_step(numbers)} Put the answer into \\boxed{{}}."
    return row(question, f"<think>\n{trace}\n</think>\n\n{answer}" if thinks else answer, thinks=thinks)


def row(question: str, output: str, *, thinks: bool) -> dict[str, Any]:
    """Return a row in the schema of the Nemotron dataset."""
    mode = "on" if thinks else "off"
    return {
        "input": [{"role": "user", "content": question}],
        "output": output,
        "category": "math",
        "license": "CC-BY-4.0",
        "reasoning": mode,
        "generator": "synthetic",
        "used_in_training": ["Nano"],
        "version": "v1",
        "system_prompt": f"detailed thinking {mode}",
    }


def text(size: int, code: list[str], numbers: random.Random) -> str:
    """Return at least `size` characters of steps, of `code` and of other languages."""
    paragraphs, length = [], 0
    while length < size:
        kind = numbers.random()
        if kind < 0.7:
            paragraph = " ".join(_step(numbers) for _ in range(4))
        elif kind < 0.9:
            source = numbers.choice(code)
            start = numbers.randrange(max(1, len(source) - 600))
            paragraph = f"```python\n{source[start : start + 600]}\n```"
        else:
            paragraph = " ".join(numbers.choices(_LANGUAGES, k=3))
        paragraphs.append(paragraph)
        length += len(paragraph)
    return "\n\n".join(paragraphs)


def _step(numbers: random.Random) -> str:
    a, b, c = (numbers.randrange(2, 10_000) for _ in range(3))
    return numbers.choice(_STEPS).format(a=a, b=b, c=c, d=a * c, e=numbers.randrange(2, 9))


def _sources() -> list[str]:
    """Return source files of Python's standard library."""
    folder = Path(sysconfig.get_path("stdlib"))
    files = sorted(folder.glob("*.py")) or [Path(inspect.getfile(json))]
    return [file.read_text(encoding="utf-8", errors="ignore") for file in files[:120]]
