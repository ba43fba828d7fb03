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
- Activations computed again (recomputation) are work of the machine, not of the model: model FLOPs
  utilization (MFU) leaves them out.

Under LoRA the lowest layer needs no gradient of its input; that saving is ignored, which
overstates the total by less than one part in four times the number of layers.
"""

from dataclasses import dataclass

from nemo_reasoning.config.model import Architecture
from nemo_reasoning.models.sizes import count_linear_weights


@dataclass(frozen=True)
class BatchCounts:
    """Sizes of a global batch, over all data-parallel ranks.

    Attributes:
        samples: Rows.
        tokens: Positions computed, padding included.
        nonpad_tokens: Positions that hold a row's token.
        supervised_tokens: Positions whose next token is a target.
    """

    samples: int
    tokens: int
    nonpad_tokens: int
    supervised_tokens: int


def training_flops(
    *,
    shape: Architecture,
    tokens: int,
    logit_tokens: int,
    context: float,
    adapter_weights: int | None,
) -> float:
    """Count what one forward and backward pass requires; the module's docstring states formula and sources.

    Args:
        shape: Of the model.
        tokens: Positions that hold a token.
        logit_tokens: Positions whose logits enter the loss.
        context: Mean number of keys a query sees: (length + 1) / 2 in a causal sequence.
        adapter_weights: Entries of the adapter of a frozen base; None trains every weight.
    """
    attention = 4.0 * tokens * shape.num_layers * shape.num_attention_heads * shape.head_dim * context
    base = 2.0 * tokens * count_linear_weights(shape)
    adapter = 2.0 * tokens * (adapter_weights or 0)
    head = 2.0 * logit_tokens * shape.hidden_size * shape.vocab_size  # tied to the embedding or not
    own_gradients = base + head if adapter_weights is None else adapter
    forward = base + adapter + attention + head
    backward = base + adapter + 2 * attention + head + own_gradients
    return forward + backward


def step_flops(counts: BatchCounts, *, shape: Architecture, adapter_weights: int | None) -> float:
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
    )
