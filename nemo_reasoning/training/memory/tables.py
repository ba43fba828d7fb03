"""Show an estimate, a choice, and what fits where: the tables of a dry run and of docs/memory.md."""

from collections.abc import Iterator
from dataclasses import replace
from functools import cache

from omegaconf import OmegaConf
from rich.table import Table

from nemo_reasoning.config import group_names, read_group
from nemo_reasoning.config.model import LORA_TARGETS, Architecture, PeftScheme, Recommended
from nemo_reasoning.config.trainer import Recompute
from nemo_reasoning.models.sizes import count_parameters
from nemo_reasoning.training.memory.estimate import (
    GIB,
    USABLE_SHARE,
    MemoryEstimate,
    busiest,
    estimate_memory,
    fits,
    usable_bytes,
)
from nemo_reasoning.training.memory.planner import Request, compare_options, gpu_sizes
from nemo_reasoning.training.memory.static import adapter_parameters, base_parameters
from nemo_reasoning.training.memory.workload import Workload

_ACTIVATIONS = {
    Recompute.none: "all that the backward pass wants",
    Recompute.selective: "all that the backward pass wants",
    Recompute.full: "the layers' inputs, and one layer computed again",
}


def parts_table(work: Workload, *, memory_gb: float, device: str) -> Table:
    """Return the parts of a device's memory as a table for the terminal.

    Args:
        work: What is computed.
        memory_gb: Of the device, in GiB.
        device: Its name.
    """
    work = busiest(work)
    estimate = estimate_memory(work)
    usable = usable_bytes(memory_gb) / GIB
    sharing = work.tensor_parallel * work.pipeline_parallel * work.context_parallel
    which = f", stage {work.stage + 1} of {work.pipeline_parallel}" if work.pipeline_parallel > 1 else ""
    title = (
        f"Memory on {'each ' if sharing > 1 else ''}{device}{which}: {work.seq_length:,} tokens x micro-batch "
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
        *([("FP8 copies", "of the linears' weights, twice", static.fp8)] if static.fp8 else []),
        ("activations", _ACTIVATIONS[work.recompute], estimate.activations),
        (
            "logits" if loss else "temporary buffers",
            "a chunk, and the loss's gradients"
            if loss
            else f"{_backward(work)} (the logits, {estimate.logits / GIB:.1f}, are gone by then)",
            max(estimate.logits, estimate.temporary),
        ),
        *([("loading", "more than a step", over)] if (over := estimate.loading - estimate.peak) > 0 else []),
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
    for option in compare_options(request, memory_gb):
        taken = (option.recompute, option.micro_batch_size) == (chosen.recompute, chosen.micro_batch_size)
        verdict = "chosen" if taken else "fits, but computes more" if option.fits else "too much"
        size = option.estimate.total / GIB
        table.add_row(option.recompute.name, str(option.micro_batch_size), f"{size:.1f}", verdict)
    return table


_MOST_ROWS = 64


@cache
def listed_models() -> dict[str, tuple[Architecture, Recommended]]:
    """Return shape and recommended values of every model in conf/model that states its shape."""
    found = {}
    for name in group_names("model"):
        model = read_group("model", name)
        if model.architecture is not None:
            shape = OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(Architecture), model.architecture))
            values = OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(Recommended), model.recommended))
            assert isinstance(shape, Architecture)
            assert isinstance(values, Recommended)
            found[name] = shape, values
    return found


