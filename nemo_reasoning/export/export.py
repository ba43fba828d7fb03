"""Export what was trained in several formats, and verify each before it appears under its name."""

import importlib.util
import re
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from nemo_reasoning.artifacts import MANIFEST, file_sha256, write_manifest, write_text
from nemo_reasoning.config.model import PeftSettings
from nemo_reasoning.data.chat import ChatFormatter
from nemo_reasoning.errors import ExportError
from nemo_reasoning.export import verify
from nemo_reasoning.export.formats import check_formats
from nemo_reasoning.export.formats.hf_peft import base_reference, write_hf_peft
from nemo_reasoning.export.formats.merged import DTYPES, write_merged
from nemo_reasoning.export.formats.nemo import write_nemo_archive
from nemo_reasoning.export.quantised_base import Qlora
from nemo_reasoning.export.serve_commands import model_card, serve_commands
from nemo_reasoning.export.tokenizer import TEMPLATE_FILE, strip_generation, write_tokenizer
from nemo_reasoning.export.weights import Adapter, FullWeights, read_trained
from nemo_reasoning.models.hub import BaseModel
from nemo_reasoning.models.sizes import architecture_from_hf
from nemo_reasoning.peft.nf4 import Nf4Base
from nemo_reasoning.training.checkpoints import Checkpoint, content_id

NOT_VERIFIED = "not verified"


@dataclass(frozen=True)
class ExportResult:
    """What `export` wrote.

    Attributes:
        folders: Folder of each format.
        commands: For each format, the command of each server that can serve it.
        checks: For each format, what each check found, or "not verified: ..." and the reason.
    """

    folders: dict[str, Path]
    commands: dict[str, dict[str, str]]
    checks: dict[str, dict[str, Any]]

    @property
    def not_verified(self) -> list[str]:
        """Checks that did not run, each as "format: check: reason"."""
        return [
            f"{name}: {check}: {found.removeprefix(NOT_VERIFIED + ': ')}"
            for name, checks in self.checks.items()
            for check, found in checks.items()
            if isinstance(found, str)
        ]


@dataclass(frozen=True)
class _Job:
    """What all formats share."""

    trained: Adapter | FullWeights
    base: BaseModel
    formatter: ChatFormatter
    name: str
    base_dtype: str
    dtype: str
    tokenizer_python: Path | None
    batches: list[torch.Tensor]
    reference: list[torch.Tensor] | None
    qlora: Qlora | None

    def nf4(self, format_name: str) -> Nf4Base | None:
        """Return how the base under an export is quantised; None for the original weights."""
        return None if self.qlora is None else self.qlora.under(format_name)

    def commands(self, format_name: str, folder: Path) -> dict[str, str]:
        return serve_commands(
            format_name,
            folder=folder,
            name=self.name,
            base=base_reference(self.base),
            peft=self.trained.peft,
        )

    @property
    def adapter(self) -> Adapter:
        assert isinstance(self.trained, Adapter)  # else `check_formats` has refused the format
        return self.trained


