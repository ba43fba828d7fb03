"""Export what was trained in several formats, and verify each before it appears under its name."""

import re
import shlex
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from nemo_reasoning.artifacts import MANIFEST, file_sha256, portable, write_manifest, write_text
from nemo_reasoning.config.export import GGUF_TYPES, refused_formats
from nemo_reasoning.config.model import Architecture, PeftSettings
from nemo_reasoning.data.chat import ChatFormatter
from nemo_reasoning.errors import ExportError, NemoReasoningError
from nemo_reasoning.export import verify
from nemo_reasoning.export.combining import Combination
from nemo_reasoning.export.formats import FORMATS
from nemo_reasoning.export.formats.base import ExportFormat, ExportJob
from nemo_reasoning.export.quantised_base import Qlora
from nemo_reasoning.export.serve_commands import BASE_PLACEHOLDER, base_reference, is_hub_id, model_card
from nemo_reasoning.export.tokenizer import TEMPLATE_FILE, strip_generation
from nemo_reasoning.export.weights import read_trained
from nemo_reasoning.models.hub import BaseModel
from nemo_reasoning.models.sizes import architecture_from_hf
from nemo_reasoning.models.weight_files import DTYPES
from nemo_reasoning.training.checkpoints import Checkpoint, content_id


@dataclass(frozen=True)
class ExportResult:
    """What `export` wrote.

    Attributes:
        folders: Folder of each format.
        commands: For each format, the command of each server that can serve it, on this machine.
        checks: For each format, what each check found, or "not verified: ..." and the reason.
        refused: Why a format was not written: it cannot hold what was trained, or is not what was trained.
    """

    folders: dict[str, Path] = field(default_factory=dict)
    commands: dict[str, dict[str, str]] = field(default_factory=dict)
    checks: dict[str, dict[str, Any]] = field(default_factory=dict)
    refused: dict[str, str] = field(default_factory=dict)


def export(
    *,
    checkpoint: Checkpoint,
    base: BaseModel,
    template: str,
    peft: PeftSettings,
    formats: Sequence[str] | None,
    out: Path,
    name: str,
    base_dtype: str,
    dtype: str,
    gguf: Sequence[str] = ("f16",),
    reference_logits: verify.ReferenceLogits | None = None,
    tokenizer_python: Path | None = None,
    require_verified: bool = False,
    qlora: Qlora | None = None,
    chain: Sequence[Mapping[str, str]] = (),
    combined: Combination | None = None,
) -> ExportResult:
    """Write a NeMo checkpoint to `out/<format>` for each format, with `out/manifest.json`.

    A format is written beside its place, verified there, and only then put in its place. One that fails costs
    the others nothing.

    Args:
        checkpoint: Of the adapter, or of the model where all of it was trained.
        base: The model it was trained on.
        template: Chat template of the training, with generation tags.
        peft: Configuration of the training.
        formats: From "hf_peft", "nemo", "merged" and "gguf"; None for all but GGUF that can hold what was trained.
        out: Where the formats' folders go.
        name: Under which servers offer the model.
        base_dtype: In which NeMo holds the base: "float32", "bfloat16" or "float16".
        dtype: Of the merged weights, one of the same.
        gguf: Types of GGUF files: "f16", "q8_0" and "q4_k_m".
        reference_logits: The trained model, usually `verify.nemo_reference_logits(checkpoint)`;
            None to leave the logits unverified.
        tokenizer_python: Interpreter of an environment with transformers 5; None to leave the
            tokenizer unverified there.
        require_verified: Whether a check that cannot run is an error.
        qlora: Of a QLoRA run; `reference_logits` must then be those of its quantized base.
        combined: What to export in the place of the checkpoint's own weights; `reference_logits` is then of it too.
        chain: The adapters that training began from, as `Identity.start` has them.

    Raises:
        ExportError: Nothing can be written, a required check cannot run, or formats that were asked for by name
            could not be written; the others are.
        VerificationError: The only export is not what was trained; it is left in `out/.<format>.partial`.
    """
    shape = architecture_from_hf(base.path)
    chosen, refused = _choose(formats, peft, shape)
    _check_request(name, gguf, base_dtype=base_dtype, dtype=dtype)
    if require_verified:
        _require_checks(chosen, reference_logits is not None, tokenizer_python)
    formatter = ChatFormatter.load(base.path, template=template)
    chosen = _writable(chosen, refused, formatter, gguf)
    read = partial(read_trained, checkpoint.path) if combined is None else combined.weights
    trained = read(shape=shape, peft=peft)
    batches = verify.probe_ids(formatter)
    reference = reference_logits(batches) if reference_logits else None
    job = ExportJob(
        trained, base, formatter, name, base_dtype, dtype, tokenizer_python, batches, reference, qlora, gguf
    )
    out.mkdir(parents=True, exist_ok=True)
    (out / MANIFEST).unlink(missing_ok=True)
    write_text(out / TEMPLATE_FILE, strip_generation(template))
    result = ExportResult(refused=refused)
    for kind in chosen:
        _export_one(kind, job, out, result, alone=len(chosen) == 1)
    _write_manifest(job, checkpoint, result, out, chain=chain, combined=combined)
    failed = [found for found in result.refused if formats is not None or found not in refused]
    if failed:
        reasons = "; ".join(f"{found}: {result.refused[found]}" for found in failed)
        raise ExportError(f"not written: {reasons}. Written: {', '.join(result.folders) or 'nothing'}")
    return result


