"""What a tokenizer does with fixed texts and dialogues; also a script for another environment.

Run as a script it needs nothing but transformers: it reads {"folder", "dialogues", "texts"} as JSON
from standard input and writes the observation of the tokenizer in that folder to standard output.
"""

import json
import sys
from typing import Any


def observe(tokenizer: Any, *, template: str | None, dialogues: list[Any], texts: list[str]) -> dict[str, Any]:
    """Return ids and texts that must not depend on the environment.

    Args:
        tokenizer: A fast tokenizer.
        template: Chat template to use; None for the tokenizer's own.
        dialogues: Lists of {"role", "content"}.
        texts: Plain texts, encoded without special tokens and decoded again.
    """
    seen: dict[str, Any] = {"bos": tokenizer.bos_token_id, "eos": tokenizer.eos_token_id}
    for prompt in (False, True):
        options = {"chat_template": template, "add_generation_prompt": prompt}
        kind = "prompt" if prompt else "dialogue"
        seen[f"{kind}_text"] = [tokenizer.apply_chat_template(turns, tokenize=False, **options) for turns in dialogues]
        seen[f"{kind}_ids"] = [
            list(tokenizer.apply_chat_template(turns, tokenize=True, return_dict=False, **options))
            for turns in dialogues
        ]
    seen["ids"] = [list(tokenizer(text, add_special_tokens=False)["input_ids"]) for text in texts]
    seen["decoded"] = [tokenizer.decode(ids, clean_up_tokenization_spaces=False) for ids in seen["ids"]]
    return seen


def main() -> None:
    """Answer one request."""
    import transformers

    request = json.load(sys.stdin)
    tokenizer = transformers.AutoTokenizer.from_pretrained(request["folder"], trust_remote_code=False)
    seen = observe(tokenizer, template=None, dialogues=request["dialogues"], texts=request["texts"])
    json.dump({"transformers": transformers.__version__, "seen": seen}, sys.stdout)


if __name__ == "__main__":
    main()
