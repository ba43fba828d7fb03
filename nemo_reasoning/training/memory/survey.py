"""What fits where: the table of docs/memory.md, and the guide's estimate for models known by their size alone."""

from collections.abc import Iterator
from dataclasses import replace
from functools import cache

from omegaconf import OmegaConf

from nemo_reasoning.config import CONF_DIR, LORA_TARGETS, Architecture, PeftScheme, Recommended, Recompute
from nemo_reasoning.models.sizes import count_parameters
from nemo_reasoning.training.memory.choose import Request, gpu_sizes
from nemo_reasoning.training.memory.estimate import fits
from nemo_reasoning.training.memory.workload import Workload

_MOST_ROWS = 64


@cache
def listed_models() -> dict[str, tuple[Architecture, Recommended]]:
    """Return shape and recommended values of every model in conf/model that states its shape."""
    found = {}
    for path in sorted((CONF_DIR / "model").glob("*.yaml")):
        model = OmegaConf.load(path)
        if model.architecture is not None:
            shape = OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(Architecture), model.architecture))
            values = OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(Recommended), model.recommended))
            assert isinstance(shape, Architecture)
            assert isinstance(values, Recommended)
            found[path.stem] = shape, values
    return found


def survey_table() -> str:
    """Return in Markdown what each GPU of conf/hardware holds of each model under each scheme."""
    sizes = gpu_sizes()
    heading = ["model", "tokens", "peft", *(f"{size} GB" for size in sizes)]
    lines = [heading, ["---"] * len(heading), *_rows(sizes)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _rows(sizes: list[int]) -> Iterator[list[str]]:
    for name, (shape, values) in listed_models().items():
        for label, scheme, targets in _variants(values):
            request = _request(shape, replace(values, target_modules=targets), scheme)
            fitting = [request.best(size) for size in sizes]
            yield [name, f"{values.seq_length:,}", label, *(_cell(work) for work in fitting)]


def _variants(values: Recommended) -> Iterator[tuple[str, PeftScheme, list[str]]]:
    """Yield (what the table says, scheme, adapted linears) of a model."""
    for scheme in PeftScheme:
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
        dropout=0.0 if full else values.dropout,
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
