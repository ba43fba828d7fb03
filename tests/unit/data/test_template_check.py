"""`ChatFormatter.check`: every defect of a template that it names, and no complaint about a sound one."""

import re
from pathlib import Path

import pytest
from chats import TEMPLATES, formatter, tokenizer
from tiny import llama3_tokenizer

from nemo_reasoning.data.chat import ChatFormatter, load_template
from nemo_reasoning.errors import TemplateError

BEGIN = "{{- '<|begin_of_text|>' -}}"
HEADER = "{{- '<|start_header_id|>' + message['role'] + '<|end_header_id|>\\n\\n' -}}"
ASSISTANT = "{%- if message['role'] == 'assistant' -%}\n{%- generation -%}"
ANSWER = "{%- generation -%}{{- message['content'] | trim + '<|eot_id|>' -}}{%- endgeneration -%}"
PROMPT = "{{- '<|start_header_id|>assistant<|end_header_id|>\\n\\n' -}}{%- endif -%}"
LLAMA3_DEFECTS = {
    "no beginning of text": (BEGIN, "", "exactly once"),
    "two beginnings": (BEGIN, BEGIN + BEGIN, "exactly once"),
    "text before the beginning": (BEGIN, "{{- 'x' -}}" + BEGIN, "exactly once"),
    "end of turn no target": (" + '<|eot_id|>' -}}{%- endgen", " -}}{%- endgen", "no end-of-turn token"),
    "end of turn after the block": (
        ANSWER,
        "{%- generation -%}{{- message['content'] -}}{%- endgeneration -%}{{- '<|eot_id|>' -}}",
        "no end-of-turn token",
    ),
    "line break in the block": ("'<|eot_id|>' -}}{%- endgen", "'<|eot_id|>\\n' -}}{%- endgen", "no end-of-turn token"),
    "no prompt": (PROMPT, "{%- endif -%}", "make them equal"),
    "prompt opens the thinking": (PROMPT, PROMPT.replace("\\n\\n", "\\n\\n<think>\\n"), "make them equal"),
    "prompt of another template": (PROMPT, PROMPT.replace("\\n\\n", "\\n"), "make them equal"),
    "header in the block": (f"{HEADER}\n{ASSISTANT}", f"{ASSISTANT}{HEADER}", "make them equal"),
    "block never reached": ("== 'assistant'", "== 'model'", "cannot render .*: assistant turns not marked"),
    "block in a comment": (ANSWER, "{#" + ANSWER + "#}", "cannot render .*: assistant turns not marked"),
    "every turn in the block": ("{%- if message['role'] == 'assistant' -%}", "{%- if true -%}", "3 stretches"),
    "no system turn": (
        BEGIN,
        "{{- raise_exception('no system') if messages[0]['role'] == 'system' -}}" + BEGIN,
        "cannot render .*: no system",
    ),
    "does not parse": ("{%- endfor -%}", "", "cannot render"),
    "prompt refused": (PROMPT, "{{- raise_exception('no prompt') -}}" + PROMPT, "cannot render .*: no prompt"),
}


@pytest.mark.smoke
@pytest.mark.parametrize("template", TEMPLATES)
def test_the_templates_of_the_package_pass(template: str) -> None:
    formatter(template).check()


def test_chatml_passes_with_smollm2(smollm2_hf: Path) -> None:
    ChatFormatter.load(smollm2_hf, template=load_template("chatml")).check()


@pytest.mark.parametrize(("sound", "broken", "message"), LLAMA3_DEFECTS.values(), ids=list(LLAMA3_DEFECTS))
def test_a_defect_is_named(sound: str, broken: str, message: str) -> None:
    template = load_template("llama3")
    assert sound in template
    defective = ChatFormatter(tokenizer("llama3"), template.replace(sound, broken))
    with pytest.raises(TemplateError, match=re.compile(message, re.DOTALL)):
        defective.check()


def test_a_doubled_beginning_is_found_without_the_tokenizers_help() -> None:
    ChatFormatter(llama3_tokenizer(), load_template("llama3")).check()
    doubled = load_template("llama3").replace(BEGIN, BEGIN + BEGIN)
    with pytest.raises(TemplateError, match="exactly once"):
        ChatFormatter(llama3_tokenizer(), doubled).check()


def test_an_added_token_that_is_not_special_ends_no_turn() -> None:
    """Decoding without special tokens would show it, and text may hold it."""
    added = llama3_tokenizer()
    added.add_tokens(["<end>"])
    with pytest.raises(TemplateError, match="'<end>', no end-of-turn token"):
        ChatFormatter(
            added, load_template("llama3").replace("'<|eot_id|>' -}}{%- endgen", "'<end>' -}}{%- endgen")
        ).check()


def test_no_beginning_is_asked_for_where_the_tokenizer_has_none() -> None:
    without = llama3_tokenizer()
    without.bos_token = None
    ChatFormatter(without, load_template("llama3").replace(BEGIN, "")).check()
