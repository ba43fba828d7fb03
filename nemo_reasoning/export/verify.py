"""Proof that an export computes what the trained model computes; each check raises VerificationError."""

import json
import os
import subprocess
import tempfile
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import torch

from nemo_reasoning.data.chat import ChatFormatter
from nemo_reasoning.errors import VerificationError
from nemo_reasoning.export import tokenizer_probe
from nemo_reasoning.export.combining import Combination
from nemo_reasoning.export.quantised_base import hold_as_trained
from nemo_reasoning.export.weights import Adapter, FullWeights
from nemo_reasoning.models.hf_config import in_dtype
from nemo_reasoning.models.sizes import architecture_from_hf
from nemo_reasoning.models.weight_files import DTYPES, read_file
from nemo_reasoning.models.widening import compute_in_float32
from nemo_reasoning.peft.nf4 import Nf4Base
from nemo_reasoning.reasoning.messages import Message
from nemo_reasoning.reasoning.switch import THINK_SYSTEM

ReferenceLogits = Callable[[Sequence[torch.Tensor]], list[torch.Tensor]]

# Largest root mean square difference of logits, as a share of their standard deviation. Float32
# leaves rounding of sums; the others round every merged weight to 8 or 11 bits.
TOLERANCES = {"float32": 1e-4, "float16": 5e-3, "bfloat16": 3e-2}

DIALOGUES = (
    (
        Message("system", THINK_SYSTEM["on"]),
        Message("user", "What is 47 * 6?"),
        Message("assistant", "<think>\n40 * 6 = 240\n7 * 6 = 42\n240 + 42 = 282\n</think>\n\nThe answer is 282."),
    ),
    (
        Message("system", THINK_SYSTEM["off"]),
        Message("user", "Translate 'naïve café' into 日本語, please 🙂"),
        Message("assistant", "素朴なカフェ"),
        Message("user", "def f(x):\n\treturn  x ** 2  # why?"),
        Message("assistant", "It squares x."),
    ),
)
TEXTS = (
    "<think>\n1 + 1 = 2\n</think>\n\n\\boxed{2}",
    "  two  spaces,\ttab\n\n\nlines ",
    "Ünïcödé — 日本語 🙂 123456",
)


def probe_ids(formatter: ChatFormatter) -> list[torch.Tensor]:
    """Return the token ids, [1, n] each, of the dialogues on which logits are compared."""
    return [torch.from_numpy(formatter.encode(turns).ids).long()[None] for turns in DIALOGUES]


def nemo_reference_logits(
    checkpoint: Path,
    *,
    dtype: str,
    base: Path | None = None,
    nf4: Nf4Base | None = None,
    combined: Combination | None = None,
) -> ReferenceLogits:
    """Return a function that holds the NeMo model of a checkpoint only while it computes logits, in float32.

    An adapter's base is the NeMo checkpoint `base`; None for the place where it was when the adapter was saved.
    Its weights are rounded to `dtype`, as the training's were. With `nf4` those of the linears are what a QLoRA run
    computed with: built, loaded and quantized as training did it, without what the export uses.

    With `combined` its weights are made those of the combination, by parameters and dense products.

    It computes on the CPU even where there is a GPU: Transformer Engine multiplies float32 as TF32,
    whose ten bits would hide what the comparison looks for.
    """

    def logits(batches: Sequence[torch.Tensor]) -> list[torch.Tensor]:
        from nemo_reasoning.backend.runtime import backend
        from nemo_reasoning.models.loading import load_nemo_model
        from nemo_reasoning.peft.qlora import nf4_linears

        quantized: AbstractContextManager[None] = nullcontext()
        held, prepare = DTYPES[dtype], None if combined is None else combined.prepare
        if nf4 is not None:
            quantized, held = nf4_linears(targets=nf4.targets), DTYPES[nf4.dtype]
        loaded = load_nemo_model(checkpoint, base=base, dtype=held, prepare=prepare)
        with backend(cuda=False), quantized, loaded as model:
            return [model(ids).cpu() for ids in batches]

    return logits


