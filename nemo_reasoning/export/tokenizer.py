"""Tokenizers with their chat template, saved so that every reader encodes as training did."""

import re
from pathlib import Path

from transformers import AutoTokenizer, PreTrainedTokenizerFast

from nemo_reasoning.artifacts import write_text
from nemo_reasoning.data.chat import ChatFormatter
from nemo_reasoning.data.schema import Message
from nemo_reasoning.errors import ExportError

TEMPLATE_FILE = "chat_template.jinja"
_TAG = re.compile(r"\{%([-+]?)\s*(?:end)?generation\s*([-+]?)%\}")
_CLOCK = re.compile(r"strftime_now|date_string")


def load_formatter(base: Path, *, template: str) -> ChatFormatter:
    """Return what training encoded with: the base's tokenizer and the training template.

    Raises:
        ExportError: The template writes the date, so a prompt would change from day to day.
    """
    clock = _CLOCK.search(template)
    if clock:
        raise ExportError(f"the chat template uses {clock[0]}, which puts a date into every prompt; remove it")
    return ChatFormatter(AutoTokenizer.from_pretrained(base), template)


def strip_generation(template: str) -> str:
    """Remove the generation tags, which only training needs and other Jinja engines refuse.

    A comment with the same whitespace control takes the place of each tag: the text around it would
    lose its trimming if the tag just vanished.
    """
    return _TAG.sub(r"{#\1 \2#}", template)


def end_of_turn(formatter: ChatFormatter) -> int:
    """Return the id of the token that ends what the assistant says: the last one training targets.

    Raises:
        ExportError: It is no special token, so an engine could not stop there.
    """
    encoded = formatter.encode([Message("user", "a"), Message("assistant", "b")])
    last = int(encoded.ids[encoded.loss_mask][-1])
    token = formatter.tokenizer.added_tokens_decoder.get(last)
    if token is None or not token.special:
        text = formatter.tokenizer.decode([last])
        raise ExportError(
            f"the chat template ends the assistant's turn with {text!r}, which is "
            "no special token of the base model; put the end-of-turn token inside the generation block"
        )
    return last


def write_tokenizer(formatter: ChatFormatter, *, out: Path) -> None:
    """Save tokenizer and chat template to the folder `out`.

    The class is the plain fast one: releases of transformers disagree about what the classes named
    after models do. The end-of-sequence token is the end-of-turn token. The template stands in
    tokenizer_config.json, where older readers look, and in a file of its own, for the newer ones.
    """
    source = formatter.tokenizer
    template = strip_generation(formatter.template)
    eos = source.convert_ids_to_tokens(end_of_turn(formatter))
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
