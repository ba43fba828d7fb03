"""What data sheets say of GPUs: operations and bytes a second."""

import re
from dataclasses import dataclass


@dataclass(frozen=True)
class Gpu:
    """Peak rates of a GPU.

    Attributes:
        name: As `torch.cuda.get_device_name` and `nvidia-smi` give it, without "NVIDIA"; a pattern for all of it.
        bf16: Dense tensor-core FLOP/s in bfloat16 with float32 accumulation, at boost clock.
        fp8: The same in FP8; None without such cores.
        bandwidth: Bytes of its memory a second.
    """

    name: str
    bf16: float
    fp8: float | None
    bandwidth: float


def _gpu(name: str, bf16: float, fp8: float | None, bandwidth: float) -> Gpu:
    """Take TFLOP/s and TB/s. Data sheets that print FLOP/s with 2:4 sparsity are halved."""
    return Gpu(name, bf16 * 1e12, None if fp8 is None else fp8 * 1e12, bandwidth * 1e12)


GPUS = (
    _gpu(r"A100.*40GB", 312.0, None, 1.555),  # NVIDIA A100 data sheet
    _gpu(r"A100 80GB PCIe", 312.0, None, 1.935),
    _gpu(r"A100.*", 312.0, None, 2.039),
    _gpu(r"H100 PCIe", 756.0, 1513.0, 2.0),  # NVIDIA H100 PCIe product brief (1513 sparse)
    _gpu(r"H100 NVL", 835.5, 1671.0, 3.9),  # NVIDIA H100 data sheet (1671 sparse)
    _gpu(r"H100 80GB HBM3|H100 SXM.*", 989.4, 1978.9, 3.35),  # NVIDIA H100 data sheet (1979 sparse)
    _gpu(r"H200 NVL", 835.5, 1671.0, 4.8),  # NVIDIA H200 data sheet (1671 sparse)
    _gpu(r"H200", 989.4, 1978.9, 4.8),  # NVIDIA H200 data sheet (1979 sparse)
    _gpu(r"GH200.*", 989.4, 1978.9, 4.0),  # NVIDIA GH200 data sheet (1979 sparse), the 96 GB kind's memory
    _gpu(r"B200", 2250.0, 4500.0, 8.0),  # NVIDIA HGX B200 data sheet (4500 sparse per GPU)
    _gpu(r"L4", 121.0, 242.0, 0.3),  # NVIDIA L4 data sheet (242 sparse)
    _gpu(r"L40S", 362.0, 733.0, 0.864),  # NVIDIA L40S data sheet
    _gpu(r"A10", 125.0, None, 0.6),  # NVIDIA A10 data sheet; the A10G is another chip
    _gpu(r"GeForce RTX 3090", 71.0, None, 0.936),  # NVIDIA Ampere GA102 white paper
    _gpu(r"GeForce RTX 4090", 165.2, 330.3, 1.008),  # NVIDIA Ada white paper
    _gpu(r"GeForce RTX 5090", 209.5, 419.0, 1.792),  # NVIDIA RTX Blackwell white paper
    _gpu(r"RTX A6000", 154.8, None, 0.768),  # NVIDIA Ampere GA102 white paper
    _gpu(r"RTX 6000 Ada Generation", 364.2, 728.5, 0.96),  # NVIDIA RTX 6000 Ada data sheet
)


def find_gpu(device_name: str) -> Gpu | None:
    """Return the peak rates of a GPU, or None where they are not known.

    Args:
        device_name: With or without "NVIDIA" before it. Laptop chips, MIG slices and variants with other clocks
            carry the same stem, so the whole name must match.
    """
    name = device_name.removeprefix("NVIDIA ").strip()
    if "MIG" in name:
        return None
    return next((gpu for gpu in GPUS if re.fullmatch(gpu.name, name)), None)
