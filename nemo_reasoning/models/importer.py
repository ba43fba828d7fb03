"""Import a Hugging Face model into NeMo's distributed checkpoint format, once per source and dtype."""

import argparse
import os
import signal
import subprocess
import sys
from pathlib import Path

from nemo_reasoning.artifacts import cached_folder
from nemo_reasoning.errors import ModelSourceError
from nemo_reasoning.models.families import family_of
from nemo_reasoning.models.hf_config import in_dtype, read_hf_config
from nemo_reasoning.models.hub import BaseModel

FORMAT = 2  # of an imported model; 1 lacked the extra state that Transformer Engine's final norm asks for
PROCESS_GROUP_VARIABLES = {
    *("MASTER_ADDR", "MASTER_PORT", "RANK", "LOCAL_RANK", "GROUP_RANK", "NODE_RANK"),
    *("WORLD_SIZE", "LOCAL_WORLD_SIZE", "GROUP_WORLD_SIZE", "TORCHELASTIC_RUN_ID"),
}


def import_base(base: BaseModel, *, dtype: str, cache_dir: Path) -> Path:
    """Return the NeMo checkpoint of a base model, importing it in a process of its own if necessary.

    The separate process gives its memory back, and leaves no initialised process group behind.

    Args:
        base: The local Hugging Face directory.
        dtype: "float32" or "bfloat16", of the stored weights.
        cache_dir: Where imported models are kept.

    Raises:
        ModelSourceError: The import failed; the message holds the end of its output.
    """
    stem = Path(base.name).name.removesuffix(".gguf").lower()
    name = f"{stem}-{base.revision[:16]}-{dtype}-v{FORMAT}"
    return cached_folder(cache_dir / "nemo" / name, lambda out: _import_apart(base.path, out, dtype))


def _import_apart(hf_path: Path, out: Path, dtype: str) -> None:
    command = [sys.executable, "-m", "nemo_reasoning.models.importer", str(hf_path), str(out), dtype]
    alone = {key: value for key, value in os.environ.items() if key not in PROCESS_GROUP_VARIABLES}
    alone["CUDA_VISIBLE_DEVICES"] = ""  # the import takes main memory only
    done = subprocess.run(command, env=alone, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
    if done.returncode:
        tail = "\n".join(done.stdout.splitlines()[-20:])
        killed = done.returncode == -signal.SIGKILL
        reason = "was killed, most likely for lack of memory" if killed else f"failed with exit code {done.returncode}"
        raise ModelSourceError(f"importing {hf_path} into NeMo {reason}:\n{tail}")


def convert(hf_path: Path, out: Path, dtype: str) -> None:
    """Write the NeMo checkpoint of a Hugging Face directory; call inside `backend`.

    NeMo's own `import_ckpt` takes the dtype from the source; here it is chosen, so that one source
    can serve a float32 parity test and a bfloat16 run.

    Args:
        hf_path: Directory with a model of a known family and its tokenizer.
        out: Folder to write.
        dtype: "float32" or "bfloat16".
    """
    import torch
    from nemo.lightning import teardown
    from transformers import AutoModelForCausalLM

    from nemo_reasoning.backend.runtime import without_leftovers

    family = family_of(read_hf_config(hf_path), name=str(hf_path))
    importer = family.importer(hf_path)
    config = importer.config
    config.params_dtype = getattr(torch, dtype)
    config.bf16, config.fp16 = dtype == "bfloat16", False
    target = family.nemo_model(config, tokenizer=importer.tokenizer)
    source = AutoModelForCausalLM.from_pretrained(hf_path, **in_dtype(config.params_dtype))
    with without_leftovers():
        trainer = importer.nemo_setup(target)
        importer.convert_state(source, target)
        importer.nemo_save(out, trainer)
        teardown(trainer, target)


def main() -> None:
    """Convert in this process: `python -m nemo_reasoning.models.importer HF_DIR OUT DTYPE`."""
    from nemo_reasoning.backend.runtime import backend

    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("hf_path", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("dtype", choices=["float32", "bfloat16"])
    arguments = parser.parse_args()
    with backend(cuda=False):
        convert(arguments.hf_path, arguments.out, arguments.dtype)


if __name__ == "__main__":
    main()
