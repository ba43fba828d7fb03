"""GGUF files of a merged model, a tensor at a time, as llama.cpp's converter writes them.

Tensors' names and blocks are those of the `gguf` package, by llama.cpp's authors; the rest follows their
`convert_hf_to_gguf.py`.
"""

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import torch
from numpy.typing import NDArray

from nemo_reasoning.config.export import GGUF_ARCHITECTURES
from nemo_reasoning.config.model import Architecture
from nemo_reasoning.data.chat import ChatFormatter
from nemo_reasoning.errors import ExportError
from nemo_reasoning.export.tokenizer import strip_generation
from nemo_reasoning.models.gguf_tokenizer import GgufTokenizer, gguf_tokenizer

Stored = gguf.GGMLQuantizationType
ROPE_FACTORS = "rope_freqs.weight"
_TYPES = {
    "f16": (Stored.F16, gguf.LlamaFileType.MOSTLY_F16),
    "q8_0": (Stored.Q8_0, gguf.LlamaFileType.MOSTLY_Q8_0),
}
_BYTE = re.compile(r"<0x[0-9A-F]{2}>")
_BLOCK = 32  # weights of a row that share a scale in q8_0


class TensorNames:
    """GGUF's names of a model's tensors, by Hugging Face's."""

    def __init__(self, shape: Architecture) -> None:
        """Take the model's shape."""
        self.architecture = GGUF_ARCHITECTURES[shape.family]
        kinds = {name: kind for kind, name in gguf.MODEL_ARCH_NAMES.items()}
        self._names = gguf.get_tensor_name_map(kinds[self.architecture], shape.num_layers)

    def __call__(self, name: str) -> str:
        """Return a tensor's name.

        Raises:
            ExportError: A model of this architecture has no such tensor.
        """
        found = self._names.get_name(name, (".weight", ".bias"))
        if found is None:
            raise ExportError(f"{name}: llama.cpp knows no such weight of a {self.architecture} model")
        return str(found)


