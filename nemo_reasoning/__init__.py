"""Turn a Llama-family chat model into a reasoning model with a thinking switch, using NVIDIA NeMo.

Importing this package is instant: torch and NeMo load only when a room that needs them is used.
"""

__version__ = "0.1.0"
