"""GGUF files hold the weights, the tokenizer and the prompts of the training, and what they cannot hold is refused."""

import importlib.util
from pathlib import Path

import gguf
import pytest
import torch
from tiny import FAMILIES, merging_tokenizer, save_tiny, save_tiny_llama
from tokenizers import Regex, normalizers, pre_tokenizers
from trained_adapters import make_adapter, run, scaled, trained_logits
from transformers import AutoModelForCausalLM, PreTrainedTokenizerFast

from nemo_reasoning.data.chat import TEMPLATES, ChatFormatter, load_template
from nemo_reasoning.errors import ExportError, ModelSourceError, VerificationError
from nemo_reasoning.export import gguf_writing
from nemo_reasoning.export.gguf_reading import read_tokenizer_back, read_weights_back, run_llama_cpp
from nemo_reasoning.export.gguf_writing import write_gguf
from nemo_reasoning.export.ollama import modelfile, text_around_turns
from nemo_reasoning.inference.hf.engine import HFEngine
from nemo_reasoning.inference.request import GenerationRequest
from nemo_reasoning.models.gguf_tokenizer import _SPLITS, gguf_tokenizer
from nemo_reasoning.models.hub import BaseModel
from nemo_reasoning.models.sizes import architecture_from_hf
from nemo_reasoning.reasoning.messages import Message

BYTES = pre_tokenizers.ByteLevel(add_prefix_space=False)
WORDS = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
HAS_LLAMA_CPP = importlib.util.find_spec("llama_cpp") is not None
LLAMA_31 = {
    "rope_type": "llama3",
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 8192,
}


@pytest.fixture(scope="module")
def merging() -> PreTrainedTokenizerFast:
    """Return a tokenizer whose steps llama.cpp calls gpt-2."""
    return merging_tokenizer(BYTES)


@pytest.fixture(scope="module")
def model(merging: PreTrainedTokenizerFast, tmp_path_factory: pytest.TempPathFactory) -> BaseModel:
    """Return a tiny Llama with that tokenizer."""
    path = save_tiny_llama(tmp_path_factory.mktemp("gguf") / "model", tokenizer=merging)
    return BaseModel(name=str(path), path=path, revision="0")


def written(path: Path, merging: PreTrainedTokenizerFast, out: Path, kind: str = "f16") -> dict[str, torch.Tensor]:
    """Write a model as it is to a file, and return its weights."""
    model = AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32)
    tied = {"lm_head.weight"} if model.config.tie_word_embeddings else set()
    weights = {name: weight for name, weight in model.state_dict().items() if name not in tied}
    write_gguf(
        weights.items(),
        sizes={name: tuple(weight.shape) for name, weight in weights.items()},
        files={kind: out},
        shape=architecture_from_hf(path),
        formatter=ChatFormatter(merging, load_template("chatml")),
        name="tiny",
    )
    return weights


CASES: list[tuple[str, dict[str, object]]] = [(name, {}) for name in FAMILIES]


@pytest.mark.parametrize(("family", "changes"), [*CASES, ("llama", {"rope_scaling": LLAMA_31})])
def test_every_family_is_read_back(
    family: str, changes: dict[str, object], merging: PreTrainedTokenizerFast, tmp_path: Path
) -> None:
    path = save_tiny(tmp_path / "model", family, tokenizer=merging, **changes)
    weights, shape = written(path, merging, tmp_path / "tiny.gguf"), architecture_from_hf(path)
    assert read_weights_back(tmp_path / "tiny.gguf", weights.__getitem__, names=weights, shape=shape)["tensors"] >= len(
        weights
    )
    if family in ("llama", "qwen2"):  # of the others transformers does not read the size of heads
        other = AutoModelForCausalLM.from_pretrained(tmp_path, gguf_file="tiny.gguf", dtype=torch.float32)
        for name, weight in other.state_dict().items():
            if name in weights:
                torch.testing.assert_close(weight, weights[name], rtol=1e-3, atol=1e-6)
    if HAS_LLAMA_CPP:
        formatter, ids = ChatFormatter(merging, load_template("chatml")), torch.arange(200)[None]
        reference = AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32)(ids).logits.detach()
        found = run_llama_cpp(tmp_path / "tiny.gguf", "f16", formatter=formatter, batches=[ids], reference=[reference])
        assert found["relative_rms"] < 5e-3


