"""Greedy answers of our engine and of llama.cpp from GGUF files of the same weights.

Needs `pip install llama-cpp-python`. Of twenty prompts in the template's format and each type of file: how many are
encoded alike, how many answers are equal, and after how many characters the others differ. The last line is a JSON
object.
"""

import argparse
import json
import tempfile
from pathlib import Path
from typing import Any

from rich.console import Console

from nemo_reasoning.data.chat import ChatFormatter, load_template
from nemo_reasoning.export.gguf_writing import write_gguf
from nemo_reasoning.inference.hf.engine import HFEngine
from nemo_reasoning.inference.request import GenerationRequest
from nemo_reasoning.models.hub import PACKAGED_MODEL, fetch_base
from nemo_reasoning.models.sizes import architecture_from_hf
from nemo_reasoning.models.weight_files import base_files, read_file, weight_shapes
from nemo_reasoning.reasoning.messages import Message
from nemo_reasoning.reasoning.switch import with_switch

QUESTIONS = (
    *(f"What is {number} * {number + 5}?" for number in range(12, 19)),
    *(f"Name three {things}." for things in ("rivers in Europe", "metals", "planets", "mammals", "composers")),
    *(f"Explain {what} in one sentence." for what in ("gravity", "inflation", "photosynthesis", "a hash table")),
    *(
        "Translate 'good morning' into French.",
        "Write a haiku about rain — 日本.",
        "Who wrote Hamlet?",
        "def f(x):\n\treturn",
    ),
)


def main() -> None:
    """Compare, and print one JSON object last."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="eight tokens an answer instead of 64")
    parser.add_argument("--model", default=PACKAGED_MODEL, help="a directory or hub id, such as export/merged of a run")
    parser.add_argument("--template", default="chatml")
    arguments = parser.parse_args()
    tokens = 8 if arguments.quick else 64
    path = fetch_base(arguments.model, revision=None, cache_dir=Path("~/.cache/nemo_reasoning").expanduser()).path
    formatter = ChatFormatter.load(path, template=load_template(arguments.template))
    turns = [with_switch([Message("user", question)], "off") for question in QUESTIONS]
    prompts = [formatter.prompt_ids(messages) for messages in turns]
    texts = [formatter.render(messages, add_generation_prompt=True) for messages in turns]
    engine = HFEngine(path, dtype="float32", device="cpu", context=512, chat_template=formatter.template)
    requests = [GenerationRequest(prompt=tuple(ids), mode="off", max_new_tokens=tokens) for ids in prompts]
    ours = [answer.text for answer in engine.generate(requests)]
    console, found = Console(stderr=True), {"prompts": len(prompts), "tokens": tokens}
    with tempfile.TemporaryDirectory() as folder:
        files = {kind: Path(folder) / f"{kind}.gguf" for kind in ("f16", "q8_0")}
        weights = (entry for file in base_files(path) for entry in read_file(file))
        shape = architecture_from_hf(path)
        sizes = weight_shapes(path)
        write_gguf(
            ((name, weight.float()) for name, weight in weights),
            sizes=sizes,
            files=files,
            shape=shape,
            formatter=formatter,
            name="model",
        )
        for kind, file in files.items():
            found[kind] = compared(file, texts, prompts, ours, formatter, tokens=tokens)
            console.print(kind, found[kind])
    print(json.dumps(found))


def compared(
    file: Path, texts: list[str], prompts: list[list[int]], ours: list[str], formatter: ChatFormatter, *, tokens: int
) -> dict[str, Any]:
    """Return how many prompts and answers of a file are equal to ours."""
    import llama_cpp

    model = llama_cpp.Llama(str(file), n_ctx=512, verbose=False)
    encoded, equal, before = 0, 0, []
    for prompt, ids, answer in zip(texts, prompts, ours, strict=True):
        encoded += list(model.tokenize(prompt.encode(), add_bos=False, special=True)) == ids
        model.reset()
        other: list[int] = []
        for token in model.generate(ids, temp=0.0, repeat_penalty=1.0):
            other.append(token)
            if token == formatter.end_of_turn or len(other) == tokens:
                break
        text = formatter.tokenizer.decode(other, skip_special_tokens=True)
        equal += answer == text
        if answer != text:
            pairs = zip(answer, text, strict=False)
            before.append(next((place for place, (left, right) in enumerate(pairs) if left != right), len(answer)))
    return {
        "encoded_alike": encoded,
        "equal_answers": equal,
        "first_other_character": before,
        "version": llama_cpp.__version__,
    }


if __name__ == "__main__":
    main()
