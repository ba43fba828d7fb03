"""One real training step of a small model on the CPU, and what it holds in memory."""

import io
import json
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from architectures import SMALL
from composing import sft_settings

from nemo_reasoning.config.train import SftSettings
from nemo_reasoning.data.chat import ChatFormatter, load_template
from nemo_reasoning.data.prepare.pipeline import prepare_data
from nemo_reasoning.training import train as training_run
from nemo_reasoning.training.callbacks.base import Callback, StepRecord
from nemo_reasoning.training.run_dir import Run
from nemo_reasoning.training.train import TrainingInputs

COMMON = (
    *("hardware=cpu", "logger=none", "callbacks.samples_interval=0", "model.init=random", "trainer.max_steps=1"),
    *("data.rows=60", "trainer.global_batch_size=8", "trainer.packing=false"),
)


@dataclass
class Measured:
    """Bytes at the end of a step, and the most that autograd held in it.

    Attributes:
        frozen: Parameters without gradients.
        trained: Parameters with.
        gradients: Megatron's gradient buffers.
        optimizer: Tensors of the optimiser's state, and float32 copies.
        saved: Most bytes of tensors that autograd kept at a time, parameters excepted.
        positions: Of each row of the batch.
        built: Parameters as Megatron builds the model, before anything is loaded or converted.
        gradient: All gradients in one vector.
    """

    frozen: int = 0
    trained: int = 0
    gradients: int = 0
    optimizer: int = 0
    saved: int = 0
    positions: int = 0
    built: int = 0
    gradient: torch.Tensor = field(default_factory=lambda: torch.empty(0))


def size(tensor: torch.Tensor) -> int:
    return tensor.numel() * tensor.element_size()


class SavedTensors:
    """Counts the storages that autograd keeps, each once, as long as it keeps them."""

    def __init__(self, but_for: set[int]) -> None:
        self.but_for, self.held, self.now, self.most = but_for, {}, 0, 0  # type: ignore[var-annotated]
        self.hooks = torch.autograd.graph.saved_tensors_hooks(lambda tensor: _Held(self, tensor), lambda held: held.it)

    def keep(self, storage: torch.UntypedStorage) -> None:
        self.held[storage.data_ptr()] = self.held.get(storage.data_ptr(), 0) + 1
        if self.held[storage.data_ptr()] == 1:
            self.now += storage.nbytes()
            self.most = max(self.most, self.now)

    def drop(self, storage: torch.UntypedStorage) -> None:
        self.held[storage.data_ptr()] -= 1
        if not self.held[storage.data_ptr()]:
            self.now -= storage.nbytes()


class _Held:
    def __init__(self, count: SavedTensors, tensor: torch.Tensor) -> None:
        self.it, storage = tensor, tensor.untyped_storage()
        self.count = None if storage.data_ptr() in count.but_for else count
        if self.count:
            self.count.keep(storage)

    def __del__(self) -> None:
        if self.count:
            self.count.drop(self.it.untyped_storage())


class Probe(Callback):
    """Measures the first step."""

    position = 99

    def __init__(self) -> None:
        self.measured = Measured()

    def on_step_start(self, loop: Any) -> None:
        lasting = {parameter.untyped_storage().data_ptr() for parameter in loop.model.parameters()}
        for module in loop.model.modules():
            lasting |= {
                buffer.untyped_storage().data_ptr() for buffer in module._buffers.values() if buffer is not None
            }
            if type(module).__name__ == "GPTModel":
                module.register_forward_pre_hook(self._see, with_kwargs=True)
        self.saved = SavedTensors(lasting)
        self.saved.hooks.__enter__()

    def _see(self, module: Any, args: Any, kwargs: Any) -> None:
        if not self.measured.positions:
            self.measured.positions = (kwargs["input_ids"] if "input_ids" in kwargs else args[0]).shape[1]

    def on_step_end(self, loop: Any, record: StepRecord) -> None:
        trainer, pl_module = loop.trainer, loop.model
        self.saved.hooks.__exit__(None, None, None)
        from megatron.core.distributed import DistributedDataParallel

        found = self.measured
        found.saved = self.saved.most
        for parameter in pl_module.parameters():
            if parameter.requires_grad:
                found.trained += size(parameter)
            else:
                found.frozen += size(parameter)
        wrapped = [module for module in pl_module.modules() if isinstance(module, DistributedDataParallel)]
        buffers = [buffer.grad_data for module in wrapped for buffer in module.buffers]
        found.gradients, found.gradient = sum(size(data) for data in buffers), torch.cat(buffers).clone()
        found.optimizer = sum(
            _optimizer_bytes(one) for one in trainer.strategy.optimizers[0].mcore_optimizer.chained_optimizers
        )


def _optimizer_bytes(optimizer: Any) -> int:
    tensors = [value for state in optimizer.optimizer.state.values() for value in state.values()]
    copies = [copy for group in getattr(optimizer, "fp32_from_float16_groups", []) for copy in group]
    once = {tensor.data_ptr(): size(tensor) for tensor in (*tensors, *copies) if isinstance(tensor, torch.Tensor)}
    return sum(once.values())


def settings_of(tokenizer: Path, folder: Path, *overrides: str, **shape: Any) -> SftSettings:
    """Return the settings of a small random model that reads what the tokenizer writes; a Llama, but for `shape`."""
    settings = sft_settings(*COMMON, f"output_dir={folder}", *overrides)
    vocabulary = json.loads((tokenizer / "config.json").read_text())["vocab_size"]
    settings.model.architecture = replace(SMALL, vocab_size=vocabulary, **shape)
    return settings


def measure(settings: SftSettings, *, tokenizer: Path, folder: Path, monkeypatch: pytest.MonkeyPatch) -> Measured:
    """Train one step and return what it held."""
    formatter = ChatFormatter.load(tokenizer, template=load_template("chatml"))
    data = folder / "data"
    prepare_data(settings.data, formatter=formatter, seq_length=settings.trainer.seq_length, out=data)
    probe, build = Probe(), training_run.build_callbacks
    monkeypatch.setattr(training_run, "build_callbacks", lambda context: [*build(context), probe])
    from megatron.core.models.gpt.gpt_model import GPTModel

    make = GPTModel.__init__

    def counted(self: Any, *args: Any, **kwargs: Any) -> None:
        make(self, *args, **kwargs)
        probe.measured.built = sum(size(parameter) for parameter in self.parameters())

    monkeypatch.setattr(GPTModel, "__init__", counted)
    inputs = TrainingInputs(base=None, tokenizer=tokenizer, formatter=formatter, data=data)
    training_run.train(Run.start(settings), inputs, stream=io.StringIO())
    return probe.measured