def _choose(
    formats: Sequence[str] | None, peft: PeftSettings, shape: Architecture
) -> tuple[list[ExportFormat], dict[str, str]]:
    """Return the formats to write, and why the others that were asked for cannot be.

    Raises:
        ExportError: There is no such format, or none that can hold what was trained.
    """
    unknown = sorted(set(formats or ()) - set(FORMATS))
    if unknown or (formats is not None and not formats):
        raise ExportError(f"formats={unknown or '[]'}: choose from {', '.join(FORMATS)}")
    default = [name for name, kind in FORMATS.items() if kind.by_default]
    asked = {name: FORMATS[name] for name in (default if formats is None else formats)}
    impossible = refused_formats(peft, shape)
    refused = {name: impossible[name] for name in asked if name in impossible}
    chosen = [kind for name, kind in asked.items() if name not in refused]
    if not chosen:
        possible = ",".join(name for name, kind in FORMATS.items() if kind.by_default and name not in impossible)
        reasons = "; ".join(f"formats=[{name}]: {reason}" for name, reason in refused.items())
        raise ExportError(f"{reasons}; export formats=[{possible}]")
    return chosen, refused


def _writable(
    chosen: Sequence[ExportFormat], refused: dict[str, str], formatter: ChatFormatter, gguf: Sequence[str]
) -> list[ExportFormat]:
    """Return the formats that can be written here, and add the others to `refused`.

    Raises:
        ExportError: None of them can.
    """
    reasons = {kind.name: kind.refusal(formatter, gguf) for kind in chosen}
    refused.update({name: reason for name, reason in reasons.items() if reason})
    writable = [kind for kind in chosen if kind.name not in refused]
    if not writable:
        raise ExportError("; ".join(f"formats=[{name}]: {reason}" for name, reason in refused.items()))
    return writable


def _check_request(name: str, gguf: Sequence[str], **dtypes: str) -> None:
    if not gguf or set(gguf) - set(GGUF_TYPES):
        raise ExportError(f"gguf={list(gguf)}: choose from {', '.join(GGUF_TYPES)}")
    for key, value in dtypes.items():
        if value not in DTYPES:
            raise ExportError(f"{key}={value}: choose one of {', '.join(DTYPES)}")
    if not re.fullmatch(r"\w[\w.-]*", name):
        raise ExportError(f"name={name!r}: servers take letters, digits, '.', '-' and '_' only")


def _require_checks(formats: Sequence[ExportFormat], reference: bool, tokenizer_python: Path | None) -> None:
    for kind in formats:
        if reason := kind.unverifiable(reference, tokenizer_python):
            raise ExportError(f"verification of {kind.name} is required, but {reason}")


def _export_one(kind: ExportFormat, job: ExportJob, out: Path, result: ExportResult, *, alone: bool) -> None:
    """Write and verify a format, and add it to the result; failing, say so there unless it is the only one."""
    partial, folder = out / f".{kind.name}.partial", out / kind.name
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir()
    try:
        kind.write(job, partial)
        result.checks[kind.name] = kind.verify(job, partial)
    except NemoReasoningError as error:
        if alone:
            raise
        result.refused[kind.name] = str(error)
        return
    if kind.has_tokenizer:
        write_text(partial / "README.md", _card(kind, job, [path.name for path in partial.iterdir()]))
    for path in partial.iterdir():
        path.chmod(0o644)  # safetensors leaves 0600, which the user inside a NIM container cannot read
    shutil.rmtree(folder, ignore_errors=True)
    partial.rename(folder)
    result.folders[kind.name] = folder
    result.commands[kind.name] = kind.serve_commands(
        name=job.name,
        base=shlex.quote(job.base.name if is_hub_id(job.base.name) else str(job.base.path)),
        peft=job.trained.peft,
        folder=shlex.quote(str(folder.resolve())),
        template=shlex.quote(str((out / TEMPLATE_FILE).resolve())),
        files=[path.name for path in folder.iterdir()],
    )


def _card(kind: ExportFormat, job: ExportJob, files: Sequence[str]) -> str:
    commands = kind.serve_commands(
        name=job.name,
        base=job.base.name if is_hub_id(job.base.name) else BASE_PLACEHOLDER,
        peft=job.trained.peft,
        folder='"$PWD"',
        template=f'"$PWD"/{TEMPLATE_FILE}',
        files=files,
    )
    merge_onto = job.qlora.merge_onto if job.qlora else None
    return model_card(
        kind.name,
        base=job.base,
        peft=job.trained.peft,
        template=job.formatter.template,
        commands=commands,
        merge_onto=merge_onto,
    )


def _write_manifest(
    job: ExportJob,
    checkpoint: Checkpoint,
    result: ExportResult,
    out: Path,
    *,
    chain: Sequence[Mapping[str, str]],
    combined: Combination | None,
) -> None:
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
            **({"combined": portable(combined.recorded())} if combined else {}),
            **({"started_from": portable(list(chain))} if chain else {}),
        },
        settings={
            "formats": list(result.folders),
            "not_written": {name: _without_paths(reason, out, job) for name, reason in result.refused.items()},
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


def _without_paths(text: str, out: Path, job: ExportJob) -> str:
    """Return a text without places on this machine: a manifest travels with the export."""
    return text.replace(str(out), ".").replace(str(job.base.path), base_reference(job.base))
