"""Floating-point operations that training a Llama model requires.

Counting rules, after appendix B of the PaLM report (arXiv 2204.02311) and section 2.1 of Kaplan et
al. (arXiv 2001.08361), carried over to frozen weights:

- A weight matrix with P entries costs 2 P per token forward (a multiply and an add), 2 P backward
  for the gradient of its input, and 2 P for its own gradient. A frozen matrix has no gradient of
  its own: full fine-tuning costs 6 P per token, a frozen base under LoRA 4 P plus 6 P of the adapter.
- A query that sees `context` keys costs 4 * heads * head_dim * context forward (scores, then the
  weighted values) and twice that backward, whatever is frozen, because gradients pass through it.
- Embedding look-ups, norms, rotations, softmax and the optimiser are not counted.
- The output head counts at supervised positions only, since no other logit enters the loss.
- Activations computed again (recomputation) are work of the machine, not of the model: they are
  reported beside, and model FLOPs utilisation (MFU) leaves them out.

Under LoRA the lowest layer needs no gradient of its input; that saving is ignored, which
overstates the total by less than one part in four times the number of layers.
"""

from collections.abc import Collection
from dataclasses import dataclass
from typing import Protocol, Self

from nemo_reasoning.data.counts import BatchCounts
from nemo_reasoning.errors import ConfigError


class ModelConfig(Protocol):
    """What `LlamaShape.of` reads: NeMo's LlamaConfig and our Architecture both have it."""

    num_layers: int
    hidden_size: int
    ffn_hidden_size: int
    num_attention_heads: int
    num_query_groups: int


@dataclass(frozen=True)
class LlamaShape:
    """Sizes that decide how much a Llama model computes; `ffn` is the width of the gated MLP."""

    layers: int
    hidden: int
    ffn: int
    heads: int
    kv_heads: int
    head_dim: int
    vocab: int

    @classmethod
    def of(cls, config: ModelConfig, *, vocab_size: int) -> Self:
        """Read the sizes from a configuration; `kv_channels` is the head size where it has one."""
        head_dim = getattr(config, "kv_channels", None) or config.hidden_size // config.num_attention_heads
        return cls(
            layers=config.num_layers,
            hidden=config.hidden_size,
            ffn=config.ffn_hidden_size,
            heads=config.num_attention_heads,
            kv_heads=config.num_query_groups,
            head_dim=head_dim,
            vocab=vocab_size,
        )

    @property
    def linears(self) -> dict[str, tuple[int, int]]:
        """(inputs, outputs) of a layer's linear maps, under Megatron's names for the fused ones."""
        return {
            "linear_qkv": (self.hidden, (self.heads + 2 * self.kv_heads) * self.head_dim),
            "linear_proj": (self.heads * self.head_dim, self.hidden),
            "linear_fc1": (self.hidden, 2 * self.ffn),
            "linear_fc2": (self.ffn, self.hidden),
        }

    @property
    def layer_weights(self) -> int:
        """Entries of the weight matrices of all layers, without embedding and head."""
        return self.layers * sum(inputs * outputs for inputs, outputs in self.linears.values())

    @property
    def head_weights(self) -> int:
        """Entries of the output head, which computes the same whether tied to the embedding or not."""
        return self.hidden * self.vocab


def lora_weights(shape: LlamaShape, *, dim: int, targets: Collection[str]) -> int:
    """Return the entries of the LoRA matrices over all layers.

    Args:
        shape: Of the base model.
        dim: Rank of the adapter.
        targets: Adapted linear maps, a subset of the keys of `shape.linears`.

    Raises:
        ConfigError: A target is no linear map of a Llama layer.
    """
    linears = shape.linears
    unknown = set(targets) - set(linears)
    if unknown:
        raise ConfigError(f"unknown LoRA targets {sorted(unknown)}; choose from {sorted(linears)}")
    return shape.layers * dim * sum(sum(linears[target]) for target in targets)


@dataclass(frozen=True)
class TrainingFlops:
    """Operations of one forward and backward pass.

    Attributes:
        forward: Of the forward pass.
        backward: Of the backward pass.
        recompute: Of the layers computed again in the backward pass; 0 without recomputation.
    """

    forward: float
    backward: float
    recompute: float = 0.0

    @property
    def model(self) -> float:
        """What the model requires: the numerator of MFU."""
        return self.forward + self.backward

    @property
    def hardware(self) -> float:
        """What the machine executes, recomputation included."""
        return self.model + self.recompute


def training_flops(
    *,
    shape: LlamaShape,
    tokens: int,
    logit_tokens: int,
    context: float,
    adapter_weights: int | None,
    recompute: bool = False,
) -> TrainingFlops:
    """Count one forward and backward pass; the module's docstring states formula and sources.

    Args:
        shape: Of the model.
        tokens: Positions that hold a token.
        logit_tokens: Positions whose logits enter the loss.
        context: Mean number of keys a query sees: (length + 1) / 2 in a causal sequence.
        adapter_weights: Entries of the adapter of a frozen base; None trains every weight.
        recompute: Whether every layer runs forward again in the backward pass.
    """
    attention = 4.0 * tokens * shape.layers * shape.heads * shape.head_dim * context
    base = 2.0 * tokens * shape.layer_weights
    adapter = 2.0 * tokens * (adapter_weights or 0)
    head = 2.0 * logit_tokens * shape.head_weights
    own_gradients = base + head if adapter_weights is None else adapter
    layers = base + adapter + attention
    return TrainingFlops(
        forward=layers + head,
        backward=base + adapter + 2 * attention + head + own_gradients,
        recompute=layers if recompute else 0.0,
    )


def step_flops(counts: BatchCounts, *, shape: LlamaShape, adapter_weights: int | None) -> float:
    """Return the model FLOPs of an optimiser step, over all data-parallel ranks.

    Padding is not required work and does not count. Every sample is taken to have the mean length;
    attention grows with the square of the length, so the result is a lower bound.
    """
    mean_length = counts.nonpad_tokens / max(1, counts.samples)
    return training_flops(
        shape=shape,
        tokens=counts.nonpad_tokens,
        logit_tokens=counts.supervised_tokens,
        context=(mean_length + 1) / 2,
        adapter_weights=adapter_weights,
    ).model
