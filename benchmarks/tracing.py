"""One training step at full size on the meta device: bytes held, operations and kernel launches, without a GPU.

Tensors of the meta device have storages with a size and no memory; code that asks whether a tensor is on a CPU takes
the branch of a GPU. What a GPU computes in one kernel stands here as one operation that keeps what the kernel keeps.
Not counted: fragmentation, CUDA's context, workspaces of cuBLAS and cuDNN.
"""

import weakref
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import torch
import traced_kernels as stand_in
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import flop_registry

from nemo_reasoning.config.model import PeftScheme
from nemo_reasoning.config.train import SftSettings
from nemo_reasoning.config.trainer import Recompute

DEVICE = torch.device("meta")
PEAK, BANDWIDTH = 989.4e12, 3.35e12  # H100 SXM's data sheet: dense bfloat16 FLOP/s, bytes/s of memory
_ROUNDED = 512  # to which CUDA's allocator rounds a tensor's bytes


@dataclass
class Traced:
    """What a step took on one device.

    Attributes:
        static: Bytes that lie there from the first step to the last.
        peak: Most bytes held at a time.
        kept: Bytes that lie there for the backward pass when the layers' forward passes are over.
        base: Bytes of the frozen weights, or of all where they are trained.
        adapter: Bytes of an adapter's weights.
        flops: Of matrix products and attention, forward and backward.
        moved: Bytes that kernels read and write, each operation's inputs and outputs once.
        launches: Kernels, views not counted.
        bound: Seconds on an H100 if each kernel computed at `PEAK` or moved at `BANDWIDTH`.
    """

    static: int = 0
    peak: int = 0
    kept: int = 0
    base: int = 0
    adapter: int = 0
    flops: int = 0
    moved: int = 0
    launches: int = 0
    bound: float = 0.0


class Storages(TorchDispatchMode):
    """Counts the storages of the meta device, and what operations on them compute and move."""

    def __init__(self) -> None:
        super().__init__()
        self.sizes: dict[int, int] = {}
        self.now = self.peak = 0
        self.step = Traced()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run an operation and count it."""
        result = func(*args, **(kwargs or {}))
        read, made = _meta((args, kwargs)), _meta(result)
        before = {tensor.untyped_storage()._cdata for tensor in read}
        for tensor in made:
            self._hold(tensor.untyped_storage())
        written = [tensor for tensor in made if tensor.untyped_storage()._cdata not in before]
        if written or func._schema.is_mutable:
            self.step.launches += 1
            moved = sum(tensor.nbytes for tensor in (*read, *made))
            count = flop_registry.get(func._overloadpacket)
            flops = count(*args, **(kwargs or {}), out_val=result) if count else 0
            self.step.moved, self.step.flops = self.step.moved + moved, self.step.flops + flops
            self.step.bound += max(flops / PEAK, moved / BANDWIDTH)
        return result

    def _hold(self, storage: Any) -> None:
        key = storage._cdata
        if key not in self.sizes:
            self.sizes[key] = -(-storage.nbytes() // _ROUNDED) * _ROUNDED
            self.now += self.sizes[key]
            self.peak = max(self.peak, self.now)
            weakref.finalize(storage, self._drop, key)

    def _drop(self, key: int) -> None:
        self.now -= self.sizes.pop(key)


def _meta(values: Any) -> list[torch.Tensor]:
    return [leaf for leaf in tree_leaves(values) if isinstance(leaf, torch.Tensor) and leaf.is_meta]


@contextmanager
def traced_device(
    *, tensor_parallel: int = 1, pipeline_parallel: int = 1, stage: int = 0, te: bool = False
) -> Iterator[None]:
    """Make Megatron build and run models on the meta device for the rest of the process.

    Args:
        tensor_parallel: Ranks that share a layer; this process is the first of them.
        pipeline_parallel: Ranks that share the layers out.
        stage: Number of this process among those.
        te: Whether the layers are Transformer Engine's: its Python over the stand-in of tests/rehearsal, whose folder
            and sources have to be importable.
    """
    if te:
        _transformer_engine()
    from megatron.core.tensor_parallel import random

    from nemo_reasoning.backend import kernels, torch_layers
    from nemo_reasoning.backend.no_te import NO_TE
    from nemo_reasoning.backend.patching import applied
    from nemo_reasoning.peft import nf4
    from nemo_reasoning.training import loss

    _start_ranks(tensor_parallel, pipeline_parallel, stage)
    torch.cuda.current_device = lambda: DEVICE  # type: ignore[assignment,return-value]
    torch.cuda.get_rng_state = lambda *_, **__: torch.get_rng_state()  # type: ignore[assignment]
    torch.cuda.manual_seed = torch.manual_seed  # type: ignore[assignment]
    torch.cuda.default_generators = ()
    for name in ("_get_cuda_rng_state", "_set_cuda_rng_state"):
        setattr(random, name, lambda *_, **__: None)
    random.get_cuda_rng_tracker().states_["model-parallel-rng"] = None
    random.get_all_rng_states = dict
    random._get_all_rng_states = lambda: (None, None, {})
    random._set_all_rng_states = lambda *_: None
    torch.nn.functional.dropout = stand_in.dropout  # type: ignore[assignment]
    nf4.dequantize, nf4.digest = stand_in.dequantize, lambda *_: ""
    torch_layers.rms_norm = stand_in.RmsNorm.apply
    kernels.swiglu = lambda gate_up, *_: stand_in.Swiglu.apply(gate_up)
    loss.cross_entropy = stand_in.cross_entropy
    with ExitStack() as stack:
        for patch in () if te else NO_TE:
            stack.enter_context(applied(patch))
        yield


def _transformer_engine() -> None:
    """Let Transformer Engine's Python layer compute sizes alone."""
    import transformer_engine_on_cpu

    transformer_engine_on_cpu.install()
    from transformer_engine.pytorch.module import base, layernorm_linear, linear
    from transformer_engine.pytorch.ops.basic import rmsnorm

    workspace = torch.empty(32 * 2**20 + 1024, dtype=torch.uint8, device=DEVICE)
    for module in (base, layernorm_linear, linear):
        module.get_workspace = lambda: workspace
    torch.cuda.Stream = type("Stream", (), {"__init__": lambda self, *_, **__: None})  # type: ignore[misc]
    torch.Tensor.cuda = lambda self, *_, **__: self.to(DEVICE)  # type: ignore[method-assign]
    rmsnorm.RMSNorm.pre_first_fuser_forward = lambda self: None  # it would leave the meta device


