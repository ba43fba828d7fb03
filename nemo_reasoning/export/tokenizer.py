"""Tokenizers with their chat template, saved so that every reader encodes as training did."""

import re
from pathlib import Path

from transformers import PreTrainedTokenizerFast

from nemo_reasoning.artifacts import write_text
from nemo_reasoning.data.chat import ChatFormatter

TEMPLATE_FILE = "chat_template.jinja"
_TAG = re.compile(r"\{%([-+]?)\s*(?:end)?generation\s*([-+]?)%\}")


def strip_generation(template: str) -> str:
    """Remove the generation tags, which only training needs and other Jinja engines refuse.

    A comment with the same whitespace control takes the place of each tag: the text around it would
    lose its trimming if the tag just vanished.
    """
    return _TAG.sub(r"{#\1 \2#}", template)


def write_tokenizer(formatter: ChatFormatter, *, out: Path) -> None:
    """Save tokenizer and chat template to the folder `out`.

    The class is the plain fast one: releases of transformers disagree about what the classes named
    after models do. The end-of-sequence token is the end-of-turn token. The template stands in
    tokenizer_config.json, where older readers look, and in a file of its own, for the newer ones.
    """
    source = formatter.tokenizer
    template = strip_generation(formatter.template)
    eos = source.convert_ids_to_tokens(formatter.end_of_turn)
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=source.backend_tokenizer,
        bos_token=source.bos_token,
        eos_token=eos,
        pad_token=source.pad_token or eos,
        unk_token=source.unk_token,
        model_max_length=source.model_max_length,
        model_input_names=["input_ids", "attention_mask"],
        clean_up_tokenization_spaces=False,
        chat_template=template,
    )
    tokenizer.save_pretrained(out, save_jinja_files=False)
    write_text(out / TEMPLATE_FILE, template)
