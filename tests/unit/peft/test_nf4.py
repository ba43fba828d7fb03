"""NF4 is bitsandbytes', bit for bit, and as small as promised."""

import math
from dataclasses import replace
from typing import Any

import pytest
import torch
from bitsandbytes.functional import quantize_4bit, quantize_blockwise
from composing import sft_settings

from nemo_reasoning.errors import BackendError, VerificationError
from nemo_reasoning.models.sizes import count_parameters, nf4_bytes, nf4_groups
from nemo_reasoning.peft import nf4
from nemo_reasoning.training.memory.static import static_bytes
from nemo_reasoning.training.memory.workload import workload_of

SHAPES = {"linear_qkv": (96, 64), "linear_proj": (64, 48), "linear_fc1": (352, 64), "linear_fc2": (64, 176)}


def weight_of(target: str, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    """Return a random weight of a linear."""
    return torch.randn(*SHAPES[target], generator=torch.Generator().manual_seed(0)).to(dtype)


def roundtrip(weight: torch.Tensor) -> torch.Tensor:
    """Quantize and dequantize."""
    return nf4.dequantize(*nf4.quantize(weight))


def assert_nearest(state: Any, scales: torch.Tensor) -> None:
    """Each scale's code is the nearest of the code book, to within float32's rounding of a tie."""
    tops = state.state2.absmax.repeat_interleave(256)[: len(scales)].double()
    values = (scales - state.offset).double() / tops.clamp(min=1e-38)
    distances = (values[:, None] - state.state2.code.double()).abs()
    chosen = distances.gather(1, state.absmax.long()[:, None])[:, 0]
    assert (chosen <= distances.amin(dim=1) + 1e-6).all()


@pytest.mark.smoke
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("shape", [*SHAPES.values(), (3, 64), (1, 70), (5, 33), (700, 1024)])
def test_bit_for_bit_what_bitsandbytes_makes(shape: tuple[int, int], dtype: torch.dtype) -> None:
    weight = torch.randn(shape, generator=torch.Generator().manual_seed(0)).to(dtype)
    packed, state = nf4.quantize(weight)
    known_packed, plain = quantize_4bit(weight, blocksize=64, quant_type="nf4", compress_statistics=False)
    scales, nested = quantize_blockwise(plain.absmax - state.offset, blocksize=256)

    assert torch.equal(packed, known_packed)
    assert torch.equal(state.state2.absmax, nested.absmax)
    assert torch.equal(state.state2.code, nested.code)
    off = (state.absmax.int() - scales.int()).abs()  # bitsandbytes' kernel for CPUs may take a neighbor
    assert off.max() <= 1
    assert_nearest(state, plain.absmax)
    assert state.offset == pytest.approx(float(plain.absmax.mean()), rel=1e-6)
    known = quantize_4bit(weight, blocksize=64, quant_type="nf4", compress_statistics=True)[1]
    assert (state.shape, state.dtype, state.blocksize) == (known.shape, known.dtype, known.blocksize)
    assert (state.quant_type, state.nested, state.state2.blocksize) == (known.quant_type, True, known.state2.blocksize)


def test_values_at_the_bounds_and_blocks_of_zeros() -> None:
    code = nf4.quantize(torch.zeros(1, 64))[1].code
    bounds = (code[:-1] + code[1:]) / 2
    near = torch.stack([bounds.nextafter(torch.tensor(-2.0)), bounds, bounds.nextafter(torch.tensor(2.0))]).flatten()
    weight = torch.zeros(3, 64)
    weight[0, : len(near)], weight[0, -1], weight[2] = near, 1.0, 1e-42
    known = quantize_4bit(weight, blocksize=64, quant_type="nf4", compress_statistics=False)[0]

    assert torch.equal(nf4.quantize(weight)[0], known)


def test_bits_do_not_depend_on_the_number_of_threads() -> None:
    weight = torch.randn(2048, 2048, generator=torch.Generator().manual_seed(0))
    threads = torch.get_num_threads()
    try:
        found = set()
        for count in (1, 2, 3):
            torch.set_num_threads(count)
            found.add(nf4.digest(*nf4.quantize(weight)))
    finally:
        torch.set_num_threads(threads)

    assert len(found) == 1


@pytest.mark.parametrize("shape", [(64, 48), (64, 176), (96, 64), (128, 32), (5, 66), (5, 33), (2, 40)])
def test_dequantized_is_each_code_times_the_scale_of_its_block(shape: tuple[int, int]) -> None:
    """On a CPU, bitsandbytes' kernel takes other scales where a row ends within a block."""
    packed, state = nf4.quantize(torch.randn(shape, generator=torch.Generator().manual_seed(0)))
    scales = state.state2.code[state.absmax.int()] * state.state2.absmax[0] + state.offset
    codes = torch.cat([packed >> 4, packed & 15], dim=1).flatten()[: math.prod(shape)]
    wanted = state.code[codes.int()] * scales.repeat_interleave(64)[: len(codes)]

    assert torch.equal(nf4.dequantize(packed, state), wanted.view(shape))


@pytest.mark.parametrize("target", list(SHAPES))
def test_a_linear_as_a_run_held_it(target: str) -> None:
    for name, dtype in nf4.DTYPES.items():
        base = nf4.Nf4Base(targets=tuple(SHAPES), dtype=name)
        weight = weight_of(target, dtype)
        base = replace(base, digests={f"0.{target}": [nf4.digest(*nf4.quantize(weight))]})

        assert torch.equal(nf4.as_trained(weight, target=target, base=base, layer=0), roundtrip(weight))
        with pytest.raises(VerificationError, match=f"{target} of layer 0"):
            nf4.as_trained(weight * 1.5, target=target, base=base, layer=0)


def rows_and_columns(target: str, weight: torch.Tensor, *, ranks: int, rank: int) -> torch.Tensor:
    """Return what a tensor-parallel rank holds of a linear's weight."""
    if target in ("linear_proj", "linear_fc2"):
        return weight.chunk(ranks, dim=1)[rank]
    halves = weight.chunk(2) if target == "linear_fc1" else [weight]
    return torch.cat([half.chunk(ranks)[rank] for half in halves])


# rows shorter than a block, odd shares, and rows of many blocks whose scales' blocks are cut
WIDE = {"linear_qkv": (128, 512), "linear_proj": (64, 1024), "linear_fc1": (256, 128), "linear_fc2": (32, 7168)}
ODD = {"linear_qkv": (6, 35), "linear_proj": (5, 66), "linear_fc1": (12, 33), "linear_fc2": (3, 54)}


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(("sizes", "ranks"), [(SHAPES, 2), (SHAPES, 4), (WIDE, 2), (WIDE, 8), (ODD, 2), (ODD, 3)])
def test_a_share_is_the_part_of_the_whole(sizes: dict[str, tuple[int, int]], ranks: int, dtype: torch.dtype) -> None:
    for target, shape in sizes.items():
        if shape[target in ("linear_proj", "linear_fc2")] % ranks:
            continue
        weight = torch.randn(shape, generator=torch.Generator().manual_seed(0)).to(dtype)
        packed, state = nf4.quantize(weight)
        whole, held, groups = nf4.dequantize(packed, state), 0, nf4_groups(target, shape[0])
        for rank in range(ranks):
            part, its = nf4.share_of(packed, state, ranks=ranks, rank=rank, groups=groups)
            found = nf4.dequantize(part, its)
            assert torch.equal(found, rows_and_columns(target, whole, ranks=ranks, rank=rank)), (target, rank)
            assert found.dtype == dtype
            held = part.nbytes + its.absmax.nbytes + its.state2.absmax.nbytes
            assert nf4_bytes(weight.numel(), ranks=ranks, groups=groups) == held, target


def test_weights_are_rounded_before_they_are_quantised() -> None:
    base = nf4.Nf4Base(targets=("linear_qkv",), dtype="bfloat16")
    weight = weight_of("linear_qkv")
    found = nf4.as_trained(weight, target="linear_qkv", base=base)

    assert found.dtype == torch.float32
    assert torch.equal(found, roundtrip(weight.bfloat16()).float())
    assert not torch.equal(found, roundtrip(weight))


@pytest.mark.parametrize(
    ("dtype", "precision", "quantised"),
    [("float32", "32", "float32"), ("float32", "bf16-mixed", "bfloat16"), ("bfloat16", "32", "float32")],
)
def test_how_a_run_holds_its_base(dtype: str, precision: str, quantised: str) -> None:
    overrides = ("hardware=cpu", f"model.dtype={dtype}", f"trainer.precision={precision}")
    run = sft_settings("peft=qlora", *overrides)

    assert nf4.nf4_base(run) == nf4.Nf4Base(targets=tuple(SHAPES), dtype=quantised)
    assert nf4.nf4_base(sft_settings(*overrides)) is None


def test_planned_bytes_are_those_held() -> None:
    for target in SHAPES:
        packed, state = nf4.quantize(weight_of(target))
        held = packed.nbytes + state.absmax.nbytes + state.state2.absmax.nbytes
        assert nf4_bytes(weight_of(target).numel()) == held
    assert 8 * nf4_bytes(4096 * 4096) / 4096**2 == 4 + 1 / 8 + 32 / (64 * 256)


def test_only_what_is_targeted_is_planned_in_four_bits() -> None:
    run = sft_settings("model=llama3_8b", "peft=qlora", "hardware=gpu_24gb")
    shape, peft = run.model.architecture, run.peft
    assert shape is not None
    parameters = count_parameters(shape)
    sizes = {}
    for targets in (["linear_proj"], list(SHAPES)):
        peft.target_modules = targets
        sizes[len(targets)] = static_bytes(workload_of(run, shape)).weights

    # embedding and head 2 x 128256 x 4096, norms 65 x 4096, linears 32 x 218,103,808
    rest, linears = 2 * 128256 * 4096 + 65 * 4096, 32 * 218_103_808
    assert sizes[4] == 2 * rest + linears * 4.126953125 / 8
    assert sizes[1] == 2 * (parameters - 32 * 4096**2) + 32 * 4096**2 * 4.126953125 / 8


def test_without_bitsandbytes_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(BackendError, match="pip install --no-deps bitsandbytes"):
        nf4.require_bitsandbytes()