def fits_table() -> str:
    """Return in Markdown what each GPU of conf/hardware holds of each model under each scheme."""
    sizes = gpu_sizes()
    heading = ["model", "tokens", "peft", *(f"{size} GB" for size in sizes)]
    lines = [heading, ["---"] * len(heading), *_rows(sizes)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _rows(sizes: list[int]) -> Iterator[list[str]]:
    for name, (shape, values) in listed_models().items():
        for label, scheme, targets in _variants(shape, values):
            request = _request(shape, replace(values, target_modules=targets), scheme)
            fitting = [request.best(size) for size in sizes]
            yield [name, f"{values.seq_length:,}", label, *(_cell(work) for work in fitting)]


def fitting_workloads() -> Iterator[tuple[str, Workload]]:
    """Yield (model, workload) of every cell of the table in which something fits."""
    for name, (shape, values) in listed_models().items():
        for _, scheme, targets in _variants(shape, values):
            request = _request(shape, replace(values, target_modules=targets), scheme)
            yield from ((name, work) for size in gpu_sizes() if (work := request.best(size)) is not None)


def _variants(shape: Architecture, values: Recommended) -> Iterator[tuple[str, PeftScheme, list[str]]]:
    """Yield (what the table says, scheme, adapted linears) of a model; no DoRA of one with biases (config/train.py)."""
    for scheme in PeftScheme:
        if scheme is PeftScheme.dora and shape.qkv_bias:
            continue
        yield scheme.value, scheme, values.target_modules
        if scheme is PeftScheme.qlora and set(values.target_modules) != set(LORA_TARGETS):
            yield f"{scheme.value}, all linears", scheme, list(LORA_TARGETS)


def _cell(work: Workload | None) -> str:
    if work is None:
        return "no"
    return f"{work.micro_batch_size}{' recomputed' if work.recompute is Recompute.full else ''}"


def _request(shape: Architecture, values: Recommended, scheme: PeftScheme, *, seq_length: int | None = None) -> Request:
    full = scheme is PeftScheme.none
    work = Workload(
        shape=shape,
        scheme=scheme,
        target_modules=() if full else tuple(values.target_modules),
        dim=0 if full else values.dim,
        dropout=values.dropout if scheme in (PeftScheme.lora, PeftScheme.qlora) else 0.0,  # as conf/peft has it
        precision="bf16-mixed",
        seq_length=seq_length or values.seq_length,
        micro_batch_size=1,
        recompute=Recompute.none,
        torch_layers=scheme is PeftScheme.qlora,
    )
    return Request(work=work, rows=values.global_batch_size, open_batch=True, open_recompute=True)


def estimate_batch_size(model_params_b: float, vram_gb: float, sequence_length: int, *, scheme: str = "lora") -> int:
    """Return the largest micro-batch that fits, or 0 if none does.

    Args:
        model_params_b: Parameters of the model in 1e9. The listed model that comes nearest lends its shape, with
            depth and width scaled to this size.
        vram_gb: Memory of the GPU in GiB.
        sequence_length: Tokens of a row.
        scheme: Name of a file in conf/peft.

    Raises:
        ValueError: A size is not positive, or there is no such scheme.
    """
    if min(model_params_b, vram_gb, sequence_length) <= 0:
        raise ValueError(f"sizes must be above 0, not {(model_params_b, vram_gb, sequence_length)}")
    wanted = model_params_b * 1e9
    shape, values = min(listed_models().values(), key=lambda model: _ratio(count_parameters(model[0]), wanted))
    request = _request(_scaled(shape, wanted), values, PeftScheme(scheme), seq_length=sequence_length)
    sizes = range(_MOST_ROWS, 0, -1)
    works = (replace(request.work, micro_batch_size=size, recompute=Recompute.full) for size in sizes)
    return next((work.micro_batch_size for work in works if fits(work, vram_gb)), 0)


def _ratio(one: float, other: float) -> float:
    return max(one / other, other / one)


def _scaled(shape: Architecture, parameters: float) -> Architecture:
    """Return a shape of about this many parameters; the shape itself if it is within a tenth."""
    if _ratio(count_parameters(shape), parameters) < 1.1:
        return shape
    factor = (parameters / count_parameters(shape)) ** (1 / 3)
    return replace(
        shape,
        num_layers=max(1, round(shape.num_layers * factor)),
        hidden_size=max(64, round(shape.hidden_size * factor)),
        ffn_hidden_size=max(64, round(shape.ffn_hidden_size * factor)),
        head_dim=max(2, round(shape.head_dim * factor)),
    )
