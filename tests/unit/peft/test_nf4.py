"""NF4 is bitsandbytes' own, and as small as promised."""

from pathlib import Path

import pytest
import torch
from bitsandbytes.functional import dequantize_4bit, quantize_4bit
from composing import sft_settings
from safetensors import safe_open

from nemo_reasoning.errors import BackendError
from nemo_reasoning.models.sizes import architecture_from_hf, count_parameters, linear_shapes
from nemo_reasoning.peft import nf4
from nemo_reasoning.peft.sizes import base_bytes, nf4_bytes

SHAPES = {"linear_qkv": (96, 64), "linear_proj": (64, 48), "linear_fc1": (352, 64), "linear_fc2": (64, 176)}


def weight_of(target: str, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    """Return a random weight of a linear."""
    return torch.randn(*SHAPES[target], generator=torch.Generator().manual_seed(0)).to(dtype)


def roundtrip(weight: torch.Tensor) -> torch.Tensor:
    """Quantise and dequantise with bitsandbytes alone."""
    packed, state = quantize_4bit(weight, blocksize=64, quant_type="nf4", compress_statistics=True)
    return dequantize_4bit(packed, state)


@pytest.mark.smoke
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("target", list(SHAPES))
def test_weight_for_weight_what_bitsandbytes_makes(target: str, dtype: torch.dtype) -> None:
    weight = weight_of(target, dtype)
    base = nf4.Nf4Base(targets=tuple(SHAPES), shards=1, dtype=str(dtype).removeprefix("torch."))

    assert torch.equal(nf4.dequantise(*nf4.quantise(weight)), roundtrip(weight))
    assert torch.equal(nf4.as_trained(weight, target=target, base=base), roundtrip(weight))
    assert nf4.quantise(weight)[1].nested


def test_each_rank_quantises_its_own_shard() -> None:
    base = nf4.Nf4Base(targets=tuple(SHAPES), shards=2, dtype="float32")
    trained = {target: nf4.as_trained(weight_of(target), target=target, base=base) for target in SHAPES}
    qkv, proj, fc1, fc2 = (weight_of(target) for target in SHAPES)

    assert torch.equal(trained["linear_qkv"], torch.cat([roundtrip(qkv[:48]), roundtrip(qkv[48:])]))
    for target, weight in (("linear_proj", proj), ("linear_fc2", fc2)):
        half = weight.shape[1] // 2
        columns = [roundtrip(weight[:, :half].contiguous()), roundtrip(weight[:, half:].contiguous())]
        assert torch.equal(trained[target], torch.cat(columns, dim=1))
    second = roundtrip(torch.cat([fc1[88:176], fc1[264:]]))  # rank 1: half of gate, half of up
    assert torch.equal(trained["linear_fc1"][88:176], second[:88])
    assert torch.equal(trained["linear_fc1"][264:], second[88:])


def test_weights_are_rounded_before_they_are_quantised() -> None:
    base = nf4.Nf4Base(targets=("linear_qkv",), shards=1, dtype="bfloat16")
    weight = weight_of("linear_qkv")
    found = nf4.as_trained(weight, target="linear_qkv", base=base)

    assert found.dtype == torch.float32
    assert torch.equal(found, roundtrip(weight.bfloat16()).float())
    assert not torch.equal(found, roundtrip(weight))


@pytest.mark.parametrize(
    ("dtype", "precision", "quantised"),
    [("float32", "32", "float32"), ("float32", "bf16-mixed", "bfloat16"), ("bfloat16", "32", "bfloat16")],
)
def test_how_a_run_holds_its_base(dtype: str, precision: str, quantised: str) -> None:
    overrides = ("hardware=cpu", f"model.dtype={dtype}", f"trainer.precision={precision}")
    run = sft_settings("peft=qlora", *overrides)
    run.trainer.tensor_model_parallel_size = 3

    assert nf4.nf4_base(run) == nf4.Nf4Base(targets=tuple(SHAPES), shards=3, dtype=quantised)
    assert nf4.nf4_base(sft_settings(*overrides)) is None


def test_smollm2_takes_at_most_4_2_bits_a_weight(smollm2_hf: Path) -> None:
    """All its layers have the shapes of the first."""
    stored = counted = 0
    with safe_open(smollm2_hf / "model.safetensors", framework="pt") as source:
        read = {name: source.get_tensor(f"model.layers.0.{name}.weight") for name in _MODULES}
    for names in _LINEARS:
        weight = torch.cat([read[name] for name in names])
        stored += nf4.stored_bytes(*nf4.quantise(weight))
        counted += weight.numel()
    shape = architecture_from_hf(smollm2_hf)

    assert counted == sum(inputs * outputs for inputs, outputs in linear_shapes(shape).values())
    assert 4.127 <= 8 * stored / counted <= 4.2


_LINEARS = [
    ["self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"],
    ["self_attn.o_proj"],
    ["mlp.gate_proj", "mlp.up_proj"],
    ["mlp.down_proj"],
]
_MODULES = [name for names in _LINEARS for name in names]


def test_planned_bytes_are_those_held() -> None:
    for target in SHAPES:
        packed, state = nf4.quantise(weight_of(target))
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
        sizes[len(targets)] = base_bytes(shape, peft, parameters=parameters, bytes_per_parameter=2)

    # embedding and head 2 x 128256 x 4096, norms 65 x 4096, linears 32 x 218,103,808
    rest, linears = 2 * 128256 * 4096 + 65 * 4096, 32 * 218_103_808
    assert sizes[4] == 2 * rest + linears * 4.126953125 / 8
    assert sizes[1] == 2 * (parameters - 32 * 4096**2) + 32 * 4096**2 * 4.126953125 / 8


def test_without_bitsandbytes_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nf4.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(BackendError, match="pip install --no-deps bitsandbytes"):
        nf4.require_bitsandbytes()
