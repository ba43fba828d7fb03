"""The rows of docs/results/gpu.md: what each runs, what it found, and how the page is written."""

import importlib.util
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

_ONE_ROW = ("trainer.micro_batch_size=1", "trainer.recompute=none")


@dataclass(frozen=True)
class Row:
    """A row of the table.

    Attributes:
        name: Its key in --rows.
        title: What a reader sees.
        tokens: Of a row of data.
        overrides: Of recipes/sft_lora.py, or arguments of peer.py.
        again: Further arguments of a second run's processes, whose losses are compared with the first's.
        peer: Name of the row whose data Hugging Face with PEFT trains on instead.
        small: Whether the model has two small layers on a GPU too.
        package: What has to be installed.
    """

    name: str
    title: str
    tokens: int
    overrides: tuple[str, ...] = ()
    again: tuple[tuple[str, ...], ...] = ()
    peer: str = ""
    small: bool = False
    package: str = ""

    def missing(self, gpu: bool) -> str:
        """Return why this machine cannot run the row; without a GPU everything is rehearsed."""
        if gpu and self.package and importlib.util.find_spec(self.package) is None:
            return f"{self.package} is not installed"
        return ""


@dataclass(frozen=True)
class Measured:
    """What a row found; what was not measured is None.

    Attributes:
        reason: Why it did not run.
        micro_batch: Rows of a forward pass.
        tokens_per_second: Mean of the steps after the first three, padding included.
        mfu: Mean model FLOPs utilization of the same steps, 0 to 1.
        peak_gib: Most memory of tensors within a step.
        planned_gib: What the planner expects of it.
        first_loss: Of the first step, before anything was learned.
        last_loss: Of the last step.
        largest_difference: Between the losses of two runs that ought to be equal.
        seconds: Of the process, with its start and the loading of the base.
    """

    reason: str = ""
    micro_batch: int | None = None
    tokens_per_second: float | None = None
    mfu: float | None = None
    peak_gib: float | None = None
    planned_gib: float | None = None
    first_loss: float | None = None
    last_loss: float | None = None
    largest_difference: float | None = None
    seconds: float | None = None

    @property
    def ran(self) -> bool:
        """Whether there is a result."""
        return not self.reason


ROWS = (
    Row("cpu", "the same steps on GPU and CPU, small model", 256, _ONE_ROW, small=True, again=(("hardware=cpu",),)),
    Row("lora", "8B LoRA", 4096),
    Row("hf", "8B, Hugging Face + PEFT", 4096, peer="lora"),
    Row("hf_checkpointing", "the same, gradient checkpointing", 4096, ("checkpointing",), peer="lora"),
    Row("lora_8k", "8B LoRA", 8192),
    Row("hf_8k", "8B, Hugging Face + PEFT, gradient checkpointing", 8192, ("checkpointing",), peer="lora_8k"),
    Row("qlora", "8B QLoRA", 4096, ("peft=qlora",), package="bitsandbytes"),
    Row("recompute", "8B LoRA, recompute=full", 4096, ("trainer.recompute=full",)),
    Row("fp8", "8B LoRA, FP8 tensorwise", 4096, ("trainer.fp8=tensorwise",), package="transformer_engine"),
    Row(
        "resume",
        "deterministic: stopped and resumed, against uninterrupted; small model",
        256,
        # a constant rate: the first start is told of 2 steps only, over which a cosine would fall
        ("trainer.deterministic=true", *_ONE_ROW, "optim.min_lr_ratio=1", "optim.warmup_ratio=0"),
        again=(("trainer.max_steps=2",), ("restart=false",)),
        small=True,
    ),
)

_COLUMNS = (
    *("", "tokens", "micro-batch", "tokens/s", "MFU", "peak GiB", "planned GiB", "first loss", "last loss"),
    *("difference", "seconds"),
)


def chosen_rows(names: Sequence[str] | None) -> list[Row]:
    """Return the rows of these names, all for None.

    Raises:
        SystemExit: There is no such row.
    """
    known = {row.name: row for row in ROWS}
    if unknown := set(names or ()) - known.keys():
        raise SystemExit(f"--rows {' '.join(sorted(unknown))}: choose from {', '.join(known)}")
    return [known[name] for name in names or known]


def page(found: Mapping[str, Measured], *, machine: str, gpu: bool, date: str) -> str:
    """Return docs/results/gpu.md; without a GPU no number of a rehearsal gets into it."""
    rows = [_line(row, found.get(row.name, Measured(reason="not asked for")), gpu=gpu) for row in ROWS]
    rehearsed = [row.name for row in ROWS if row.name in found and found[row.name].ran]
    failed = {row.name: found[row.name].reason for row in ROWS if row.name in found and not found[row.name].ran}
    lines = ["# Measured on a GPU", "", "`make gpu-check` writes this page.", ""]
    if gpu:
        lines += [f"{date}: {machine}. Random weights of the true shape; 20 steps of 4 rows, the first 3 not timed."]
    else:
        lines += [
            f"**Nothing here was measured: there was no GPU.** On {date} the commands of {len(rehearsed)} of",
            f"{len(ROWS)} rows ran on a CPU with two small layers, which proves no more than that they run",
            f"({machine}).",
        ]
        lines += [f"Did not run: {name}: {reason}." for name, reason in failed.items()]
    head = (f"| {' | '.join(_COLUMNS)} |", "|---" * len(_COLUMNS) + "|")
    lines += ["", *head, *rows, "", *_NOTES]
    return "\n".join(lines) + "\n"


_NOTES = (
    "Peak is of tensors within a step, as torch's allocator counts them, and planned what",
    "[the planner](../memory.md) expects of it, the CUDA context left out. With random weights the first loss is what",
    "logits of that spread give: LoRA and Hugging Face have to agree on it, QLoRA nearly. Difference is the largest",
    "between the losses of two runs: GPU and CPU agree to bfloat16's rounding, and the resumed run is to be 0 away.",
)


def _line(row: Row, found: Measured, *, gpu: bool) -> str:
    title = f"| {row.title} | {row.tokens:,} |"
    if not gpu or not found.ran:
        reason = f": {found.reason}" if gpu else ""
        return f"{title} not measured{reason}{' |' * 9}"
    values = (
        (found.micro_batch, "d"),
        (found.tokens_per_second, ",.0f"),
        (found.mfu, ".1%"),
        (found.peak_gib, ".2f"),
        (found.planned_gib, ".2f"),
        (found.first_loss, ".4f"),
        (found.last_loss, ".4f"),
        (found.largest_difference, ".2g"),
        (found.seconds, ".0f"),
    )
    return f"{title} {' | '.join('' if value is None else format(value, form) for value, form in values)} |"
