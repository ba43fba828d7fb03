"""Every family of models from its Hugging Face directory through training to every export, as one table of facts."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from short_runs import ADAPTER, importing_here, losses, short_settings, train_here
from tiny import FAMILIES as SHAPES
from tiny import save_tiny
from transformers import AutoModelForCausalLM

from nemo_reasoning.config.export import refused_formats
from nemo_reasoning.data.chat import ChatFormatter, load_template
from nemo_reasoning.data.prepare.pipeline import prepare_data
from nemo_reasoning.export.from_run import export_run
from nemo_reasoning.export.tokenizer import strip_generation
from nemo_reasoning.inference.hf.engine import HFEngine
from nemo_reasoning.inference.request import GenerationRequest
from nemo_reasoning.models import importer
from nemo_reasoning.models.families import FAMILIES, family_of
from nemo_reasoning.models.hf_config import read_hf_config
from nemo_reasoning.models.hub import fetch_base
from nemo_reasoning.models.loading import load_nemo_model, open_nemo_model
from nemo_reasoning.models.sizes import architecture_from_hf, count_parameters
from nemo_reasoning.reasoning.messages import Message, Mode
from nemo_reasoning.training.memory.static import static_bytes
from nemo_reasoning.training.memory.workload import workload_of
from nemo_reasoning.training.run_dir import Run
from nemo_reasoning.training.train import TrainingInputs

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore:Detected call of `lr_scheduler.step"),  # NeMo's, at every start
]
CACHE = "cache"  # beside the model
SETTINGS = (*ADAPTER, "optim.lr=1e-2", "trainer.max_steps=2", "trainer.packing=true", "data.rows=24")
QUESTION = (Message("user", "What is 6 * 7?"),)


def test_none_is_left_out() -> None:
    assert SHAPES.keys() == FAMILIES.keys()


@pytest.fixture(scope="module", params=[name for name in SHAPES if name != "llama"])  # Llama has tests of its own
def inputs(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[TrainingInputs]:
    """Return a tiny model of a family, imported, and rows in its format; NeMo is on the CPU."""
    folder = tmp_path_factory.mktemp(request.param)
    model = fetch_base(str(save_tiny(folder / "hf", request.param)), revision=None, cache_dir=folder).path
    (model / "generation_config.json").unlink()  # which a model need not have
    template = load_template("qwen3" if request.param == "qwen3" else "chatml")
    formatter = ChatFormatter.load(model, template=template)
    settings = short_settings(model, folder, *SETTINGS)
    prepare_data(settings.data, formatter=formatter, seq_length=256, out=folder / "data", tell=lambda line: None)
    with importing_here():
        base = fetch_base(str(model), revision=None, cache_dir=folder)
        imported = importer.import_base(base, dtype="float32", cache_dir=folder / CACHE)
        yield TrainingInputs(base=imported, tokenizer=model, formatter=formatter, data=folder / "data")


@torch.no_grad()
def test_logits_are_hugging_faces_packed_or_not(inputs: TrainingInputs) -> None:
    from megatron.core.packed_seq_params import PackedSeqParams

    reference = AutoModelForCausalLM.from_pretrained(inputs.tokenizer).eval()
    first, second = (torch.randint(200, (1, n), generator=torch.Generator().manual_seed(n)) for n in (25, 70))
    expected = torch.cat([reference(ids).logits for ids in (first, second)], dim=1)
    bounds = torch.tensor([0, 25, 95], dtype=torch.int32)
    packed = PackedSeqParams(
        qkv_format="thd", cu_seqlens_q=bounds, cu_seqlens_kv=bounds, max_seqlen_q=70, max_seqlen_kv=70
    )
    positions = torch.cat([torch.arange(25), torch.arange(70)])[None]
    assert inputs.base is not None
    with load_nemo_model(inputs.base) as logits:
        apart = torch.cat([logits(first), logits(second)], dim=1)
        ids = torch.cat([first, second], dim=1)
        together = logits(ids, position_ids=positions, packed_seq_params=packed)
    assert (apart - expected).abs().max() < 1e-3
    assert (together - expected).abs().max() < 1e-3


def test_the_planner_knows_every_parameter(inputs: TrainingInputs, tmp_path: Path) -> None:
    shape = architecture_from_hf(inputs.tokenizer)
    hf = AutoModelForCausalLM.from_pretrained(inputs.tokenizer)
    assert inputs.base is not None
    with open_nemo_model(inputs.base) as model:
        held = sum(parameter.numel() for parameter in model.parameters())
    settings = short_settings(inputs.tokenizer, tmp_path)
    assert held == hf.num_parameters() == count_parameters(shape)
    assert static_bytes(workload_of(settings, shape)).weights == 4 * held
    config = read_hf_config(inputs.tokenizer)
    made = family_of(config, name="tiny").nemo_config(shape)
    assert (made.kv_channels, made.share_embeddings_and_output_weights) == (shape.head_dim, shape.tie_embeddings)


def cache_of(inputs: TrainingInputs) -> str:
    return f"cache_dir={inputs.tokenizer.parent / CACHE}"


def test_an_adapter_is_trained_exported_and_served(inputs: TrainingInputs, tmp_path: Path) -> None:
    run = Run.open(train_here(inputs, tmp_path / "run", *SETTINGS, cache_of(inputs)))
    assert all(loss > 0 for loss in losses(run.path))
    checks = export_run(run, dtype="float32").checks

    shape = architecture_from_hf(inputs.tokenizer)
    assert set(checks) == {"hf_peft", "nemo", "merged"} - set(refused_formats(run.settings.peft, shape))
    assert all(checks[name]["logits"]["relative_rms"] < 1e-4 for name in ("hf_peft", "merged"))
    answers: dict[str, list[tuple[Mode, str]]] = {}
    template = strip_generation(inputs.formatter.template)
    for name, model, adapter in (
        ("hf_peft", inputs.tokenizer, run.export_dir / "hf_peft"),
        ("merged", run.export_dir / "merged", None),
    ):
        engine = HFEngine(model, adapter, chat_template=template, device="cpu", context=256)
        modes: tuple[Mode, Mode] = ("on", "off")
        asked = [GenerationRequest(messages=QUESTION, mode=mode, max_new_tokens=12) for mode in modes]
        answers[name] = [(mode, answer.text) for mode, answer in zip(modes, engine.generate(asked), strict=True)]
    assert answers["hf_peft"] == answers["merged"]


def test_a_base_in_four_bits_and_all_weights_are_trained_too(inputs: TrainingInputs, tmp_path: Path) -> None:
    qlora = Run.open(train_here(inputs, tmp_path / "qlora", *SETTINGS, "peft=qlora", cache_of(inputs)))
    assert export_run(qlora, formats=["hf_peft"]).checks["hf_peft"]["logits"]["relative_rms"] < 1e-4
    full = Run.open(train_here(inputs, tmp_path / "full", "peft=none", *SETTINGS[len(ADAPTER) :]))
    assert export_run(full, formats=["merged"], dtype="float32").checks["merged"]["logits"]["relative_rms"] < 1e-4
