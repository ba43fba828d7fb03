"""Show an estimate, a choice, and what fits where."""

from rich.table import Table

from nemo_reasoning.config import PeftScheme, Recompute
from nemo_reasoning.training.memory.choose import Request, weigh
from nemo_reasoning.training.memory.estimate import GIB, USABLE_SHARE, MemoryEstimate, estimate_memory, usable_bytes
from nemo_reasoning.training.memory.static import adapter_parameters, base_parameters
from nemo_reasoning.training.memory.workload import Workload

_ACTIVATIONS = {
    Recompute.none: "all that the backward pass wants",
    Recompute.selective: "all but what attention computes again",
    Recompute.full: "the layers' inputs, and one layer computed again",
}


def parts_table(work: Workload, *, memory_gb: float, device: str) -> Table:
    """Return the parts of a device's memory as a table for the terminal.

    Args:
        work: What is computed.
        memory_gb: Of the device, in GiB.
        device: Its name.
    """
    estimate = estimate_memory(work)
    usable = usable_bytes(memory_gb) / GIB
    sharing = work.tensor_parallel * work.pipeline_parallel * work.context_parallel
    title = (
        f"Memory on {'each ' if sharing > 1 else ''}{device}: {work.seq_length:,} tokens x micro-batch "
        f"{work.micro_batch_size}, recompute {work.recompute.name}"
    )
    table = Table("part", "what", title=title, show_footer=True)
    table.add_column("GiB", justify="right", footer=f"{estimate.total / GIB:.1f}")
    table.columns[0].footer = "sum"
    table.columns[1].footer = f"of {usable:.1f} usable, {USABLE_SHARE:.0%} of {memory_gb:.1f}"
    for name, what, size in parts(work, estimate):
        table.add_row(name, what, f"{size / GIB:.1f}")
    return table


def parts(work: Workload, estimate: MemoryEstimate) -> list[tuple[str, str, int]]:
    """Return (part, what it is, bytes) of an estimate; the bytes add up to its total."""
    dtype = "bfloat16" if work.width == 2 else "float32"
    loss = estimate.logits > estimate.temporary
    held = f"NF4 in {', '.join(work.target_modules)}, else {dtype}" if work.scheme is PeftScheme.qlora else dtype
    static, trained = estimate.static, adapter_parameters(work)
    rows = [("weights", f"{base_parameters(work):,} parameters, {held}", static.weights)]
    if not work.trains_base:
        rows.append(("adapter", f"{trained:,} parameters, {dtype}", static.adapter))
    return [
        *rows,
        ("gradients", "of what is trained, float32", static.gradients),
        ("optimiser", _moments(work), static.optimizer),
        ("activations", _ACTIVATIONS[work.recompute], estimate.activations),
        (
            "logits" if loss else "temporary buffers",
            "a chunk, and the loss's gradients"
            if loss
            else f"{_backward(work)} (the logits, {estimate.logits / GIB:.1f}, are gone by then)",
            max(estimate.logits, estimate.temporary),
        ),
        *([("CUDA context", "an allowance", estimate.context)] if estimate.context else []),
    ]


def _moments(work: Workload) -> str:
    moments = "Adam's moments, 8 bits" if work.optimizer.is_8bit else "Adam's moments, float32"
    return f"{moments}, and a float32 copy" if work.width == 2 else moments


def _backward(work: Workload) -> str:
    weights = {PeftScheme.qlora: ", a weight unpacked", PeftScheme.dora: ", a weight with its adapter"}
    weight = weights.get(work.scheme, "")
    return f"gradients within a layer{weight}"


def choice_table(request: Request, *, chosen: Workload, memory_gb: float) -> Table:
    """Return what was weighed, as a table for the terminal.

    Args:
        request: What was open.
        chosen: What was taken.
        memory_gb: Of the device, in GiB.
    """
    table = Table("recompute", title=f"Choice, for {usable_bytes(memory_gb) / GIB:.1f} GiB")
    for heading in ("micro-batch", "GiB"):
        table.add_column(heading, justify="right")
    table.add_column("")
    for option in weigh(request, memory_gb):
        taken = (option.recompute, option.micro_batch_size) == (chosen.recompute, chosen.micro_batch_size)
        verdict = "chosen" if taken else "fits, but computes more" if option.fits else "too much"
        size = option.estimate.total / GIB
        table.add_row(option.recompute.name, str(option.micro_batch_size), f"{size:.1f}", verdict)
    return table
