"""Proof that a GGUF file holds the merged weights and the tokenizer of the training, and that llama.cpp agrees."""

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import gguf
import torch

from nemo_reasoning.config.export import GGUF_ARCHITECTURES
from nemo_reasoning.config.model import Architecture
from nemo_reasoning.data.chat import ChatFormatter
from nemo_reasoning.errors import VerificationError
from nemo_reasoning.export.gguf_writing import ROPE_FACTORS, Stored, TensorNames, rope_factors, vocabulary
from nemo_reasoning.export.tokenizer import strip_generation
from nemo_reasoning.export.verify import DIALOGUES, TEXTS, logits_difference
from nemo_reasoning.models.gguf_tokenizer import gguf_tokenizer

# Largest root mean square difference as a share of the weights' own, or of the logits' standard deviation.
WEIGHT_TOLERANCE = 0.15  # of a tensor in blocks of four bits and more
LOGIT_TOLERANCES = {"f16": 1e-2, "q8_0": 0.1, "q4_k_m": 0.6}
_HALF = torch.finfo(torch.float16)


def read_weights_back(
    file: Path, exact: Callable[[str], torch.Tensor], *, names: Iterable[str], shape: Architecture
) -> dict[str, float]:
    """Compare every tensor of a file with the merged weight, within the rounding of its type.

    Args:
        file: The GGUF file.
        exact: Returns a merged weight in float32 by Hugging Face's name.
        names: Of all of them.
        shape: The model.

    Returns:
        The number of "tensors", and the "relative_rms" difference over all of them.
    """
    named, factors = TensorNames(shape), rope_factors(shape)
    expected = {named(name): name for name in names}
    stored = {tensor.name: tensor for tensor in gguf.GGUFReader(file).tensors}
    if odd := set(stored) ^ ({*expected, ROPE_FACTORS} if factors is not None else set(expected)):
        raise VerificationError(f"{file}: it should hold exactly the model's tensors, but for {sorted(odd)}")
    off = whole = 0.0
    for place, name in expected.items():
        tensor, wanted = stored[place], exact(name)
        found = torch.from_numpy(gguf.dequantize(tensor.data, tensor.tensor_type).copy()).view(wanted.shape)
        found = found[_rows_by_halves(name, shape)] if _is_paired(name, shape) else found
        if not _is_rounding(found, wanted, tensor.tensor_type):
            raise VerificationError(f"{file}: {place} is not the merged {name} rounded to {tensor.tensor_type.name}")
        off, whole = off + float((found - wanted).square().sum()), whole + float(wanted.square().sum())
    if factors is not None and not (stored[ROPE_FACTORS].data == factors).all():
        raise VerificationError(f"{file}: {ROPE_FACTORS} is not the model's scaling of the rotary embedding")
    return {"tensors": len(stored), "relative_rms": (off / whole) ** 0.5}


def _is_paired(name: str, shape: Architecture) -> bool:
    return GGUF_ARCHITECTURES[shape.family] == "llama" and name.split(".")[-2] in ("q_proj", "k_proj")


def _rows_by_halves(name: str, shape: Architecture) -> torch.Tensor:
    """Return where each row of Hugging Face's query or key, whose halves turn together, is among llama.cpp's pairs."""
    heads = shape.num_attention_heads if "q_proj" in name else shape.num_query_groups
    half = shape.head_dim // 2
    return torch.tensor(
        [head * 2 * half + 2 * (row % half) + row // half for head in range(heads) for row in range(2 * half)]
    )


def _is_rounding(found: torch.Tensor, wanted: torch.Tensor, stored: Any) -> bool:
    """Whether a tensor is another to within half a unit of its type, and a little for the order of float32 sums."""
    if stored is Stored.F32:
        return torch.allclose(found, wanted, rtol=1e-6, atol=1e-9)
    if stored is Stored.F16:
        limit = 0.51 * _HALF.eps
        return torch.allclose(found, wanted, rtol=limit, atol=limit * _HALF.smallest_normal)
    off = found - wanted
    if stored is Stored.Q8_0:  # half a step of 127, and the scale's own rounding to float16
        blocks = wanted.reshape(-1, 32).abs().amax(dim=1, keepdim=True)
        return bool((off.reshape(-1, 32).abs() <= blocks * (0.51 / 127 + _HALF.eps) + 1e-7).all())
    return bool(off.square().mean().sqrt() <= WEIGHT_TOLERANCE * wanted.square().mean().sqrt())


def read_tokenizer_back(file: Path, *, formatter: ChatFormatter, shape: Architecture) -> dict[str, int]:
    """Compare the tokens, their order, the special ones and the template of a file with those of the training."""
    fields = gguf.GGUFReader(file).fields

    def read(name: str) -> Any:
        return fields[f"tokenizer.{name}"].contents() if f"tokenizer.{name}" in fields else None

    tokens, types = vocabulary(formatter.tokenizer, size=shape.vocab_size)
    known = gguf_tokenizer(formatter.tokenizer)
    expected = {
        "ggml.pre": known.pre,
        "ggml.tokens": tokens,
        "ggml.token_type": types,
        "ggml.merges": known.joined if known.model == "gpt2" else None,
        "ggml.bos_token_id": formatter.tokenizer.bos_token_id,
        "ggml.eos_token_id": formatter.end_of_turn,
        "chat_template": strip_generation(formatter.template),
    }
    for name, value in expected.items():
        if read(name) != value:
            raise VerificationError(f"{file}: tokenizer.{name} is not that of the training")
    return {"tokens": len(tokens)}


def run_llama_cpp(
    file: Path,
    kind: str,
    *,
    formatter: ChatFormatter,
    batches: Sequence[torch.Tensor],
    reference: Sequence[torch.Tensor],
) -> dict[str, Any]:
    """Compare token ids and logits of llama-cpp-python with those of the training.

    Args:
        file: The GGUF file.
        kind: Its type, which sets the tolerance.
        formatter: What training encoded with.
        batches: Token ids, [1, n] each.
        reference: The trained model's logits of them.
    """
    import llama_cpp

    longest = max(ids.shape[1] for ids in batches)
    model = llama_cpp.Llama(str(file), n_ctx=longest + 8, n_batch=longest + 8, logits_all=True, verbose=False)
    encode = formatter.tokenizer
    texts = [*TEXTS, *(formatter.render(turns, add_generation_prompt=True) for turns in DIALOGUES)]
    for text in texts:
        wanted, found = encode(text, add_special_tokens=False)["input_ids"], _tokens(model, text)
        if found != wanted:
            raise VerificationError(f"{file}: llama.cpp encodes {text!r} as {found}, and training as {wanted}")
    logits = []
    for ids in batches:
        model.reset()
        model.eval(ids[0].tolist())
        logits.append(torch.from_numpy(model.scores[: ids.shape[1]].copy())[None])
    model.close()
    width = logits[0].shape[-1]
    off = logits_difference(logits, [known[..., :width] for known in reference])
    if not off["relative_rms"] <= LOGIT_TOLERANCES[kind]:
        raise VerificationError(f"{file}: llama.cpp's logits differ from the trained model's: {off}; do not use it")
    return {"version": llama_cpp.__version__, "texts": len(texts), **off, "tolerance": LOGIT_TOLERANCES[kind]}


def _tokens(model: Any, text: str) -> list[int]:
    return list(model.tokenize(text.encode(), add_bos=False, special=True))
