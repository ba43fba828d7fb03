"""Export the best checkpoint of a run's folder, from what the folder itself says about the run."""

import os
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Any

from rich.text import Text

from nemo_reasoning.artifacts import MANIFEST, read_manifest
from nemo_reasoning.config.adapter import ADAPTER_CONFIG, START_FROM, adapter_config, is_run
from nemo_reasoning.config.model import PeftScheme
from nemo_reasoning.errors import CheckpointError, ConfigError, ExportError
from nemo_reasoning.export import verify
from nemo_reasoning.export.combining import combination
from nemo_reasoning.export.export import ExportResult, export
from nemo_reasoning.export.quantised_base import MERGE_BASES, Qlora
from nemo_reasoning.export.serve_commands import BASE_PLACEHOLDER
from nemo_reasoning.hardware import main_memory
from nemo_reasoning.models.hub import BaseModel, weights_fingerprint
from nemo_reasoning.models.importer import import_base
from nemo_reasoning.models.sizes import architecture_from_hf
from nemo_reasoning.peft.nf4 import nf4_base, read_digests
from nemo_reasoning.terminal import plain_console, quiet_output
from nemo_reasoning.training.checkpoints import Checkpoint, content_id
from nemo_reasoning.training.folder_lock import FolderLock
from nemo_reasoning.training.memory.estimate import GIB
from nemo_reasoning.training.memory.verification import verification_bytes
from nemo_reasoning.training.run_dir import Run

COMBINED = "combined"

_VERIFY_PYTHON = Path(".venv-verify/bin/python")  # of `make setup`


def tokenizer_interpreter(asked: str | None) -> Path | None:
    """Return the interpreter that reads exported tokenizers back; None for none.

    Args:
        asked: Its path, or "auto" for that of `make setup` where it is.
    """
    if asked == "auto":
        return _VERIFY_PYTHON if _VERIFY_PYTHON.is_file() else None
    return Path(asked) if asked else None


def export_run(
    run: Run,
    *,
    formats: Sequence[str] | None = None,
    out: Path | None = None,
    average: int = 1,
    adapters: Mapping[str, float] = MappingProxyType({}),
    dtype: str = "bfloat16",
    gguf: Sequence[str] = ("f16",),
    verified: bool = True,
    tokenizer_python: Path | None = None,
    merge_onto: str | None = None,
    tell: Callable[[str], object] = print,
) -> ExportResult:
    """Export the best checkpoint of a run; `export` says what is written and what is verified.

    Args:
        run: What recipes/sft_lora.py trained.
        formats: From "hf_peft", "nemo", "merged" and "gguf"; None for all but GGUF that hold what was trained.
        out: Where the formats' folders go; None for `export` in the run's folder, or `combined` for several weights.
        average: How many of the latest checkpoints to average; 1 exports the best one.
        adapters: Further adapters to add, with their weights; see `combination`.
        dtype: Of merged weights.
        gguf: Types of GGUF files: "f16", "q8_0" and "q4_k_m".
        verified: Whether to compare logits with the trained model, and to fail where a check cannot run.
        tokenizer_python: Interpreter of an environment with transformers 5.
        merge_onto: Under a merged QLoRA adapter, "dequantised" for the weights it was trained on, or
            "original"; None for those it was trained on.
        tell: Takes a warning, where memory is short.

    Raises:
        ExportError: The base was not quantized, and `merge_onto` says it was; or comparing logits takes more memory
            than there is.
        CheckpointError: Another process writes to that folder.
    """
    settings, (checkpoint, _) = run.settings, run.selected()
    nf4, held = nf4_base(settings), settings.held_dtype
    if nf4 is not None:
        nf4 = replace(nf4, digests=read_digests(run.path))
    if merge_onto not in (None, *MERGE_BASES) or (nf4 is None and merge_onto == "dequantised"):
        raise ExportError(
            f"merge_onto={merge_onto}: choose {' or '.join(MERGE_BASES)} for a run with peft=qlora, original "
            f"otherwise; {run.path} was trained with peft={settings.peft.scheme.value}"
        )
    shape, imported = architecture_from_hf(run.base.path), None

    def folder_of(name: str) -> Path:
        folder = adapter_folder(name, run.base, setting="adapters")[0]
        if other := other_base(name, run.base, setting="adapters"):
            tell(f"warning: {other}")
        return folder

    combined = combination(run, last=average, adapters=adapters, folder_of=folder_of, shape=shape)
    if verified:
        _require_memory(run, verification_bytes(settings, shape, combined=average > 1 or bool(adapters)), tell)
    if verified and settings.peft.scheme is not PeftScheme.none:
        cache_dir = Path(settings.cache_dir).expanduser()
        imported = import_base(run.base, dtype=settings.model.dtype, cache_dir=cache_dir)
    if combined is not None:
        checkpoint, out = combined.averaged[-1], out or run.path / COMBINED
    own = settings.parameter_dtype
    reference = partial(verify.nemo_reference_logits, checkpoint.path, base=imported, dtype=own, combined=combined)
    folder = run.export_dir if out is None else out
    with run.locked() if out is None else nullcontext(), FolderLock(folder).held():
        return export(
            checkpoint=checkpoint,
            base=run.base,
            template=run.template,
            peft=settings.peft,
            formats=formats,
            out=folder,
            name=settings.name,
            base_dtype=held,
            dtype=dtype,
            gguf=gguf,
            reference_logits=reference(nf4=nf4) if verified else None,
            tokenizer_python=tokenizer_python,
            require_verified=verified and tokenizer_python is not None,
            qlora=None if nf4 is None else Qlora(nf4, merge_onto or "dequantised", reference() if verified else None),
            combined=combined,
            chain=run.identity.start or (),
        )