def test_an_export_is_verified_and_says_how_it_is_served(model: BaseModel, tmp_path: Path) -> None:
    adapter = make_adapter(architecture_from_hf(model.path))
    result = run(model, adapter, tmp_path, formats=["gguf"], gguf=["f16", "q8_0"], dtype="bfloat16")
    checks, folder = result.checks["gguf"], result.folders["gguf"]
    assert checks["logits"]["relative_rms"] < 1e-5
    assert checks["f16 weights"]["relative_rms"] < 5e-4 < checks["q8_0 weights"]["relative_rms"] < 1e-2
    assert ("llama.cpp" in checks) != HAS_LLAMA_CPP
    assert {"tiny-f16.gguf", "tiny-q8_0.gguf", "Modelfile", "README.md"} <= {path.name for path in folder.iterdir()}
    assert result.commands["gguf"]["llama.cpp"].endswith("/gguf/tiny-q8_0.gguf")
    assert "FROM ./tiny-q8_0.gguf" in (folder / "Modelfile").read_text()
    assert "llama-server --jinja" in (folder / "README.md").read_text()
    fields = gguf.GGUFReader(folder / "tiny-f16.gguf").fields
    assert fields["tokenizer.ggml.pre"].contents() == "gpt-2"
    assert fields["tokenizer.ggml.add_bos_token"].contents() is False
    assert "generation" not in fields["tokenizer.chat_template"].contents().replace("add_generation_prompt", "")


def test_other_weights_are_noticed(
    model: BaseModel, merging: PreTrainedTokenizerFast, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shape, adapter = architecture_from_hf(model.path), make_adapter(architecture_from_hf(model.path))
    other = trained_logits(model.path, scaled(adapter, 1.01))
    with pytest.raises(VerificationError, match="differ from the trained model"):
        run(model, adapter, tmp_path, formats=["gguf"], reference_logits=other)
    monkeypatch.setattr(gguf_writing, "heads_in_pairs", lambda name, weight, shape: weight)
    for kind in ("f16", "q8_0"):
        weights = written(model.path, merging, tmp_path / "odd.gguf", kind)
        with pytest.raises(VerificationError, match=r"blk.0.attn_q.weight is not the merged .*q_proj"):
            read_weights_back(tmp_path / "odd.gguf", weights.__getitem__, names=weights, shape=shape)
    formatter = ChatFormatter(merging, load_template("qwen3"))
    with pytest.raises(VerificationError, match="chat_template is not that of the training"):
        read_tokenizer_back(tmp_path / "odd.gguf", formatter=formatter, shape=shape)


def split(name: str) -> pre_tokenizers.PreTokenizer:
    return pre_tokenizers.Split(Regex(_SPLITS[name]), "isolated")


@pytest.mark.parametrize(
    ("steps", "whole_words", "name"),
    [
        ([BYTES], False, "gpt-2"),
        ([pre_tokenizers.Digits(True), BYTES], False, "smollm"),
        ([split("llama-3"), WORDS], True, "llama-bpe"),
        ([split("llama-3"), WORDS], False, "smaug-bpe"),
        ([split("qwen-2"), WORDS], False, "qwen2"),
    ],
)
def test_steps_have_llama_cpps_names(
    steps: list[pre_tokenizers.PreTokenizer], whole_words: bool, name: str, tmp_path: Path
) -> None:
    tokenizer = merging_tokenizer(*steps, whole_words=whole_words)
    assert gguf_tokenizer(tokenizer).pre == name
    if HAS_LLAMA_CPP:
        path, ids = save_tiny_llama(tmp_path / "model", tokenizer=tokenizer), torch.arange(9)[None]
        written(path, tokenizer, tmp_path / "tiny.gguf")
        formatter = ChatFormatter(tokenizer, load_template("chatml"))
        reference = AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32)(ids).logits.detach()
        run_llama_cpp(tmp_path / "tiny.gguf", "f16", formatter=formatter, batches=[ids], reference=[reference])


@pytest.mark.parametrize(
    ("steps", "message"),
    [
        ([pre_tokenizers.Split(Regex(r"\s"), "isolated"), WORDS], r"hash of llama.cpp's text .* nor its steps"),
        ([split("qwen-2"), BYTES], "nor its steps"),
        ([pre_tokenizers.Digits(False), BYTES], "nor its steps"),
        ([pre_tokenizers.Whitespace()], "no tokens for bytes"),
    ],
)
def test_unknown_steps_are_refused(steps: list[pre_tokenizers.PreTokenizer], message: str) -> None:
    with pytest.raises(ModelSourceError, match=message):
        gguf_tokenizer(merging_tokenizer(*steps))


def test_text_that_is_changed_before_is_refused() -> None:
    changed = merging_tokenizer(BYTES)
    changed.backend_tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    with pytest.raises(ModelSourceError, match="nor its steps are known"):
        gguf_tokenizer(changed)
    changed.backend_tokenizer.normalizer = normalizers.Lowercase()
    with pytest.raises(ModelSourceError, match="llama.cpp normalizes no text"):
        gguf_tokenizer(changed)


