"""Add the parts of a device's memory up."""

from dataclasses import dataclass

from nemo_reasoning.config.model import PeftScheme
from nemo_reasoning.models.sizes import linear_shapes
from nemo_reasoning.training.memory.activations import activation_bytes
from nemo_reasoning.training.memory.static import StaticBytes, static_bytes
from nemo_reasoning.training.memory.workload import Workload

GIB = 2**30
LOGIT_CHUNK_BYTES = 256 * 2**20  # of float32 logits that the loss holds at a time
# CUDA's context with its loaded kernels, cuBLAS' workspace and NCCL's buffers; an allowance, not a measurement.
CONTEXT_BYTES = 3 * GIB // 4
# The rest of a GPU's memory is left to the allocator: what lies unused between tensors.
USABLE_SHARE = 0.92
QUANTIZING_BYTES = 24 * 2**24  # a chunk's values in float32, several times over, and its codes


@dataclass(frozen=True)
class MemoryEstimate:
    """Bytes of one device.

    Attributes:
        static: Weights, adapter, gradients, optimiser.
        activations: Kept for the backward pass.
        logits: A chunk of them, and the loss's gradients.
        temporary: Gradients that travel through a layer, and weights that are unpacked for it.
        context: Taken by CUDA before the first tensor.
        loading: The most while the base is loaded, before the rest of `static` is there.
    """

    static: StaticBytes
    activations: int
    logits: int
    temporary: int
    context: int
    loading: int

    @property
    def peak(self) -> int:
        """What tensors take at their most; the loss is over when the layers' backward pass begins."""
        return self.static.total + self.activations + max(self.logits, self.temporary)

    @property
    def total(self) -> int:
        """What the device has to offer."""
        return max(self.peak, self.loading) + self.context


def busiest(work: Workload) -> Workload:
    """Return what the device of a pipeline computes that needs the most."""
    return max(work.stages(), key=lambda stage: estimate_memory(stage).total)


def estimate_memory(work: Workload) -> MemoryEstimate:
    """Return the memory one device needs at the peak of a step."""
    return MemoryEstimate(
        static=static_bytes(work),
        activations=activation_bytes(work),
        logits=logit_bytes(work) if work.is_last else 0,
        temporary=_temporary_bytes(work),
        context=0 if work.on_cpu else CONTEXT_BYTES,
        loading=_loading_bytes(work),
    )


def _loading_bytes(work: Workload) -> int:
    """Return what lies on the device while the base is loaded: it is built in the dtype it is held in.

    Megatron joins gate and up of a layer in a copy, which it makes on the host where the device has no room. A QLoRA
    base takes one weight of all ranks at a time, and what quantizing a chunk of it needs (peft/nf4.py).
    """
    weights, width = static_bytes(work).weights, work.width
    largest = max(inputs * outputs for inputs, outputs in linear_shapes(work.shape).values())
    if work.scheme is PeftScheme.qlora:
        return weights + largest * (width + 1) + QUANTIZING_BYTES
    return weights + largest // work.tensor_parallel * width


def logit_bytes(work: Workload) -> int:
    """Return what the loss holds (training/loss.py), if every position is supervised.

    A chunk of logits lies there in the model's dtype and in float32. Around it are the hidden states and their
    gradients; where the head is trained itself, its gradient in float32 and a chunk's share of it.
    """
    vocabulary, width = work.vocabulary, work.width
    rows = min(work.positions, max(1, LOGIT_CHUNK_BYTES // (4 * vocabulary)))
    around = 2 * work.positions * work.shape.hidden_size * width
    each = 4 + (width if width < 4 else 0)
    if work.trains_base:
        around += vocabulary * work.shape.hidden_size * (4 + width)
    return rows * vocabulary * each + around


def _temporary_bytes(work: Workload) -> int:
    """Return the largest tensors that come and go within a layer's backward pass.

    At the activation function these are the gradients of its inputs and output and as much again in between,
    and the gradients of the residual and of the branch.
    """
    shape, width = work.shape, work.width
    travelling = work.positions * (4 * shape.ffn_hidden_size // work.tensor_parallel + 2 * shape.hidden_size) * width
    largest = max(inputs * outputs for inputs, outputs in linear_shapes(shape).values()) // work.tensor_parallel
    if work.scheme is PeftScheme.qlora:
        return travelling + largest * width  # a weight unpacked
    if work.scheme is PeftScheme.dora:
        return travelling + 2 * largest * width  # the adapter's product, and its sum with the weight
    if work.trains_base:
        table = (work.is_first or work.is_last) * work.vocabulary * shape.hidden_size
        return travelling + max(largest, table) * width  # a weight's gradient
    return travelling


def usable_bytes(memory_gb: float) -> float:
    """Return what a device with `memory_gb` GiB can be asked for."""
    return USABLE_SHARE * memory_gb * GIB


def fits(work: Workload, memory_gb: float) -> bool:
    """Return whether devices with `memory_gb` GiB can compute the workload."""
    return estimate_memory(busiest(work)).total <= usable_bytes(memory_gb)
