"""Peak rates of GPUs, the denominator of model FLOPs utilisation."""

import re

# Dense bf16 tensor-core TFLOP/s with fp32 accumulation at boost clock. Data sheets that print the
# figure with 2:4 sparsity are halved.
_PEAKS = (
    (r"A100.*", 312.0),  # NVIDIA A100 80GB data sheet
    (r"H100 PCIe", 756.0),  # NVIDIA H100 PCIe product brief (1513 sparse)
    (r"H100 NVL", 835.5),  # NVIDIA H100 data sheet (1671 sparse)
    (r"H100 80GB HBM3|H100 SXM.*", 989.4),  # NVIDIA H100 data sheet (1979 sparse)
    (r"H200 NVL", 835.5),  # NVIDIA H200 data sheet (1671 sparse)
    (r"H200", 989.4),  # NVIDIA H200 data sheet (1979 sparse)
    (r"GH200.*", 989.4),  # NVIDIA GH200 data sheet (1979 sparse)
    (r"B200", 2250.0),  # NVIDIA HGX B200 data sheet (4500 sparse per GPU)
    (r"L4", 121.0),  # NVIDIA L4 data sheet (242 sparse)
    (r"L40S", 362.0),  # NVIDIA L40S data sheet
    (r"A10", 125.0),  # NVIDIA A10 data sheet; the A10G is another chip
    (r"GeForce RTX 3090", 71.0),  # NVIDIA Ampere GA102 white paper
    (r"GeForce RTX 4090", 165.2),  # NVIDIA Ada white paper
    (r"GeForce RTX 5090", 209.5),  # NVIDIA RTX Blackwell white paper
    (r"RTX A6000", 154.8),  # NVIDIA Ampere GA102 white paper
    (r"RTX 6000 Ada Generation", 364.2),  # NVIDIA RTX 6000 Ada data sheet
)


def peak_bf16_flops(device_name: str) -> float | None:
    """Return the dense bf16 peak in FLOP/s of a GPU, or None where it is not known.

    Args:
        device_name: As `torch.cuda.get_device_name` gives it. Laptop chips, MIG slices and variants
            with other clocks carry the same stem, so the whole name must match.
    """
    name = device_name.removeprefix("NVIDIA ").strip()
    if "MIG" in name:
        return None
    for pattern, tera in _PEAKS:
        if re.fullmatch(pattern, name):
            return tera * 1e12
    return None