def _start_ranks(tensor_parallel: int, pipeline_parallel: int, stage: int) -> None:
    import torch.distributed as dist
    from megatron.core import parallel_state
    from torch.testing._internal.distributed.fake_pg import FakeStore

    count, rank = tensor_parallel * pipeline_parallel, stage * tensor_parallel
    dist.init_process_group("fake", rank=rank, world_size=count, store=FakeStore())
    parallel_state.initialize_model_parallel(
        tensor_model_parallel_size=tensor_parallel,
        pipeline_model_parallel_size=pipeline_parallel,
        create_gloo_process_groups=False,
    )


def trace_step(settings: SftSettings, *, samples: int = 1, in_flight: int = 1, te: bool = False) -> Traced:
    """Return what a step takes; call inside `traced_device`.

    Args:
        settings: The run, its shape known.
        samples: Of equal length in each row.
        in_flight: Micro-batches whose forward passes come before the first backward pass, as in a pipeline.
        te: As for `traced_device`.
    """
    from nemo_reasoning.peft import layers

    layers._buffers.clear()  # of the step before
    storages = Storages()
    with storages, ExitStack() as stack:
        model = _build(settings, stack, te=te)
        trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
        buffer = sum(p.numel() for p in trained)  # of gradients, Megatron's
        held = [torch.empty(buffer, dtype=torch.float32, device=DEVICE)]
        held += [torch.empty_like(p, dtype=torch.float32) for p in trained for _ in range(3)]  # a copy, two moments
        storages.peak, storages.step = storages.now, Traced(static=storages.now)
        storages.step.base, storages.step.adapter = _weight_bytes(model, adapted=settings.peft.scheme)
        for parameter in trained:  # Megatron adds a gradient to its buffer and lets it go
            parameter.register_post_accumulate_grad_hook(lambda p: setattr(p, "grad", None))
        run = _Forward(model, settings, storages, samples=samples, te=te)
        outputs = [run() for _ in range(in_flight)]
        storages.step.kept = run.kept - storages.step.static
        for output in outputs[:1]:  # the others' backward passes need less
            output.sum().backward() if model.post_process else output.backward(torch.empty_like(output))
    storages.step.peak = storages.peak
    return storages.step


def _weight_bytes(model: Any, *, adapted: PeftScheme) -> tuple[int, int]:
    """Return the bytes of base and adapter."""
    own = {name: parameter.nbytes for name, parameter in model.named_parameters()}
    adapter = sum(size for name, size in own.items() if ".adapter." in name)
    states = [(module.weight, module.quant_state) for module in model.modules() if hasattr(module, "quant_state")]
    packed = sum(one.nbytes + its.absmax.nbytes + its.state2.absmax.nbytes for one, its in states)
    return sum(own.values()) - adapter + packed, adapter


