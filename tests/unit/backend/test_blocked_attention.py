"""The blocked attention gives what torch's attention gives to each sample alone."""

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

HEADS, GROUPS, SIZE, SCALE = 6, 2, 16, 0.25
LENGTHS = [[1], [63, 64, 65], [200], [129, 5, 130, 131, 0, 70]]


def inputs(lengths: list[int], *, seed: int = 0) -> tuple[torch.Tensor, ...]:
    """Return query, key, value and the gradient of the output, bfloat16."""
    numbers = torch.Generator().manual_seed(seed)
    shapes = [(sum(lengths), heads, SIZE) for heads in (HEADS, GROUPS, GROUPS, HEADS)]
    return tuple(torch.randn(shape, generator=numbers).bfloat16() for shape in shapes)


def one_by_one(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, *, lengths: list[int]) -> torch.Tensor:
    """Return torch's attention of each sample, in float32."""
    samples = zip(*(torch.split(x.float(), lengths) for x in (query, key, value)), strict=True)
    mixed = [
        F.scaled_dot_product_attention(
            *(x.transpose(0, 1) for x in sample), is_causal=True, scale=SCALE, enable_gqa=True
        )
        for sample in samples
        if len(sample[0])
    ]
    return torch.cat([x.transpose(0, 1) for x in mixed])


@pytest.mark.parametrize("lengths", LENGTHS, ids=str)
def test_outputs_and_gradients_are_those_of_torch(lengths: list[int]) -> None:
    from nemo_reasoning.backend.attention import Samples, blocked_attention

    *arrays, gradient = inputs(lengths)
    ours = [x.clone().requires_grad_() for x in arrays]
    reference = [x.float().requires_grad_() for x in arrays]
    mixed = blocked_attention(*ours, samples=Samples(lengths), scale=SCALE)
    expected = one_by_one(*reference, lengths=lengths)
    torch.testing.assert_close(mixed.float(), expected, atol=0.03, rtol=0.03)
    found = torch.autograd.grad(mixed, ours, gradient)
    wanted = torch.autograd.grad(expected, reference, gradient.float())
    for mine, theirs in zip(found, wanted, strict=True):
        assert (mine.float() - theirs).norm() <= 0.02 * theirs.norm()


def test_a_sample_is_untouched_by_its_neighbours() -> None:
    from nemo_reasoning.backend.attention import Samples, blocked_attention

    lengths = [70, 190, 100]
    query, key, value, _ = inputs(lengths)
    whole = blocked_attention(query, key, value, samples=Samples(lengths), scale=SCALE)
    key[:70], value[:70] = 9.0, float("nan")
    after = blocked_attention(query, key, value, samples=Samples(lengths), scale=SCALE)
    assert after[:70].isnan().any()
    assert torch.equal(after[70:], whole[70:])


@settings(max_examples=50)
@given(lengths=st.lists(st.integers(0, 300), min_size=1, max_size=12))
def test_every_row_comes_back_and_every_block_is_computed_once(lengths: list[int]) -> None:
    from nemo_reasoning.backend.attention import BLOCK, Samples

    samples = Samples(lengths)
    layout = samples.layout(heads=HEADS, groups=GROUPS)
    for rows, back, heads in ((layout.queries, layout.queries_back, HEADS), (layout.keys, layout.keys_back, GROUPS)):
        assert torch.equal(rows[back], torch.arange(sum(lengths) * heads))
    assert len(layout.queries_back) + len(layout.padding) == len(layout.queries)
    blocks = [number for step in layout.steps for number in range(step.blocks.start, step.blocks.stop)]
    assert blocks == list(range(sum(-(-length // BLOCK) for length in lengths)))
    for step in layout.steps:
        count = step.samples.stop - step.samples.start
        assert count.bit_count() == 1
        assert count == step.blocks.stop - step.blocks.start
    for group in samples.groups:
        assert len({-(-lengths[sample] // BLOCK) for sample in group}) == 1