def logits_difference(found: Sequence[torch.Tensor], expected: Sequence[torch.Tensor]) -> dict[str, float]:
    """Return "max_abs" and "relative_rms", a share of the standard deviation of `expected`."""
    difference = torch.cat([a[0] - b[0] for a, b in zip(found, expected, strict=True)])
    spread = torch.cat([logits[0] for logits in expected]).std()
    return {
        "max_abs": float(difference.abs().max()),
        "relative_rms": float(difference.square().mean().sqrt() / spread),
    }


def verify_logits(
    model: Any, *, batches: Sequence[torch.Tensor], reference: Sequence[torch.Tensor], dtype: str
) -> dict[str, float]:
    """Compare a Hugging Face model with the trained one.

    Args:
        model: The exported model, computing in float32.
        batches: Token ids [1, n].
        reference: The trained model's logits [1, n, vocabulary or more], float32.
        dtype: In which the weights were saved; sets the tolerance.

    Returns:
        "max_abs" difference of logits, "relative_rms" difference and its "tolerance".
    """
    with torch.no_grad():
        logits = [model(ids).logits for ids in batches]
    expected = [known[..., : logits[0].shape[-1]] for known in reference]
    found = {**logits_difference(logits, expected), "tolerance": TOLERANCES[dtype]}
    if not found["relative_rms"] <= TOLERANCES[dtype]:  # also when it is no number
        raise VerificationError(f"the export's logits differ from the trained model's: {found}; do not use it")
    return found


def load_base(base: Path, *, dtype: str, nf4: Nf4Base | None = None) -> Any:
    """Load a base model with weights rounded to the `dtype` in which NeMo holds them, then to `nf4`, and held so."""
    model = _load(base, DTYPES[dtype])
    if nf4 is not None:
        model.to(torch.promote_types(DTYPES[dtype], DTYPES[nf4.dtype]))
        hold_as_trained(model, base=nf4, shape=architecture_from_hf(base))
    return model


def load_hf_peft(folder: Path, *, base: Path, base_dtype: str, nf4: Nf4Base | None = None) -> Any:
    """Load a base model, as `load_base` does, with an exported adapter through peft; it computes in float32."""
    from peft import PeftModel

    held = load_base(base, dtype=base_dtype, nf4=nf4)
    model: Any = PeftModel.from_pretrained(held, str(folder), torch_device="cpu")
    compute_in_float32(model)
    return model.eval()


def load_merged(folder: Path) -> Any:
    """Load a Hugging Face directory in the dtype it is saved in; it computes in float32."""
    model = _load(folder, "auto")
    compute_in_float32(model)
    return model


def _load(folder: Path, dtype: torch.dtype | str) -> Any:
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(folder, **in_dtype(dtype), trust_remote_code=False).eval()


def exact_merge(
    *,
    trained: Adapter | FullWeights,
    base: Path,
    base_dtype: str,
    nf4: Nf4Base | None,
    batches: Sequence[torch.Tensor],
    reference: Sequence[torch.Tensor],
) -> tuple[Callable[[str], torch.Tensor], dict[str, float]]:
    """Return each merged weight in float32 by its name, computed when asked for, and what `verify_logits` found."""
    model = load_base(base, dtype=base_dtype, nf4=nf4)
    merged = compute_in_float32(model, trained.changes())
    return merged, verify_logits(model, batches=batches, reference=reference, dtype="float32")


def verify_rounding(
    folder: Path,
    *,
    trained: Adapter | FullWeights,
    base: Path,
    base_dtype: str,
    nf4: Nf4Base | None = None,
    batches: Sequence[torch.Tensor],
    reference: Sequence[torch.Tensor],
    dtype: str,
) -> dict[str, float]:
    """Check merged weights of low precision, where rounding could hide a lost module from the logits.

    The merge in float32 must give the trained model's logits, and every saved weight must be the
    merge's to within half a unit in its last place, and a little for the order of float32 sums.

    Returns:
        What `verify_logits` found for the merge in float32, and the number of "tensors" compared.
    """
    merged, found = exact_merge(
        trained=trained, base=base, base_dtype=base_dtype, nf4=nf4, batches=batches, reference=reference
    )
    limits, count = torch.finfo(DTYPES[dtype]), 0
    rtol, atol = 0.51 * limits.eps, 0.51 * limits.smallest_normal * limits.eps
    for shard in sorted(folder.glob("*.safetensors")):
        for name, saved in read_file(shard):
            if not torch.allclose(saved.float(), merged(name), rtol=rtol, atol=atol):
                raise VerificationError(f"{shard}: {name} is not the merged weight rounded to {dtype}")
            count += 1
    return {**found, "tensors": count}


