"""Import a Hugging Face model into NeMo's distributed checkpoint format, once per source and dtype."""

import argparse
import copy
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from nemo_reasoning.artifacts import cached_folder, installed_version, no_room
from nemo_reasoning.errors import ModelSourceError, NemoReasoningError
from nemo_reasoning.models.families import family_of
from nemo_reasoning.models.hf_config import read_hf_config
from nemo_reasoning.models.hub import BaseModel

_REFUSED = "was refused"
FORMAT = 2  # of an imported model; 1 lacked the extra state that Transformer Engine's final norm asks for
PROCESS_GROUP_VARIABLES = {
    *("MASTER_ADDR", "MASTER_PORT", "RANK", "LOCAL_RANK", "GROUP_RANK", "NODE_RANK"),
    *("WORLD_SIZE", "LOCAL_WORLD_SIZE", "GROUP_WORLD_SIZE"),
    *("TORCHELASTIC_RUN_ID", "TORCHELASTIC_USE_AGENT_STORE"),  # with the latter torch waits at torchrun's port
}


def import_base(base: BaseModel, *, dtype: str, cache_dir: Path) -> Path:
    """Return the NeMo checkpoint of a base model, importing it in a process of its own if necessary.

    The separate process gives its memory back, and leaves no initialised process group behind.

    Args:
        base: The local Hugging Face directory.
        dtype: "float32" or "bfloat16", of the stored weights.
        cache_dir: Where imported models are kept.

    Raises:
        ModelSourceError: The import failed; the message holds the last line of its output, stderr all of it.
    """
    stem = Path(base.name).name.removesuffix(".gguf").lower()
    name = f"{stem}-{base.revision[:16]}-{dtype}-v{FORMAT}"
    return cached_folder(cache_dir / "nemo" / name, lambda out: _import_apart(base.path, out, dtype))


def _import_apart(hf_path: Path, out: Path, dtype: str) -> None:
    command = [sys.executable, "-m", "nemo_reasoning.models.importer", str(hf_path), str(out), dtype]
    alone = {key: value for key, value in os.environ.items() if not _joins_a_group(key)}
    alone["CUDA_VISIBLE_DEVICES"] = ""  # the import takes main memory only
    done = subprocess.run(command, env=alone, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
    if done.returncode:
        print(done.stdout, file=sys.stderr)  # for the command's log
        raise ModelSourceError(f"importing {hf_path} into NeMo {_reason(done, out)}")


def _joins_a_group(variable: str) -> bool:
    """Whether Lightning or torch takes a variable for a place among several processes."""
    return variable in PROCESS_GROUP_VARIABLES or variable.startswith("SLURM_")


def _reason(done: "subprocess.CompletedProcess[str]", out: Path) -> str:
    """Say why a process that imports failed."""
    last = next((line.strip() for line in reversed(done.stdout.splitlines()) if line.strip()), "it said nothing")
    if done.returncode == -signal.SIGKILL:
        return "was killed, most likely for lack of memory"
    if no_room(RuntimeError(done.stdout)):
        free = shutil.disk_usage(out).free / 1e6
        return f"found no room: {free:,.1f} MB are free in {out.parent}; make room, or choose another cache_dir"
    return last if last.startswith(_REFUSED) else f"failed with exit code {done.returncode}: {last}"


def convert(hf_path: Path, out: Path, dtype: str) -> None:
    """Write the NeMo checkpoint of a Hugging Face directory; call inside `backend`.

    NeMo's own `import_ckpt` takes the dtype from the source; here it is chosen, so that one source
    can serve a float32 parity test and a bfloat16 run. Nor is the model ever in memory as a whole.

    Args:
        hf_path: Directory with a model of a known family and its tokenizer.
        out: Folder to write.
        dtype: "float32" or "bfloat16".
    """
    import torch
    from nemo import lightning as nl
    from nemo.collections.common.tokenizers.huggingface.auto_tokenizer import AutoTokenizer
    from nemo.lightning.ckpt_utils import ckpt_to_context_subdir
    from nemo.lightning.io.pl import TrainerContext

    from nemo_reasoning.backend.runtime import without_leftovers
    from nemo_reasoning.models.checkpoint_writer import write_weights

    hf_config = read_hf_config(hf_path)
    family = family_of(hf_config, name=str(hf_path))
    shape, importer = family.architecture(hf_config), family.importer(hf_path)
    vars(importer).update(trust_remote_code=False)  # as NeMo's own `apply` sets it
    config = family.imported_config(importer, shape)
    config.params_dtype = getattr(torch, dtype)
    config.bf16, config.fp16 = dtype == "bfloat16", False
    strategy = nl.MegatronStrategy(ckpt_save_optimizer=False, always_save_context=True)
    weights = out / "weights"
    weights.mkdir(parents=True, exist_ok=True)
    with without_leftovers(), tempfile.TemporaryDirectory() as scratch:
        tokenizer = Path(scratch) / "nemo_tokenizer"  # the name it has in checkpoints
        write_tokenizer_files(hf_path, tokenizer)
        target = family.nemo_model(config, tokenizer=AutoTokenizer(str(tokenizer)))
        trainer = nl.Trainer(devices=1, accelerator="cpu", strategy=strategy)
        strategy.connect(target)
        strategy.setup_environment()
        write_weights(weights, model=_on_meta(target), base=hf_path, family=family, shape=shape, dtype=dtype)
        torch.save(_common_state(strategy), weights / "common.pt")
        TrainerContext.from_trainer(trainer).io_dump(ckpt_to_context_subdir(out), yaml_attrs=["model"])
        nl.teardown(trainer, target)


def write_tokenizer_files(hf_path: Path, out: Path) -> None:
    """Write the files of a model's tokenizer, and no others, to a folder.

    A checkpoint copies the whole folder of its tokenizer. NeMo's importers write theirs to /tmp/nemo_tokenizer, whoever
    else does at the same time, and run code that comes with a tokenizer.
    """
    from transformers import AutoTokenizer

    AutoTokenizer.from_pretrained(hf_path, trust_remote_code=False).save_pretrained(out)


def _on_meta(model: Any) -> Any:
    """Return Megatron's modules of a NeMo model, without memory."""
    import torch

    config = copy.copy(model.config)
    config.use_cpu_initialization, config.perform_initialization = True, False
    with torch.device("meta"):
        return config.configure_model(model.tokenizer)


def _common_state(strategy: Any) -> dict[str, Any]:
    """Return what a checkpoint holds beside the weights: nothing was trained, and how the weights are divided."""
    nothing: dict[str, Any] = {"state_dict": {}, "epoch": 0, "global_step": 0}
    division = strategy.sharded_state_dict_metadata
    return {**nothing, "pytorch-lightning_version": installed_version("lightning"), "content_metadata": division}


def main() -> None:
    """Convert in this process: `python -m nemo_reasoning.models.importer HF_DIR OUT DTYPE`."""
    from nemo_reasoning.backend.runtime import backend

    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("hf_path", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("dtype", choices=["float32", "bfloat16"])
    arguments = parser.parse_args()
    try:
        with backend(cuda=False):
            convert(arguments.hf_path, arguments.out, arguments.dtype)
    except NemoReasoningError as error:
        sys.exit(f"{_REFUSED}: {error}")


if __name__ == "__main__":
    main()
