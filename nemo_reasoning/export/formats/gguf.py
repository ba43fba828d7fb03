"""Merged weights for llama.cpp and what runs on it: Ollama, LM Studio, llama-cpp-python."""

import importlib.util
from collections.abc import Sequence
from contextlib import suppress
from ctypes import byref
from pathlib import Path
from typing import Any

from nemo_reasoning.artifacts import write_text
from nemo_reasoning.config.export import GGUF_TYPES
from nemo_reasoning.config.model import PeftSettings
from nemo_reasoning.data.chat import ChatFormatter
from nemo_reasoning.errors import ExportError, MissingPackageError
from nemo_reasoning.export import verify
from nemo_reasoning.export.formats.base import NOT_VERIFIED, ExportFormat, ExportJob
from nemo_reasoning.export.formats.merged import Merged, merge_reference, merged_weights
from nemo_reasoning.export.ollama import MODELFILE, modelfile, text_around_turns
from nemo_reasoning.export.tokenizer import TEMPLATE_FILE, strip_generation
from nemo_reasoning.models.gguf_tokenizer import unnamed
from nemo_reasoning.models.weight_files import weight_shapes
from nemo_reasoning.packages import pip_command, require

_BY_LLAMA_CPP = "q4_k_m"  # which no Python package quantizes


class Gguf(ExportFormat):
    """One file of each type that was asked for, with weights, tokenizer and chat template."""

    name, has_tokenizer, by_default = "gguf", True, False

    def refusal(self, formatter: ChatFormatter, gguf: Sequence[str]) -> str | None:
        """Return which package is missing, or why llama.cpp would cut text otherwise than training did."""
        try:
            require("gguf", needed_by="formats=[gguf]")
            if _BY_LLAMA_CPP in gguf:
                require("llama_cpp", needed_by=f"gguf=[{_BY_LLAMA_CPP}]")
        except MissingPackageError as error:
            return str(error)
        return unnamed(formatter.tokenizer)

    def write(self, job: ExportJob, folder: Path) -> None:
        """Write the files, the template and a Modelfile."""
        from nemo_reasoning.export.gguf_writing import write_gguf

        shape, base = job.trained.shape, job.base.path
        files = {kind: _file(folder, job, kind) for kind in job.gguf if kind != _BY_LLAMA_CPP}
        whole = files.setdefault("f16", folder / ".f16.gguf") if _BY_LLAMA_CPP in job.gguf else None
        merged = merged_weights(job.trained, base=base, base_dtype=job.base_dtype, nf4=job.nf4(Merged.name))
        write_gguf(
            ((weight, tensor) for _, weight, tensor in merged if _is_weight(weight)),
            sizes=_sizes(job),
            files=files,
            shape=shape,
            formatter=job.formatter,
            name=job.name,
        )
        if whole is not None:
            _quantize(whole, _file(folder, job, _BY_LLAMA_CPP))
            if "f16" not in job.gguf:
                whole.unlink()
        write_text(folder / TEMPLATE_FILE, strip_generation(job.formatter.template))
        weights = min((_file(folder, job, kind).name for kind in job.gguf), key=_rank)
        with suppress(ExportError):  # `verify` says why there is none
            text = modelfile(job.formatter, weights=weights, max_seq_length=shape.max_seq_length)
            write_text(folder / MODELFILE, text)

    def verify(self, job: ExportJob, folder: Path) -> dict[str, Any]:
        """Compare the float32 merge's logits, every tensor, the tokenizer, and where it is installed llama.cpp."""
        from nemo_reasoning.export import gguf_reading

        shape, merge = job.trained.shape, merge_reference(job)
        files = {kind: _file(folder, job, kind) for kind in job.gguf}
        checks: dict[str, Any] = {MODELFILE: _compared_prompts(job)}
        for kind, file in files.items():
            checks[f"{kind} tokenizer"] = gguf_reading.read_tokenizer_back(file, formatter=job.formatter, shape=shape)
        if isinstance(merge, str):
            return {"logits": merge, **checks}
        known: dict[str, Any] = {"batches": job.batches, "reference": merge.logits}
        base: dict[str, Any] = {"base": job.base.path, "base_dtype": job.base_dtype, "nf4": merge.nf4}
        exact, found = verify.exact_merge(trained=job.trained, **base, **known)
        checks = {"logits": found | merge.moved, **checks}
        for kind, file in files.items():
            checks[f"{kind} weights"] = gguf_reading.read_weights_back(file, exact, names=_sizes(job), shape=shape)
        del exact
        for kind, file in files.items():
            if importlib.util.find_spec("llama_cpp") is None:
                checks["llama.cpp"] = f"{NOT_VERIFIED}: llama-cpp-python is not installed: {pip_command('llama_cpp')}"
            else:
                checks[f"{kind} in llama.cpp"] = gguf_reading.run_llama_cpp(
                    file, kind, formatter=job.formatter, **known
                )
        return checks

    def unverifiable(self, job_reference: bool, tokenizer_python: Path | None) -> str | None:
        """Ask for the trained model alone; the tokenizer is no longer transformers'."""
        return None if job_reference else "there is no trained model to compare logits with"

    def serve_commands(
        self, *, name: str, base: str, peft: PeftSettings, folder: str, template: str, files: Sequence[str]
    ) -> dict[str, str]:
        """Return commands for llama.cpp's server and Ollama."""
        smallest = min((file for file in files if file.endswith(".gguf")), key=_rank)
        commands = {"llama.cpp": f"llama-server --jinja -m {folder}/{smallest}"}
        if MODELFILE in files:
            commands["ollama"] = f"ollama create {name} -f {folder}/{MODELFILE} && ollama run {name}"
        return commands


def _compared_prompts(job: ExportJob) -> dict[str, int] | str:
    """Return how many prompts of the Modelfile are those of the training, or why there is no Modelfile."""
    try:
        return {"prompts": text_around_turns(job.formatter).compared}
    except ExportError as error:
        return f"not written: {error}"


def _rank(file: str) -> int:
    """Return the place of a file among the types, the smallest first."""
    return next(-place for place, kind in enumerate(GGUF_TYPES) if file.endswith(f"-{kind}.gguf"))


def _is_weight(name: str) -> bool:
    """Whether a tensor of a base is a weight, and not a buffer that old checkpoints carry along."""
    return not name.endswith(".rotary_emb.inv_freq")


def _sizes(job: ExportJob) -> dict[str, tuple[int, ...]]:
    """Return the size of each weight to write, by Hugging Face's name, in the order of the base's files."""
    tied = {"lm_head.weight"} if job.trained.shape.tie_embeddings else set()
    return {name: size for name, size in weight_shapes(job.base.path).items() if _is_weight(name) and name not in tied}


def _file(folder: Path, job: ExportJob, kind: str) -> Path:
    return folder / f"{job.name}-{kind}.gguf"


def _quantize(whole: Path, out: Path) -> None:
    """Write a file of float16 in llama.cpp's blocks of four to six bits.

    Raises:
        ExportError: llama.cpp refused.
    """
    import llama_cpp

    options = llama_cpp.llama_model_quantize_default_params()
    options.ftype = llama_cpp.LLAMA_FTYPE_MOSTLY_Q4_K_M
    if llama_cpp.llama_model_quantize(str(whole).encode(), str(out).encode(), byref(options)):
        raise ExportError(
            f"gguf=[{_BY_LLAMA_CPP}]: llama.cpp could not quantize the model; gguf=[q8_0] needs no llama.cpp"
        )
