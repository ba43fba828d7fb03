"""What llama.cpp calls the steps of a tokenizer; it does them itself, so that a wrong name is wrong in silence."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from typing import Any

from nemo_reasoning.errors import ModelSourceError

# llama.cpp's converter encodes this text and looks up the hash of the ids (conversion/base.py, get_vocab_base_pre).
CHECK_TEXT = (
    "\n \n\n \n\n\n \t \t\t \t\n  \n   \n    \n     \n🚀 (normal) 😶\u200d🌫️ (multiple emojis concatenated) ✅ 🦙🦙 "
    "3 33 333 3333 33333 333333 3333333 33333333 3.3 3..3 3...3 កាន់តែពិសេសអាច😁 ?我想在apple工作1314151天～ "
    "------======= нещо на Български ''''''```````\"\"\"\"......!!!!!!?????? I've been 'told he's there, 'RE you sure? "
    "'M not sure I'll make it, 'D you like some tea? We'Ve a'lL"
)
_BY_HASH = {  # of published tokenizers that models of our families have
    "0ef9807a4087ebef797fc749390439009c3b9eda9ad1a097abbe738f486c01e5": "llama-bpe",
    "9d032fcbd5501f4a38150912590928bfb36091efb5df11b8e2124b0390e3fb1e": "falcon3",
    "0e9433cbbb161f89e264eb32e8e64bfe69e834973ffca5d41d3948a604a3e2a3": "pixtral",
    "f6791d196f87ce6b56a7d234be618e0d58f8cda3549416635b2bebcd22cd95c4": "midm-2.0",
    "c136ed14d01c2745d4f60a9596ae66800e2b61fa45643e72436041855ad4089d": "smaug-bpe",
    "e636dc30a262dcc0d8c323492e32ae2b70728f4df7dfe9737d9f920a282b8aea": "qwen2",
    "d4540891389ea895b53b399da6ac824becc30f2fba0e9ddbb98f92e55ca0e97c": "qwen2",
    "b3f499bb4255f8ca19fccd664443283318f2fd2414d5e0b040fbdd0cc195d6c5": "deepseek-r1-qwen",
    "4a2e2abae11ca2b86d570fc5b44be4d5eb5e72cc8f22dd136a94b37da83ab665": "kormo",
    "63b97e4253352e6f357cc59ea5b583e3a680eaeaf2632188c2b952de2588485e": "tekken",
    "855059429035d75a914d1eda9f10a876752e281a054a7a3d421ef0533e5b6249": "smollm",
    "3ce83efda5659b07b1ad37ca97ca5797ea4285d9b9ab0dc679e4a720c9da7454": "gpt-2",
    "35d91631860c815f952d711435f48d356ebac988362536bed955d43bfa436e34": "starcoder",
    "6221ad2852e85ce96f791f476e0b390cf9b474c9e3d1362f53a24a06dc8220ff": "refact",
    "a1e163ecab2e718a4c829d1148b6e86824ec36163bb71941c3dca9cd5ac25756": "mellum",
    "53e325976a6e142379c19b09afcae354f2f496f147afa8f9e189a33fe4e3024e": "granite-docling",
}
_WORDS = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}%s| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
_SPLITS = {"llama-3": _WORDS % "{1,3}", "qwen-2": _WORDS % ""}
# Vocabularies of one's own have no known hash, but steps that llama.cpp knows (src/llama-vocab.cpp, the regular
# expressions of each name and whether whole words of the vocabulary go before merges).
_BY_STEPS = {
    (("ByteLevel", True), False): "gpt-2",
    (("Digits", "ByteLevel", True), False): "smollm",
    (("llama-3", "ByteLevel", False), True): "llama-bpe",
    (("llama-3", "ByteLevel", False), False): "smaug-bpe",
    (("qwen-2", "ByteLevel", False), False): "qwen2",
}
_SPACE = "▁"
_PREPEND, _REPLACE = ("Prepend", _SPACE), ("Replace", " ", _SPACE)


@dataclass(frozen=True)
class GgufTokenizer:
    """A tokenizer in the words of llama.cpp.

    Attributes:
        model: "gpt2" for merges of bytes, "llama" for SentencePiece's merges of characters.
        pre: How text is cut before merges.
        merges: Pairs of tokens, the first to merge first.
        space_prefix: Whether a space is put before a text; of "llama" alone.
    """

    model: str
    pre: str
    merges: Sequence[tuple[str, str]]
    space_prefix: bool = False

    @property
    def joined(self) -> list[str]:
        """The merges as GGUF writes them."""
        return [f"{left} {right}" for left, right in self.merges]


def gguf_tokenizer(tokenizer: Any) -> GgufTokenizer:
    """Return a fast tokenizer of transformers in the words of llama.cpp.

    Raises:
        ModelSourceError: llama.cpp has no name for what it does, or none that is known here.
    """
    parts = json.loads(tokenizer.backend_tokenizer.to_str())
    model, normalizer = parts["model"], _listed(parts["normalizer"], "normalizers")
    steps = _listed(parts["pre_tokenizer"], "pretokenizers")
    pairs = (pair.split(" ") if isinstance(pair, str) else pair for pair in model.get("merges", ()))
    merges = [(left, right) for left, right in pairs]
    if model["type"] != "BPE" or not merges:
        raise _unknown(f"its model is {model['type']} with {len(merges)} merges, and llama.cpp needs BPE with some")
    if any(step["type"] == "ByteLevel" for step in steps):
        if {step["type"] for step in normalizer} - {"NFC"}:
            raise _unknown(f"llama.cpp normalizes no text, and it does ({json.dumps(normalizer)[:200]})")
        return GgufTokenizer("gpt2", _pre_name(tokenizer, steps, whole_words=bool(model.get("ignore_merges"))), merges)
    if not model.get("byte_fallback"):
        raise _unknown("it merges characters, but has no tokens for bytes")
    return GgufTokenizer("llama", "default", merges, _space_prefix(normalizer, steps))


def unnamed(tokenizer: Any) -> str | None:
    """Return why a tokenizer cannot be written to GGUF; None if it can."""
    try:
        gguf_tokenizer(tokenizer)
    except ModelSourceError as error:
        return str(error)
    return None


def _listed(step: Mapping[str, Any] | None, key: str) -> list[Mapping[str, Any]]:
    """Return the steps of a sequence of them, of one, or of none."""
    if step is None:
        return []
    return list(step[key]) if step["type"] == "Sequence" else [step]


def _unknown(reason: str) -> ModelSourceError:
    return ModelSourceError(
        f"the tokenizer has no name in GGUF: {reason}. Under another name llama.cpp would cut text elsewhere than "
        "training did; serve formats=[merged] or [hf_peft]"
    )


def _pre_name(tokenizer: Any, steps: Sequence[Mapping[str, Any]], *, whole_words: bool) -> str:
    ids = tokenizer.encode(CHECK_TEXT)
    found = sha256(str(ids).encode()).hexdigest()
    name = _BY_HASH.get(found) or _BY_STEPS.get((tuple(_step_names(steps)), whole_words))
    if name is None:
        raise _unknown(
            f"neither the hash of llama.cpp's text ({found}) nor its steps are known "
            f"({json.dumps(steps, ensure_ascii=False)[:300]}, ignore_merges={whole_words})"
        )
    return name


def _step_names(steps: Sequence[Mapping[str, Any]]) -> list[Any]:
    """Return steps by names of `_BY_STEPS`; what is done in another way has a name that is not there."""
    names: list[Any] = []
    for step in steps:
        kind = step["type"]
        if kind == "Split" and step["behavior"] == "Isolated" and not step["invert"]:
            pattern = step["pattern"].get("Regex")
            names.append(next((name for name, split in _SPLITS.items() if split == pattern), pattern))
        elif kind == "Digits" and step["individual_digits"]:
            names.append("Digits")
        elif kind == "ByteLevel" and not step["add_prefix_space"]:
            names += ["ByteLevel", step.get("use_regex", True)]
        else:
            names.append(json.dumps(step))
    return names


def _space_prefix(normalizer: Sequence[Mapping[str, Any]], steps: Sequence[Mapping[str, Any]]) -> bool:
    """Return whether SentencePiece's tokenizer puts a space before a text that follows a special token."""
    norms = [(step["type"], *_texts(step)) for step in normalizer]
    if not steps and norms in ([_PREPEND, _REPLACE], [_REPLACE]):
        return norms[0] == _PREPEND
    if not norms and [step["type"] for step in steps] == ["Metaspace"]:
        (step,) = steps  # "first" is before the very first text, and a prompt begins with a special token
        schemes = ("first", "never")
        if step["replacement"] == _SPACE and not step["split"] and step["prepend_scheme"] in schemes:
            return False
    raise _unknown(f"its spaces are made otherwise than SentencePiece's ({json.dumps([*normalizer, *steps])[:300]})")


def _texts(step: Mapping[str, Any]) -> tuple[Any, ...]:
    if step["type"] == "Replace":
        return (step["pattern"].get("String"), step["content"])
    return (step.get("prepend"),)
