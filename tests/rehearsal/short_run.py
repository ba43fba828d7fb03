"""Train a random two-layer Llama for a few steps, or go on, and print what came of it as JSON.

    PYTHONPATH=OVERLAY:REPOSITORY python tests/rehearsal/short_run.py FOLDER [overrides of sft_lora]

The folder may hold the run of other releases of NeMo and Megatron-Core, which then goes on.
"""

import json
import sys
from pathlib import Path

TESTS = Path(__file__).parents[1]


def main(folder: Path, overrides: list[str]) -> None:
    """Train in `folder`, and print loss and gradient norm of each step and the versions."""
    sys.path[:0] = [str(TESTS), str(TESTS / "unit" / "training")]
    from short_runs import prepare_inputs, train_here

    from nemo_reasoning.artifacts import installed_version
    from nemo_reasoning.backend.runtime import backend
    from nemo_reasoning.training.loggers import read_metrics

    with backend(cuda=False, transformer_engine=False) as active:
        inputs = inputs_of(folder) if (folder / "nemo").is_dir() else prepare_inputs(folder)
        run = train_here(inputs, folder / "run", *overrides)
    steps = read_metrics(run / "metrics.jsonl")
    answer = {
        "versions": {name: installed_version(name) for name in ("nemo_toolkit", "megatron-core", "transformers")},
        "patches": active.patches,
        "loss": [step["loss"] for step in steps],
        "grad_norm": [step["grad_norm"] for step in steps],
    }
    print(json.dumps(answer), file=sys.__stdout__)


def inputs_of(folder: Path) -> object:
    """Return what `prepare_inputs` left in a folder."""
    from nemo_reasoning.data.chat import ChatFormatter, load_template
    from nemo_reasoning.training.train import TrainingInputs

    formatter = ChatFormatter.load(folder / "hf", template=load_template("chatml"))
    return TrainingInputs(base=folder / "nemo", tokenizer=folder / "hf", formatter=formatter, data=folder / "data")


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:])
