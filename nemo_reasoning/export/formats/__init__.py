"""The formats of export: one class each, found here by name."""

from nemo_reasoning.export.formats.base import ExportFormat
from nemo_reasoning.export.formats.gguf import Gguf
from nemo_reasoning.export.formats.hf_peft import HfPeft
from nemo_reasoning.export.formats.merged import Merged
from nemo_reasoning.export.formats.nemo import NemoArchive

FORMATS: dict[str, ExportFormat] = {kind.name: kind for kind in (HfPeft(), NemoArchive(), Merged(), Gguf())}