def heads_in_pairs(name: str, weight: torch.Tensor, shape: Architecture) -> torch.Tensor:
    """Return a weight with rows as llama.cpp has them: of its Llama, the two rows that turn together are neighbors."""
    heads = {"q_proj": shape.num_attention_heads, "k_proj": shape.num_query_groups}.get(name.split(".")[-2])
    if heads is None or GGUF_ARCHITECTURES[shape.family] != "llama":
        return weight
    halves = weight.reshape(heads, 2, weight.shape[0] // heads // 2, *weight.shape[1:])
    return halves.transpose(1, 2).reshape(weight.shape)


def rope_factors(shape: Architecture) -> NDArray[np.float32] | None:
    """Return by what llama.cpp divides each rotary frequency, [head size / 2]; None without Llama 3.1's scaling."""
    scaling = shape.rope_scaling
    if scaling is None:
        return None
    factors = []
    for place in range(0, shape.head_dim, 2):
        turns = scaling.original_max_seq_length / (2 * math.pi * shape.rope_base ** (place / shape.head_dim))
        smooth = (turns - scaling.low_freq_factor) / (scaling.high_freq_factor - scaling.low_freq_factor)
        smooth = min(max(smooth, 0.0), 1.0)
        factors.append(1 / ((1 - smooth) / scaling.factor + smooth))
    return np.array(factors, dtype=np.float32)


def write_gguf(
    weights: Iterable[tuple[str, torch.Tensor]],
    *,
    sizes: Mapping[str, tuple[int, ...]],
    files: Mapping[str, Path],
    shape: Architecture,
    formatter: ChatFormatter,
    name: str,
) -> None:
    """Write one file of each type, all of them in one pass over the weights.

    Args:
        weights: Names under Hugging Face and weights in float32, one at a time.
        sizes: Of the same weights, in the same order.
        files: Where to write, by type: "f16" or "q8_0".
        shape: The model.
        formatter: Tokenizer and chat template of the training.
        name: Of the model.

    Raises:
        ExportError: The model has a weight that llama.cpp does not know, or that float16 cannot hold.
        ModelSourceError: The tokenizer has no name in GGUF.
    """
    names, factors = TensorNames(shape), rope_factors(shape)
    with ExitStack() as opened:
        writers = {}
        for kind, path in files.items():
            writer = writers[kind] = gguf.GGUFWriter(path, names.architecture)
            opened.callback(writer.close)
            _add_model(writer, shape, name=name, file_type=_TYPES[kind][1])
            _add_tokenizer(writer, formatter, size=shape.vocab_size)
            for weight, size in sizes.items():
                stored = _stored_as(kind, size)
                held = gguf.quant_shape_to_byte_shape(size, stored) if stored is Stored.Q8_0 else size
                dtype = np.dtype({Stored.F32: np.float32, Stored.F16: np.float16}.get(stored, np.uint8))
                writer.add_tensor_info(names(weight), held, dtype, math.prod(held) * dtype.itemsize, stored)
            if factors is not None:
                writer.add_tensor_info(ROPE_FACTORS, factors.shape, factors.dtype, factors.nbytes, Stored.F32)
            writer.write_header_to_file()
            writer.write_kv_data_to_file()
            writer.write_ti_data_to_file()
        for weight, tensor in weights:
            paired = heads_in_pairs(weight, tensor, shape).contiguous()
            for kind, writer in writers.items():
                writer.write_tensor_data(_packed(weight, paired, _stored_as(kind, sizes[weight])))
        if factors is not None:
            for writer in writers.values():
                writer.write_tensor_data(factors)


def _stored_as(kind: str, size: Sequence[int]) -> Any:
    """Return the type a tensor is stored in: norms and biases in float32, what has no whole blocks in float16."""
    if len(size) == 1:
        return Stored.F32
    return Stored.F16 if size[-1] % _BLOCK else _TYPES[kind][0]


def _packed(name: str, weight: torch.Tensor, stored: Any) -> NDArray[Any]:
    if stored is Stored.F32:
        return weight.numpy()
    if stored is Stored.F16:
        half = weight.to(torch.float16)
        if not half.isfinite().all():
            raise ExportError(f"{name} has weights up to {weight.abs().max():g}, which float16 cannot hold")
        return half.numpy()
    packed: NDArray[Any] = gguf.quants.quantize(weight.numpy(), stored)
    return packed


def _add_model(writer: gguf.GGUFWriter, shape: Architecture, *, name: str, file_type: gguf.LlamaFileType) -> None:
    writer.add_type(gguf.GGUFType.MODEL)
    writer.add_name(name)
    writer.add_block_count(shape.num_layers)
    writer.add_context_length(shape.max_seq_length)
    writer.add_embedding_length(shape.hidden_size)
    writer.add_feed_forward_length(shape.ffn_hidden_size)
    writer.add_head_count(shape.num_attention_heads)
    writer.add_head_count_kv(shape.num_query_groups)
    writer.add_key_length(shape.head_dim)
    writer.add_value_length(shape.head_dim)
    writer.add_rope_dimension_count(shape.head_dim)
    writer.add_rope_freq_base(shape.rope_base)
    writer.add_layer_norm_rms_eps(shape.norm_epsilon)
    writer.add_vocab_size(shape.vocab_size)
    writer.add_file_type(file_type)
    writer.add_quantization_version(gguf.GGML_QUANT_VERSION)


def _add_tokenizer(writer: gguf.GGUFWriter, formatter: ChatFormatter, *, size: int) -> None:
    """Add vocabulary, merges, special tokens and template.

    The template writes the beginning-of-text token, here as in training, so nobody else is to add one.
    """
    source, known = formatter.tokenizer, gguf_tokenizer(formatter.tokenizer)
    tokens, types = vocabulary(source, size=size)
    writer.add_tokenizer_model(known.model)
    writer.add_tokenizer_pre(known.pre)
    writer.add_token_list(tokens)
    writer.add_token_types(types)
    if known.model == "gpt2":
        writer.add_token_merges(known.joined)
    else:
        writer.add_token_scores(_scores(tokens, known))
        writer.add_add_space_prefix(known.space_prefix)
    for add, number in (
        (writer.add_bos_token_id, source.bos_token_id),
        (writer.add_eos_token_id, formatter.end_of_turn),
        (writer.add_unk_token_id, source.unk_token_id),
        (writer.add_pad_token_id, formatter.end_of_turn if source.pad_token_id is None else source.pad_token_id),
    ):
        if number is not None:
            add(number)
    writer.add_add_bos_token(False)
    writer.add_add_eos_token(False)
    writer.add_chat_template(strip_generation(formatter.template))


def vocabulary(tokenizer: Any, *, size: int) -> tuple[list[str], list[gguf.TokenType]]:
    """Return the token of each row of the embedding, and its type.

    Raises:
        ExportError: The tokenizer has more tokens than the embedding rows.
    """
    texts = {number: text for text, number in tokenizer.get_vocab().items()}
    if max(texts) >= size:
        raise ExportError(f"the tokenizer's token {texts[max(texts)]!r} is {max(texts)}, the embedding has {size} rows")
    added, tokens, types = tokenizer.added_tokens_decoder, [], []
    for number in range(size):
        text, kind = texts.get(number, f"[PAD{number}]"), gguf.TokenType.NORMAL
        if number not in texts:
            kind = gguf.TokenType.UNUSED
        elif number in added:
            special = added[number].special or (text.startswith("<|") and text.endswith("|>"))
            kind = gguf.TokenType.CONTROL if special else gguf.TokenType.USER_DEFINED
        elif _BYTE.fullmatch(text):
            kind = gguf.TokenType.BYTE
        tokens.append(text)
        types.append(gguf.TokenType.UNKNOWN if number == tokenizer.unk_token_id and _is_piece(tokenizer) else kind)
    return tokens, types


def _is_piece(tokenizer: Any) -> bool:
    """Whether the unknown token is SentencePiece's."""
    return str(tokenizer.unk_token) == "<unk>"


def _scores(tokens: Sequence[str], known: GgufTokenizer) -> list[float]:
    """Return SentencePiece's scores, of which the highest merge goes first: the place of each token's first merge."""
    places: dict[str, int] = {}
    for place, (left, right) in enumerate(known.merges):
        places.setdefault(left + right, place)
    return [-float(places.get(token, len(known.merges))) for token in tokens]
