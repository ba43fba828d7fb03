"""Logits of NeMo's model with the torch layers equal Hugging Face's."""

from pathlib import Path

import pytest
import torch
from tiny import save_tiny_llama
from transformers import AutoModelForCausalLM

from nemo_reasoning.models.hub import fetch_base
from nemo_reasoning.models.importer import convert, import_base
from nemo_reasoning.models.loading import load_nemo_model

ROPE_SCALING = {
    "rope_type": "llama3",
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 8192,
}


def _ids(vocabulary: int, *, rows: int = 2, length: int = 96) -> torch.Tensor:
    return torch.randint(vocabulary, (rows, length), generator=torch.Generator().manual_seed(1))


def _difference(hf: Path, imported: Path) -> float:
    reference = AutoModelForCausalLM.from_pretrained(hf, dtype=torch.float32).eval()
    ids = _ids(reference.config.vocab_size)
    with torch.no_grad():
        expected = reference(ids).logits
    with load_nemo_model(imported) as logits:
        return float((logits(ids) - expected).abs().max())


@pytest.mark.parametrize(
    ("tie_embeddings", "rope_scaling"), [(False, ROPE_SCALING), (True, None)], ids=["untied-scaled", "tied"]
)
def test_a_tiny_llama(
    tmp_path: Path, nemo_cpu: None, tie_embeddings: bool, rope_scaling: dict[str, object] | None
) -> None:
    path = save_tiny_llama(tmp_path / "hf", tie_embeddings=tie_embeddings, rope_scaling=rope_scaling)
    convert(path, tmp_path / "nemo", "float32")
    assert _difference(path, tmp_path / "nemo") < 1e-3


@pytest.mark.slow
def test_smollm2(smollm2_hf: Path, cache_dir: Path, nemo_cpu: None) -> None:
    base = fetch_base(str(smollm2_hf), revision=None, cache_dir=cache_dir)
    assert _difference(base.path, import_base(base, dtype="float32", cache_dir=cache_dir)) < 1e-3


def test_packed_samples_do_not_see_each_other(tmp_path: Path, nemo_cpu: None) -> None:
    from megatron.core.packed_seq_params import PackedSeqParams

    path = save_tiny_llama(tmp_path / "hf")
    convert(path, tmp_path / "nemo", "float32")
    with load_nemo_model(tmp_path / "nemo") as logits:
        ids = _ids(200, rows=1, length=60)
        pieces = ids.split([25, 35], dim=1)
        apart = torch.cat([logits(piece) for piece in pieces], dim=1)
        bounds = torch.tensor([0, 25, 60], dtype=torch.int32)
        packed = PackedSeqParams(
            qkv_format="thd", cu_seqlens_q=bounds, cu_seqlens_kv=bounds, max_seqlen_q=35, max_seqlen_kv=35
        )
        positions = torch.cat([torch.arange(25), torch.arange(35)])[None]
        together = logits(ids, position_ids=positions, packed_seq_params=packed)
    torch.testing.assert_close(together, apart, atol=1e-5, rtol=1e-5)