def export(
    *,
    checkpoint: Checkpoint,
    base: BaseModel,
    template: str,
    peft: PeftSettings,
    formats: Sequence[str],
    out: Path,
    name: str,
    base_dtype: str,
    dtype: str,
    reference_logits: verify.ReferenceLogits | None = None,
    tokenizer_python: Path | None = None,
    require_verified: bool = False,
    qlora: Qlora | None = None,
) -> ExportResult:
    """Write a NeMo checkpoint to `out/<format>` for each format, with `out/manifest.json`.

    A format is written beside its place, verified there, and only then put in its place.

    Args:
        checkpoint: Of the adapter, or of the model where all of it was trained.
        base: The model it was trained on.
        template: Chat template of the training, with generation tags.
        peft: Configuration of the training.
        formats: From "hf_peft", "nemo" and "merged"; those that `formats_of` the scheme.
        out: Where the formats' folders go.
        name: Under which servers offer the model.
        base_dtype: In which NeMo holds the base: "float32", "bfloat16" or "float16".
        dtype: Of the merged weights, one of the same.
        reference_logits: The trained model, usually `verify.nemo_reference_logits(checkpoint)`;
            None to leave the logits unverified.
        tokenizer_python: Interpreter of an environment with transformers 5; None to leave the
            tokenizer unverified there.
        require_verified: Whether a check that cannot run is an error.
        qlora: Of a QLoRA run; `reference_logits` must then be those of its quantised base.

    Raises:
        ExportError: The checkpoint cannot be written in a format, or a required check cannot run.
        VerificationError: An export is not what was trained; it is left in `out/.<format>.partial`.
    """
    check_formats(formats, peft.scheme)
    _check_request(name, base_dtype=base_dtype, dtype=dtype)
    if require_verified:
        _require_checks(formats, reference_logits, tokenizer_python)
    formatter = ChatFormatter.load(base.path, template=template)
    trained = read_trained(checkpoint.path, shape=architecture_from_hf(base.path), peft=peft)
    batches = verify.probe_ids(formatter)
    reference = reference_logits(batches) if reference_logits else None
    job = _Job(trained, base, formatter, name, base_dtype, dtype, tokenizer_python, batches, reference, qlora)
    out.mkdir(parents=True, exist_ok=True)
    (out / MANIFEST).unlink(missing_ok=True)
    write_text(out / TEMPLATE_FILE, strip_generation(template))
    result = ExportResult({}, {}, {})
    for format_name in formats:
        folder = out / format_name
        result.checks[format_name] = _export_one(format_name, folder, job)
        result.folders[format_name] = folder
        result.commands[format_name] = job.commands(format_name, folder)
    _write_manifest(job, checkpoint, result, out)
    return result


def _check_request(name: str, **dtypes: str) -> None:
    for key, value in dtypes.items():
        if value not in DTYPES:
            raise ExportError(f"{key}={value}: choose one of {', '.join(DTYPES)}")
    if not re.fullmatch(r"\w[\w.-]*", name):
        raise ExportError(f"name={name!r}: servers take letters, digits, '.', '-' and '_' only")


def _require_checks(
    formats: Sequence[str], reference_logits: verify.ReferenceLogits | None, tokenizer_python: Path | None
) -> None:
    has_tokenizer = set(formats) - {"nemo"}
    if has_tokenizer and reference_logits is None:
        raise ExportError("verification is required, but there is no trained model to compare logits with")
    if has_tokenizer and (reason := _no_interpreter(tokenizer_python)):
        raise ExportError(
            f"verification is required, but {reason}; make one with `python -m venv DIR && "
            "DIR/bin/pip install 'transformers>=5' jinja2` and set tokenizer_python=DIR/bin/python, "
            "or verify=false"
        )
    if "nemo" in formats and (reason := _no_reader()):
        raise ExportError(f"verification of the .nemo archive is required, but {reason}; install it, or verify=false")


def _no_interpreter(python: Path | None) -> str:
    if python is None:
        return "no environment with transformers 5 is given"
    return "" if python.is_file() else f"{python} does not exist"


def _no_reader() -> str:
    return "" if importlib.util.find_spec("nemo") else "nemo_toolkit is not installed"


def _export_one(format_name: str, folder: Path, job: _Job) -> dict[str, Any]:
    partial = folder.parent / f".{format_name}.partial"
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir()
    if format_name == "nemo":
        checks = _archive(partial / f"{job.name}.nemo", job)
    else:
        checks = _hf_folder(format_name, partial, job)
        card = model_card(
            format_name,
            base=base_reference(job.base),
            peft=job.trained.peft,
            commands=job.commands(format_name, folder),
            merge_onto=job.qlora.merge_onto if job.qlora else None,
        )
        write_text(partial / "README.md", card)
    for path in partial.iterdir():
        path.chmod(0o644)  # safetensors leaves 0600, which the user inside a NIM container cannot read
    shutil.rmtree(folder, ignore_errors=True)
    partial.rename(folder)
    return checks


