"""Tiny random models with byte-level chat tokenizers, built in the test process."""

from pathlib import Path

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import AutoConfig, AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

CHATML = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
LLAMA3 = ("<|begin_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>")


def byte_tokenizer(*, specials: tuple[str, ...] = CHATML, bos: str, eos: str) -> PreTrainedTokenizerFast:
    """Return a tokenizer with one token a byte, and the given special tokens."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {symbol: number for number, symbol in enumerate([*specials, *alphabet])}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(list(specials))
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token=bos, eos_token=eos, pad_token=eos)


def merging_tokenizer(*steps: pre_tokenizers.PreTokenizer, whole_words: bool = False) -> PreTrainedTokenizerFast:
    """Return a tokenizer with ChatML's special tokens and merges of bytes, learned from a few lines."""
    tokenizer = Tokenizer(models.BPE(ignore_merges=whole_words))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(list(steps)) if len(steps) > 1 else steps[0]
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    trainer = trainers.BpeTrainer(
        vocab_size=400, special_tokens=list(CHATML), initial_alphabet=alphabet, show_progress=False
    )
    text = ["detailed thinking on", "The answer is 282, and we've said so.", "<think>\n40 * 6 = 240\n</think>\n\n"] * 3
    tokenizer.train_from_iterator(text, trainer)
    end, begin = "<|im_end|>", "<|im_start|>"
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token=begin, eos_token=end, pad_token=end)


def chatml_tokenizer() -> PreTrainedTokenizerFast:
    """Return a byte tokenizer with ChatML's special tokens."""
    return byte_tokenizer(specials=CHATML, bos="<|im_start|>", eos="<|im_end|>")


def llama3_tokenizer() -> PreTrainedTokenizerFast:
    """Return a byte tokenizer with Llama 3's special tokens."""
    return byte_tokenizer(specials=LLAMA3, bos="<|begin_of_text|>", eos="<|eot_id|>")


def save_tiny_llama(
    folder: Path,
    *,
    tie_embeddings: bool = False,
    rope_scaling: dict[str, object] | None = None,
    tokenizer: PreTrainedTokenizerFast | None = None,
    dtype: torch.dtype = torch.float32,
    head_dim: int = 16,
    seed: int = 0,
) -> Path:
    """Write a random two-layer Llama with grouped queries (4 heads, 2 groups) and its tokenizer."""
    tokenizer = tokenizer or chatml_tokenizer()
    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=-(-len(tokenizer) // 8) * 8,
        hidden_size=64,
        intermediate_size=176,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=head_dim,
        max_position_embeddings=512,
        rope_theta=10000.0,
        rope_scaling=rope_scaling,
        tie_word_embeddings=tie_embeddings,
        initializer_range=0.1,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    LlamaForCausalLM(config).to(dtype).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


# What makes each family's shape its own: tied or not, heads of another size than hidden_size / heads.
FAMILIES: dict[str, dict[str, object]] = {
    "llama": {},
    "qwen2": {"tie_word_embeddings": True, "rope_theta": 1e6},
    "qwen3": {"head_dim": 24, "rope_theta": 1e6},
    "mistral": {"sliding_window": None, "head_dim": 32, "tie_word_embeddings": True},
}


def save_tiny(
    folder: Path, family: str, *, tokenizer: PreTrainedTokenizerFast | None = None, **changes: object
) -> Path:
    """Write a random two-layer model of a family, its norms and biases random too, and a ChatML tokenizer."""
    tokenizer = tokenizer or chatml_tokenizer()
    torch.manual_seed(0)
    sizes: dict[str, object] = {"hidden_size": 64, "intermediate_size": 176, "num_hidden_layers": 2}
    heads = {"num_attention_heads": 4, "num_key_value_heads": 2}
    config = AutoConfig.for_model(
        family,
        vocab_size=-(-len(tokenizer) // 8) * 8,
        max_position_embeddings=512,
        initializer_range=0.1,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        **sizes | heads | FAMILIES[family] | changes,
    )
    model = AutoModelForCausalLM.from_config(config)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() == 1:
                parameter.add_(0.3 * torch.randn_like(parameter))
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder
