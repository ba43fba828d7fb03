"""Train a random two-layer Llama for four steps and print, as JSON, what came of it.

    PYTHONPATH=REPOSITORY python tests/rehearsal/short_run.py FOLDER [overrides of sft_lora]

The folder may hold the run of another release of Megatron-Core, which then goes on.
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
    from nemo_reasoning.training.train import TrainingInputs

    with backend(cuda=False, transformer_engine=False) as active:
        if (folder / "nemo").is_dir():
            from nemo_reasoning.data.chat import ChatFormatter, load_template

            formatter = ChatFormatter.load(folder / "hf", template=load_template("chatml"))
            inputs = TrainingInputs(
                base=folder / "nemo", tokenizer=folder / "hf", formatter=formatter, data=folder / "data"
            )
        else:
            inputs = prepare_inputs(folder)
        run = train_here(inputs, folder / "run", *overrides)
    steps = read_metrics(run / "metrics.jsonl")
    answer = {
        "versions": {name: installed_version(name) for name in ("nemo_toolkit", "megatron-core", "transformers")},
        "patches": active.patches,
        "loss": [step["loss"] for step in steps],
        "grad_norm": [step["grad_norm"] for step in steps],
    }
    print(json.dumps(answer), file=sys.__stdout__)


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:])