def verify_archive(archive: Path, *, adapter: Adapter) -> dict[str, int]:
    """Read a `.nemo` archive with NeMo's own converter and compare every weight exactly.

    Returns:
        The number of "tensors" compared.
    """
    from nemo.export.utils.lora_converter import convert_lora_nemo_to_canonical

    with tempfile.TemporaryDirectory() as name:
        convert_lora_nemo_to_canonical(str(archive), name, hf_format=True)
        found = torch.load(Path(name) / "adapter_model.bin", weights_only=True)
        config = json.loads((Path(name) / "adapter_config.json").read_text(encoding="utf-8"))
    if config["lora_alpha"] != config["r"] or config["r"] != adapter.peft.dim:
        raise VerificationError(f"{archive}: r={config['r']} and alpha={config['lora_alpha']} must both be the rank")
    expected = {}
    for module, a, b in adapter.hf_pairs():
        expected[f"base_model.model.model.{module}.lora_A.weight"] = a.float()
        expected[f"base_model.model.model.{module}.lora_B.weight"] = b.float() * adapter.peft.scale
    if set(found) != set(expected):
        raise VerificationError(f"{archive}: the reader finds other modules, such as {set(found) ^ set(expected)}")
    wrong = sorted(key for key, weight in expected.items() if not torch.equal(found[key], weight))
    if wrong:
        raise VerificationError(f"{archive}: {len(wrong)} of {len(expected)} weights differ, the first is {wrong[0]}")
    return {"tensors": len(expected)}


def verify_tokenizer(folder: Path, *, formatter: ChatFormatter, python: Path) -> dict[str, Any]:
    """Compare an exported tokenizer, read by another interpreter's transformers 5, with the one trained with.

    Args:
        folder: Holds the exported tokenizer.
        formatter: What training encoded with.
        python: Interpreter of an environment with transformers 5 or newer.

    Returns:
        The version of "transformers" and the number of "texts" compared.
    """
    dialogues = [[message.to_dict() for message in turns] for turns in DIALOGUES]
    expected = tokenizer_probe.observe(
        formatter.tokenizer, template=formatter.template, dialogues=dialogues, texts=list(TEXTS)
    )
    expected["eos"] = formatter.end_of_turn
    answer = _ask(python, {"folder": str(folder), "dialogues": dialogues, "texts": list(TEXTS)})
    version = answer["transformers"]
    if int(version.split(".")[0]) < 5:
        raise VerificationError(f"{python} has transformers {version}; the check needs 5 or newer")
    for kind, value in expected.items():
        if answer["seen"][kind] != value:
            raise VerificationError(
                f"{folder}: transformers {version} disagrees about {kind}: "
                f"{answer['seen'][kind]!r} instead of {value!r}"
            )
    return {"transformers": version, "texts": 2 * len(DIALOGUES) + len(TEXTS)}


def _ask(python: Path, request: dict[str, Any]) -> dict[str, Any]:
    """Run the probe in another environment, out of reach of this one's packages (-I) and of the hub."""
    done = subprocess.run(
        [str(python), "-I", "-X", "utf8", tokenizer_probe.__file__],
        input=json.dumps(request),
        capture_output=True,
        encoding="utf-8",
        env={**os.environ, "HF_HUB_OFFLINE": "1"},
        check=False,
    )
    if done.returncode:
        raise VerificationError(f"{python} cannot read the exported tokenizer:\n{done.stderr.strip()[-2000:]}")
    answer: dict[str, Any] = json.loads(done.stdout)
    return answer
