"""Flash attention over packed samples of varying length on a GPU: no loop over samples, no padding.

flash-attn comes first: it drops weights out, can be told to be deterministic, and is what NVIDIA's container holds.
torch's kernel, from torch 2.10 on, is its algorithm without either. Neither takes float32.
"""

from collections.abc import Callable
from functools import cache, partial
from importlib import import_module
from inspect import signature
from typing import Any

import torch


def varlen_attention(*, dropout: float) -> Callable[..., torch.Tensor] | None:
    """Return a flash kernel for samples of varying length, in half precision on a GPU; None if none is installed.

    It takes query [t, h, d], key and value [t, g, d], `bounds` [samples + 1], int32, where the samples begin and end,
    `longest`, an upper bound on their lengths, and `scale`, a factor on the scores; it returns [t, h, d].

    Args:
        dropout: Share of the weights that is dropped; torch's kernel drops none.
    """
    if (flash := _function("flash_attn", "flash_attn_varlen_func")) is not None:
        return partial(_flash, flash, dropout)
    if not dropout and (varlen := _function("torch.nn.attention.varlen", "varlen_attn")) is not None:
        return partial(_torch_varlen, varlen)
    return None


@cache
def _function(module: str, name: str) -> Any:
    """Return a function of a module; None where either is missing."""
    try:
        return getattr(import_module(module), name, None)
    except ModuleNotFoundError:
        return None


def _flash(
    function: Any,
    dropout: float,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    *,
    bounds: torch.Tensor,
    longest: int,
    scale: float,
) -> torch.Tensor:
    mixed: torch.Tensor = function(
        *(query, key, value, bounds, bounds, longest, longest),
        dropout_p=dropout,
        softmax_scale=scale,
        causal=True,
        deterministic=torch.are_deterministic_algorithms_enabled(),
    )
    return mixed


def _torch_varlen(
    function: Any,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    *,
    bounds: torch.Tensor,
    longest: int,
    scale: float,
) -> torch.Tensor:
    """Call torch's kernel, whose first releases knew neither windows nor, in their signature, grouped queries."""
    known = signature(function).parameters
    causal: dict[str, Any] = {"window_size": (-1, 0)} if "window_size" in known else {"is_causal": True}
    grouped = {"enable_gqa": True} if "enable_gqa" in known and query.shape[1] != key.shape[1] else {}
    scaled = {"scale": scale} if "scale" in known else {}
    if not scaled:
        query = query * (scale * query.shape[-1] ** 0.5)  # the kernel's own factor is d ** -0.5
    mixed: torch.Tensor = function(query, key, value, bounds, bounds, longest, longest, **causal, **grouped, **scaled)
    return mixed