def _build(settings: SftSettings, stack: ExitStack, *, te: bool) -> Any:
    from nemo.collections.llm import fn

    from nemo_reasoning.peft import layers
    from nemo_reasoning.peft.qlora import nf4_linears
    from nemo_reasoning.training import nemo_objects

    trainer = settings.trainer
    config = nemo_objects.build_model(settings, base=None, tokenizer=None).config
    config.perform_initialization, config.init_model_with_meta_device, config.pipeline_dtype = False, te, torch.bfloat16
    config.tensor_model_parallel_size = trainer.tensor_model_parallel_size
    config.pipeline_model_parallel_size = trainer.pipeline_model_parallel_size
    config.sequence_parallel = trainer.sequence_parallel
    if settings.peft.scheme is PeftScheme.qlora:
        stack.enter_context(nf4_linears(targets=settings.peft.target_modules))
    assert settings.model.architecture is not None
    model = config.configure_model(SimpleNamespace(vocab_size=settings.model.architecture.vocab_size))
    for linear in [one for one in model.modules() if isinstance(getattr(one, "weight", None), layers.PendingWeight)]:
        linear.weight.fill(torch.empty(linear.output_size, linear.input_size, dtype=linear.weight.dtype, device=DEVICE))
    adapter = nemo_objects.build_peft(settings.peft, seed=trainer.seed)
    if adapter is not None:
        model.requires_grad_(False)
        adapter._add_via_setattr = False
        fn.walk(model, adapter.transform)
    return model


class _Forward:
    """Forward passes of micro-batches, and what lies there when the layers of the last one are over."""

    def __init__(self, model: Any, settings: SftSettings, storages: Storages, *, samples: int, te: bool) -> None:
        self.model, self.trainer, self.storages, self.kept = model, settings.trainer, storages, 0
        rows, tokens = self.trainer.micro_batch_size, self.trainer.seq_length
        self.packed = stand_in.packed(rows, tokens, samples) if self.trainer.packing else None
        self.shape = (rows, tokens) if self.packed is None else (1, rows * tokens)
        if te and self.packed is not None:  # which asks them for their value
            self.packed.max_seqlen_q = torch.tensor(self.packed.max_seqlen_q, dtype=torch.int32)
            self.packed.max_seqlen_kv = self.packed.max_seqlen_q
        if self.trainer.recompute is Recompute.full and model.pre_process:
            model.embedding.register_forward_hook(lambda module, _, out: out.requires_grad_())
        if model.post_process:
            model._postprocess = lambda *, hidden_states, labels, **rest: self._loss(hidden_states, labels)

    def __call__(self) -> torch.Tensor:
        """Run one."""
        ids, places = (torch.empty(self.shape, dtype=torch.int64, device=DEVICE) for _ in range(2))
        if not self.model.pre_process:
            share = self.trainer.tensor_model_parallel_size if self.trainer.sequence_parallel else 1
            size = (self.shape[1] // share, self.shape[0], self.model.config.hidden_size)
            self.model.set_input_tensor(torch.empty(size, dtype=torch.bfloat16, device=DEVICE).requires_grad_())
        packed = {} if self.packed is None else {"packed_seq_params": self.packed}
        output: torch.Tensor = self.model(ids, places, None, labels=ids, **packed)
        if not self.model.post_process:
            self.kept = self._now()
        return output

    def _now(self) -> int:
        """Return the bytes held, but for buffers: QLoRA's for a weight, Megatron's for gathered positions."""
        from megatron.core.parallel_state import get_global_memory_buffer

        from nemo_reasoning.peft import layers

        shared = [*layers._buffers.values(), *get_global_memory_buffer().buffer.values()]
        return self.storages.now - sum(buffer.nbytes for buffer in shared)

    def _loss(self, hidden: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """Return the loss with every position supervised, which a meta tensor cannot tell."""
        from megatron.core.tensor_parallel.mappings import gather_from_sequence_parallel_region

        from nemo_reasoning.training.loss import linear_cross_entropy

        self.kept, model = self._now() - hidden.nbytes, self.model  # which is the loss's
        if model.config.sequence_parallel:
            hidden = gather_from_sequence_parallel_region(hidden, tensor_parallel_output_grad=False)
        tied = model.share_embeddings_and_output_weights
        weight = model.shared_embedding_or_output_weight() if tied else model.output_layer.weight
        flat = hidden.reshape(-1, hidden.shape[-1])
        chosen = flat.index_select(0, torch.arange(len(flat), device=DEVICE))
        return linear_cross_entropy(chosen, weight, labels.t().flatten(), group=model.pg_collection.tp)