def test_what_cannot_be_written_is_refused_first(
    model: BaseModel, merging: PreTrainedTokenizerFast, tmp_path: Path
) -> None:
    adapter, request = make_adapter(architecture_from_hf(model.path)), {"formats": ["gguf"], "gguf": ["q4_k_m"]}
    if not HAS_LLAMA_CPP:
        with pytest.raises(ExportError, match="pip install --no-deps llama-cpp-python"):
            run(model, adapter, tmp_path, **request, reference_logits=pytest.fail)
    large = AutoModelForCausalLM.from_pretrained(model.path)
    large.model.layers[1].mlp.up_proj.weight.data[3, 4] = 1e5
    large.save_pretrained(tmp_path / "large")
    with pytest.raises(ExportError, match=r"layers.1.mlp.up_proj.weight has weights up to 100000.*float16"):
        written(tmp_path / "large", merging, tmp_path / "large.gguf")
    with pytest.raises(ExportError, match="embedding has 200 rows"):
        gguf_writing.vocabulary(merging, size=200)


TOKENS = ("<|begin_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>", "<s>", "</s>")


@pytest.fixture
def formatters() -> dict[str, ChatFormatter]:
    """Return a formatter of each of the package's templates."""
    made = {}
    for path in TEMPLATES.glob("*.jinja"):
        tokenizer = merging_tokenizer(BYTES)
        tokenizer.add_special_tokens({"additional_special_tokens": list(TOKENS)})
        if path.stem in ("llama2", "mistral"):
            tokenizer.add_special_tokens({"bos_token": "<s>", "eos_token": "</s>"})
        made[path.stem] = ChatFormatter(tokenizer, load_template(path.stem))
    return made


def test_every_template_has_a_modelfile(formatters: dict[str, ChatFormatter]) -> None:
    texts = {name: modelfile(known, weights="w.gguf", max_seq_length=4096) for name, known in formatters.items()}
    assert len(texts) == 5
    for name, text in texts.items():
        assert text_around_turns(formatters[name]).compared == 12
        assert text.count('"""') == 2
        assert "PARAMETER num_ctx 4096" in text
        assert ("detailed thinking off" in text) == (name != "qwen3")
        stop = {"llama3": "<|eot_id|>", "llama2": "</s>", "mistral": "</s>"}.get(name, "<|im_end|>")
        assert f'PARAMETER stop "{stop}"' in text
    assert '{{ if $off }}{{ "<|im_end|>\\n<|im_start|>assistant\\n<think>\\n\\n</think>\\n\\n" }}' in texts["qwen3"]


def test_prompts_that_no_modelfile_makes(model: BaseModel, merging: PreTrainedTokenizerFast, tmp_path: Path) -> None:
    odd = load_template("chatml").replace("message['content'] + '<", "message['content'] + loop.index|string + '<")
    with pytest.raises(ExportError, match="more than roles and mode"):
        text_around_turns(ChatFormatter(merging, odd))
    adapter = make_adapter(architecture_from_hf(model.path))
    result = run(model, adapter, tmp_path, formats=["gguf"], template=odd)
    assert result.checks["gguf"]["Modelfile"].startswith("not written: the chat template writes prompts")
    assert "ollama" not in result.commands["gguf"]
    assert not (result.folders["gguf"] / "Modelfile").exists()


@pytest.mark.skipif(not HAS_LLAMA_CPP, reason="llama-cpp-python is not installed")
def test_greedy_answers_of_llama_cpp_are_ours(merging: PreTrainedTokenizerFast, tmp_path: Path) -> None:
    import llama_cpp

    formatter = ChatFormatter(merging, load_template("chatml"))
    model = AutoModelForCausalLM.from_pretrained(save_tiny_llama(tmp_path / "model", tokenizer=merging))
    rows = [(Message("user", f"What is {n} * 6?"), Message("assistant", f"The answer is {6 * n}.")) for n in range(20)]
    ids = [torch.from_numpy(formatter.encode(row).ids).long() for row in rows]
    batch = torch.nn.utils.rnn.pad_sequence(ids, batch_first=True, padding_value=merging.pad_token_id)
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    for _ in range(60):
        model(input_ids=batch, labels=batch).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    model.save_pretrained(tmp_path / "model")
    written(tmp_path / "model", merging, tmp_path / "tiny.gguf")
    prompts = [formatter.prompt_ids(row[:1]) for row in rows]
    engine = HFEngine(tmp_path / "model", dtype="float32", device="cpu", chat_template=formatter.template)
    asked = [GenerationRequest(prompt=tuple(prompt), mode="off", max_new_tokens=24) for prompt in prompts]
    other = llama_cpp.Llama(str(tmp_path / "tiny.gguf"), n_ctx=256, verbose=False)
    found = []
    for prompt in prompts:
        answer = other.create_completion(prompt, max_tokens=24, temperature=0.0, repeat_penalty=1.0)
        found.append(answer["choices"][0]["text"])
    assert [answer.text for answer in engine.generate(asked)] == found
    assert len(set(found)) > 1