def _archive(path: Path, job: _Job) -> dict[str, Any]:
    write_nemo_archive(job.adapter, out=path)
    if reason := _no_reader():
        return {"weights": f"{NOT_VERIFIED}: {reason}"}
    return {"weights": verify.verify_archive(path, adapter=job.adapter)}


def _hf_folder(format_name: str, folder: Path, job: _Job) -> dict[str, Any]:
    write_tokenizer(job.formatter, out=folder)
    if format_name == "merged":
        end = job.formatter.end_of_turn
        write_merged(
            job.trained,
            base=job.base.path,
            base_dtype=job.base_dtype,
            nf4=job.nf4(format_name),
            dtype=job.dtype,
            end_of_turn=end,
            out=folder,
        )
    else:
        write_hf_peft(job.adapter, base=job.base, out=folder)
    return {**_verify_weights(format_name, folder, job), "tokenizer": _verify_tokenizer(folder, job)}


def _verify_weights(format_name: str, folder: Path, job: _Job) -> dict[str, Any]:
    if job.reference is None:
        return {"logits": f"{NOT_VERIFIED}: no trained model was given to compare with"}
    compared: dict[str, Any] = {"batches": job.batches, "reference": job.reference}
    base: dict[str, Any] = {"base": job.base.path, "base_dtype": job.base_dtype, "nf4": job.nf4(format_name)}
    if format_name == "hf_peft":
        model = verify.load_hf_peft(folder, **base)
        return {"logits": verify.verify_logits(model, **compared, dtype="float32")}
    moved: dict[str, float] = {}
    if job.qlora is not None and job.nf4(format_name) is None:
        if job.qlora.original_logits is None:
            return {"logits": f"{NOT_VERIFIED}: no model with the original base was given to compare with"}
        compared["reference"] = job.qlora.original_logits(job.batches)
        off = verify.logits_difference(compared["reference"], job.reference)
        moved = {"relative_rms_from_training": off["relative_rms"]}
    checks = {"logits": verify.verify_logits(verify.load_merged(folder), **compared, dtype=job.dtype) | moved}
    if job.dtype != "float32":
        checks["rounding"] = verify.verify_rounding(folder, trained=job.trained, **base, **compared, dtype=job.dtype)
    return checks


def _verify_tokenizer(folder: Path, job: _Job) -> Any:
    reason = _no_interpreter(job.tokenizer_python)
    if reason or job.tokenizer_python is None:
        return f"{NOT_VERIFIED}: {reason}"
    return verify.verify_tokenizer(folder, formatter=job.formatter, python=job.tokenizer_python)


def _write_manifest(job: _Job, checkpoint: Checkpoint, result: ExportResult, out: Path) -> None:
    weights = sorted((checkpoint.path / "weights").glob("*.distcp"))
    peft = job.trained.peft
    write_manifest(
        out,
        stage="export",
        inputs={
            "checkpoint": checkpoint.path.name,
            "content": content_id(checkpoint),
            "step": checkpoint.step,
            "validation_loss": checkpoint.loss,
            "weights": {path.name: file_sha256(path) for path in weights},
            "base": base_reference(job.base),
            "base_revision": job.base.revision,
        },
        settings={
            "formats": list(result.folders),
            "base_dtype": job.base_dtype,
            "dtype": job.dtype,
            "scheme": peft.scheme.value,
            "dim": peft.dim,
            "alpha": peft.alpha,
            "rslora": peft.rslora,
            "target_modules": list(peft.target_modules),
            **(job.qlora.recorded() if job.qlora else {}),
        },
        counts={"checks": result.checks},
        produced=[
            out / TEMPLATE_FILE,
            *sorted(path for folder in result.folders.values() for path in folder.iterdir()),
        ],
    )
