"""What a format of export is, and what all of them share about one export."""

import importlib.util
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import torch

from nemo_reasoning.config.model import PeftSettings
from nemo_reasoning.data.chat import ChatFormatter
from nemo_reasoning.export import verify
from nemo_reasoning.export.quantised_base import Qlora
from nemo_reasoning.export.weights import Adapter, FullWeights
from nemo_reasoning.models.hub import BaseModel
from nemo_reasoning.peft.nf4 import Nf4Base

NOT_VERIFIED = "not verified"


@dataclass(frozen=True)
class ExportJob:
    """One export, whatever its formats.

    Attributes:
        trained: What was trained.
        base: The model it was trained on.
        formatter: Tokenizer and chat template of the training.
        name: Under which servers offer the model.
        base_dtype: Name of the dtype in which NeMo holds the base.
        dtype: Name of the dtype of merged weights.
        tokenizer_python: Interpreter of an environment with transformers 5.
        batches: Token ids, [1, n] each, on which logits are compared.
        reference: The trained model's logits of them; None to leave logits unverified.
        qlora: How a QLoRA run held its base.
        gguf: Types of GGUF files to write.
    """

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
    gguf: Sequence[str]

    @property
    def adapter(self) -> Adapter:
        """What was trained, where it is an adapter: formats that need one refuse the rest before."""
        assert isinstance(self.trained, Adapter)
        return self.trained

    def nf4(self, format_name: str) -> Nf4Base | None:
        """Return how the base under an export is quantized; None for the original weights."""
        return None if self.qlora is None else self.qlora.under(format_name)

    def verify_tokenizer(self, folder: Path) -> Any:
        """Return what the check of an exported tokenizer found, or why it did not run."""
        reason = no_interpreter(self.tokenizer_python)
        if reason or self.tokenizer_python is None:
            return f"{NOT_VERIFIED}: {reason}"
        return verify.verify_tokenizer(folder, formatter=self.formatter, python=self.tokenizer_python)


class ExportFormat(ABC):
    """A format that servers read.

    Attributes:
        name: Of the format, and of its folder.
        has_tokenizer: Whether a folder of it holds a tokenizer, and logits can be compared.
        by_default: Whether it is written where no formats are asked for.
    """

    name: ClassVar[str]
    has_tokenizer: ClassVar[bool]
    by_default: ClassVar[bool] = True

    def refusal(self, formatter: ChatFormatter, gguf: Sequence[str]) -> str | None:
        """Return why an export with a tokenizer cannot be written here, before anything is computed; None if it can."""
        return None

    @abstractmethod
    def write(self, job: ExportJob, folder: Path) -> None:
        """Write files to an empty folder."""

    @abstractmethod
    def verify(self, job: ExportJob, folder: Path) -> dict[str, Any]:
        """Compare what was written with what was trained.

        Returns:
            For each check what it found, or "not verified: " and why it did not run.

        Raises:
            VerificationError: The export is not what was trained.
        """

    @abstractmethod
    def serve_commands(
        self, *, name: str, base: str, peft: PeftSettings, folder: str, template: str, files: Sequence[str]
    ) -> dict[str, str]:
        """Return the shell command of each server that can serve it.

        The NIM image, which depends on the base model, is taken from $NIM_IMAGE. NIM 2.x serves merged weights in its
        model-free image, $NIM_MODEL_FREE_IMAGE, and adapters under a profile whose name ends in -feat_lora,
        $NIM_LORA_PROFILE, which `list-model-profiles` in the image names.

        Args:
            name: Under which clients ask for the model.
            base: The base model, quoted for a shell.
            peft: What was trained.
            folder: What was exported, quoted for a shell.
            template: The chat template's file, quoted for a shell.
            files: Names of the files in the folder.
        """

    def unverifiable(self, job_reference: bool, tokenizer_python: Path | None) -> str | None:
        """Return why a check of this format cannot run; None if all can."""
        if not job_reference:
            return "there is no trained model to compare logits with"
        if reason := no_interpreter(tokenizer_python):
            return (
                f"{reason}; make one with `python -m venv DIR && DIR/bin/pip install 'transformers>=5' jinja2` and set "
                "tokenizer_python=DIR/bin/python, or verify=false"
            )
        return None


def no_interpreter(python: Path | None) -> str:
    """Return why an interpreter for the tokenizer's check is missing; nothing if it is there."""
    if python is None:
        return "no environment with transformers 5 is given"
    return "" if python.is_file() else f"{python} does not exist"


def no_archive_reader() -> str:
    """Return why a .nemo archive cannot be read back; nothing if it can."""
    return "" if importlib.util.find_spec("nemo") else "nemo_toolkit is not installed"