def _require_memory(run: Run, wanted: int, tell: Callable[[str], object]) -> None:
    """Refuse to compare logits where that cannot fit, and warn where it does not fit now."""
    memory = main_memory()
    found = f"comparing logits takes about {wanted / GIB:.1f} GiB of main memory"
    if wanted > memory.total:
        raise ExportError(
            f"{found}, and this machine offers {memory.total / GIB:.1f}; export on a larger one, or without the "
            f"comparison: python recipes/export.py checkpoint={run.path} verify=false"
        )
    if wanted > memory.free:
        tell(f"warning: {found}, and {memory.free / GIB:.1f} are free; the system may end this for want of memory")


def export_and_show(run: Run, **options: Any) -> None:
    """Export a run with `export_run`, quietly; print what each check found and the commands that serve the result."""
    with quiet_output((options.get("out") or run.path) / "log.txt") as terminal:  # the run may be read-only
        console = plain_console(file=terminal, soft_wrap=True)
        console.print(f"exporting {run.selected()[1]}")
        result = export_run(run, tell=console.print, **options)
        for name, folder in result.folders.items():
            console.print(Text.assemble("\n", (name, "bold"), f"  {folder}"))
            for check, found in result.checks[name].items():
                console.print(f"  {check}: {_in_words(found)}")
            for server, command in result.commands[name].items():
                console.print(f"  {server}: {command}")
        for name, reason in result.refused.items():
            console.print(Text.assemble("\n", (name, "bold"), f" was not written: {reason}"))


def _in_words(found: Any) -> str:
    if isinstance(found, str):
        return found
    values = (f"{key} {value:.2g}" if isinstance(value, float) else f"{key} {value}" for key, value in found.items())
    return "verified: " + ", ".join(values)


def ensure_exported(run: Run, *, tokenizer_python: Path | None = None) -> tuple[Path, Path | None]:
    """Return (base model, adapter) of a run as Hugging Face directories, exporting the adapter if necessary.

    Where every weight was trained it is (trained model, None), in the precision of the training.
    """
    settings, folder = run.settings, run.export_dir
    base, whole = run.base, settings.peft.scheme is PeftScheme.none
    name = "merged" if whole else "hf_peft"
    if not _holds(folder, name, run.selected()[0]):
        export_run(run, formats=[name], dtype=settings.parameter_dtype, tokenizer_python=tokenizer_python)
    return (folder / name, None) if whole else (base.path, folder / name)


def holds_export(run: Run, format_name: str) -> bool:
    """Whether a run's export folder holds its best checkpoint in a format."""
    return _holds(run.export_dir, format_name, run.selected()[0])


def _holds(folder: Path, format_name: str, checkpoint: Checkpoint) -> bool:
    """Whether a folder holds what this very checkpoint trained, in a format."""
    if not (folder / MANIFEST).is_file() or not (folder / format_name).is_dir():
        return False
    manifest = read_manifest(folder)
    return format_name in manifest["settings"]["formats"] and manifest["inputs"].get("content") == content_id(
        checkpoint
    )


def adapter_folder(source: str, base: BaseModel, *, setting: str = START_FROM) -> tuple[Path, list[dict[str, str]]]:
    """Return the PEFT directory of an adapter, and the adapters that it began from.

    Args:
        source: A run, which is exported on first use, a PEFT directory, or a hub id.
        base: The base it has to be of; of a PEFT directory only the shapes can tell, and are left to its reader.
        setting: The one that names it, for messages.

    Raises:
        CheckpointError: The run was trained on other base weights.
        ConfigError: It is no plain LoRA, cannot be downloaded, or has to be exported first.
    """
    adapter_config(source, setting)
    folder = Path(source).expanduser()
    if is_run(folder):
        first = Run.open(folder)
        if weights_fingerprint(first.base.path) != weights_fingerprint(base.path):
            chosen = f"set model=hf_local model.source={first.base.path}"
            raise CheckpointError(
                f"{setting}={source} was trained on {first.base.name}, other weights than {base.name}; "
                f"{chosen if setting == START_FROM else 'adapters of one base add up'}"
            )
        if int(os.environ.get("WORLD_SIZE", "1")) > 1 and not holds_export(first, "hf_peft"):
            raise ConfigError(
                f"{setting}={source} is not exported yet, which one process has to do; run first: "
                f"python recipes/export.py checkpoint={first.path} 'formats=[hf_peft]'"
            )
        exported = ensure_exported(first)[1]
        assert exported is not None  # other schemes are refused above
        return exported, first.identity.start or []
    if folder.is_dir():
        manifest: dict[str, Any] = {}
        if (folder.parent / MANIFEST).is_file():
            manifest = read_manifest(folder.parent)["inputs"]
        return folder, manifest.get("started_from", [])
    return Path(_downloaded(source, setting)), []


def other_base(source: str, base: BaseModel, *, setting: str = START_FROM) -> str:
    """Return a line about an adapter that calls its base otherwise; nothing of a run, whose weights were compared."""
    named = adapter_config(source, setting).base
    if named in (None, base.name, BASE_PLACEHOLDER) or is_run(Path(source).expanduser()):
        return ""
    return f"{setting}={source} calls its base {named}; here it is {base.name}"


def _downloaded(source: str, setting: str) -> str:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

    try:
        return snapshot_download(source, allow_patterns=[ADAPTER_CONFIG, "adapter_model.*"])
    except (HfHubHTTPError, LocalEntryNotFoundError, OSError) as error:
        reason = str(error.__cause__ or error).splitlines()[0]
        raise ConfigError(f"{setting}={source} could not be downloaded ({reason}); check the network") from error
