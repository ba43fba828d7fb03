"""Try releases of NeMo and Megatron-Core together, and write what came of it into docs/version-matrix.md.

    .venv/bin/python tests/rehearsal/version_matrix.py                       # every pair, a few minutes each
    .venv/bin/python tests/rehearsal/version_matrix.py --nemo 2.7.3 --megatron 0.16.1 /path/to/Megatron-LM

A release is downloaded without its dependencies into .overlays and put before the installed packages; a path is taken
as it is. Each pair trains a tiny model without Transformer Engine (smoke), trains and exports through the recipes with
Transformer Engine's Python layer (rehearsal), and compares the parameters and checkpoints of both kinds of layers
(contract). Rows of pairs that are not tried stay as they are.
"""

import argparse
import datetime
import itertools
import re
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

sys.path.append(str(Path(__file__).parents[1]))
from processes import HERE, OVERLAYS, REPOSITORY, TRANSFORMER_ENGINE, last_json, run  # noqa: E402
from tiny import save_tiny_llama  # noqa: E402

from nemo_reasoning.training.loggers import read_metrics  # noqa: E402

PAGE = REPOSITORY / "docs" / "version-matrix.md"
NEMO = ("2.6.0", "2.6.2", "2.7.0", "2.7.3")
MEGATRON = ("0.15.3", "0.16.0", "0.16.1")
_TABLE = re.compile(r"(<!-- tried -->\n)(.*?)(?=\n<!-- /tried -->)", re.DOTALL)
_HEAD = ("| NeMo | Megatron-Core | smoke | rehearsal | contract | tried |", "|---|---|---|---|---|---|")


@dataclass(frozen=True)
class Pair:
    """A NeMo and a Megatron-Core, each a release or a folder."""

    nemo: str
    megatron: str

    @property
    def overlays(self) -> tuple[Path, ...]:
        """The folders to put before the installed packages, downloaded if necessary."""
        return (overlay("nemo_toolkit", self.nemo), overlay("megatron-core", self.megatron))


def overlay(distribution: str, release: str) -> Path:
    """Return the folder of a release."""
    if Path(release).is_dir():
        return Path(release)
    folder = OVERLAYS / "matrix" / f"{distribution}-{release}"
    if not folder.is_dir():
        pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", str(folder)]
        subprocess.run([*pip, f"{distribution}=={release}"], check=True)
    return folder


def smoke(pair: Pair, folder: Path) -> str:
    """Train four steps with the torch layers."""
    losses = last_json(run(HERE / "short_run.py", folder / "smoke", overlays=pair.overlays))["loss"]
    return f"trains, last loss {losses[-1]:.4f}"


def rehearsal(pair: Pair, folder: Path) -> str:
    """Train three steps with Transformer Engine's Python layer, through the recipe, and export with verification."""
    model = save_tiny_llama(folder / "hf")
    stack = {"overlays": (*pair.overlays, TRANSFORMER_ENGINE), "REHEARSE_TE": "1"}
    run(
        *(HERE / "sft_lora.py", "model=hf_local", "data=builtin", f"model.source={model}", "model.template=chatml"),
        *("hardware=cpu", "trainer.max_steps=3", "data.rows=60", "trainer.seq_length=256", "logger=none"),
        *("trainer.micro_batch_size=4", "trainer.global_batch_size=4", "trainer.eval_interval=2"),
        *("callbacks.samples_interval=0", f"cache_dir={folder / 'cache'}", f"output_dir={folder / 'run'}"),
        **stack,
    )
    losses = [step["loss"] for step in read_metrics(folder / "run" / "metrics.jsonl")]
    run(REPOSITORY / "recipes" / "export.py", f"checkpoint={folder / 'run'}", "formats=[hf_peft]", **stack)
    return f"trains, last loss {losses[-1]:.4f}; export verified"


def contract(pair: Pair, folder: Path) -> str:
    """Compare the two kinds of layers of Llama 3 8B under LoRA."""
    overlays = (*pair.overlays, TRANSFORMER_ENGINE)
    answer = last_json(run(HERE / "contract.py", "llama3_8b:lora", overlays=overlays, REHEARSE_TE="1"))
    found = answer["llama3_8b:lora"]
    different = sum(len(names) for side in ("only Transformer Engine", "only torch") for names in found[side].values())
    return f"{found['counts']['checkpoint']} keys equal" if not different else f"{different} names differ"


def attempt(check: Callable[[Pair, Path], str], pair: Pair, folder: Path) -> str:
    """Return what came of a check, the last line of its output where it failed."""
    try:
        return check(pair, folder)
    except AssertionError as error:
        lines = [line for line in str(error).splitlines() if "Error" in line] or str(error).splitlines()
        return f"fails: `{lines[-1].strip()[:120]}`"


def rows(pairs: list[Pair]) -> Iterator[str]:
    """Yield a line of the table for each pair, as soon as it was tried."""
    for pair in pairs:
        with tempfile.TemporaryDirectory() as folder:
            cells = [attempt(check, pair, Path(folder)) for check in (smoke, rehearsal, contract)]
        megatron = _version(pair)
        yield f"| {pair.nemo} | {megatron} | {' | '.join(cells)} | {datetime.date.today().isoformat()} |"


def _version(pair: Pair) -> str:
    code = "import megatron.core as core; print('VERSION', core.__version__)"
    printed = run("-c", code, overlays=pair.overlays)
    return next(line.split()[1] for line in printed.splitlines() if line.startswith("VERSION"))


def write(rows: list[str]) -> None:
    """Put rows into the page's table, in place of older ones of the same pair."""
    page = PAGE.read_text()
    before = _TABLE.search(page)
    assert before is not None, f"{PAGE} has no table to write into"
    kept = {_pair(row): row for row in before[2].splitlines()[2:]} | {_pair(row): row for row in rows}
    table = "\n".join([*_HEAD, *(kept[pair] for pair in sorted(kept))])
    PAGE.write_text(page[: before.start(2)] + table + page[before.end(2) :])


def _pair(row: str) -> tuple[str, ...]:
    return tuple(cell.strip() for cell in row.split("|")[1:3])


def main() -> None:
    """Try the pairs and write the table."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--nemo", nargs="+", default=NEMO)
    parser.add_argument("--megatron", nargs="+", default=MEGATRON)
    arguments = parser.parse_args()
    for row in rows([Pair(*pair) for pair in itertools.product(arguments.nemo, arguments.megatron)]):
        print(row, flush=True)
        write([row])


if __name__ == "__main__":
    main()
