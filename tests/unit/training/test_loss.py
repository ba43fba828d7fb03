"""The loss without all logits equals the plain one, and packed samples equal samples alone."""

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from tiny import save_tiny_llama

from nemo_reasoning.data.store import IGNORED_LABEL
from nemo_reasoning.training.loss import linear_cross_entropy, supervised_loss

ROWS, WIDTH, VOCABULARY = 37, 16, 101


def _inputs(dtype: torch.dtype = torch.float32) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    hidden = torch.randn(ROWS, WIDTH, generator=generator, dtype=dtype, requires_grad=True)
    weight = torch.randn(VOCABULARY, WIDTH, generator=generator, dtype=dtype)
    return hidden, weight, torch.randint(VOCABULARY, (ROWS,), generator=generator)


@pytest.mark.parametrize("trainable", [False, True], ids=["frozen", "trainable"])
@pytest.mark.parametrize("chunk_rows", [1, 10, 1000])
def test_losses_and_gradients_are_those_of_the_plain_loss(chunk_rows: int, trainable: bool) -> None:
    hidden, weight, labels = _inputs(torch.float64)
    weight.requires_grad_(trainable)
    scale = torch.linspace(-1, 2, ROWS, dtype=torch.float64)  # every position its own factor
    wanted = [hidden, weight] if trainable else [hidden]
    expected = F.cross_entropy(F.linear(hidden, weight), labels, reduction="none")
    expected_gradients = torch.autograd.grad((expected * scale).sum(), wanted)
    losses = linear_cross_entropy(hidden, weight, labels, chunk_bytes=4 * VOCABULARY * chunk_rows)
    gradients = torch.autograd.grad((losses * scale).sum(), wanted)
    torch.testing.assert_close(losses, expected.float(), atol=1e-5, rtol=1e-5)
    for found, known in zip(gradients, expected_gradients, strict=True):
        torch.testing.assert_close(found, known, atol=1e-5, rtol=1e-5)


def test_large_logits_do_not_overflow() -> None:
    hidden, weight, labels = _inputs()
    losses = linear_cross_entropy(hidden * 1e3, weight, labels)
    torch.testing.assert_close(losses, F.cross_entropy(F.linear(hidden * 1e3, weight), labels, reduction="none"))


def test_positions_without_a_label_cost_nothing_and_get_no_gradient() -> None:
    hidden, weight, labels = _inputs()
    grid = hidden.detach().reshape(ROWS, 1, WIDTH).requires_grad_()
    kept = torch.arange(ROWS) % 3 == 0
    losses = supervised_loss(grid, weight, labels.where(kept, IGNORED_LABEL)[None])
    losses.sum().backward()
    assert losses.shape == (1, ROWS)
    assert losses.is_contiguous()
    torch.testing.assert_close(
        losses[0, kept], F.cross_entropy(F.linear(hidden, weight), labels, reduction="none")[kept]
    )
    assert not losses[0, ~kept].any()
    assert not grid.grad[~kept].any()
    assert grid.grad[kept].any(dim=-1).all()
    assert grid.grad.stride() == grid.stride()  # odd strides would slow the whole backward pass down


def test_a_batch_without_a_label_still_has_a_gradient() -> None:
    hidden, weight, labels = _inputs()
    losses = supervised_loss(hidden[:, None], weight, torch.full_like(labels, IGNORED_LABEL)[None])
    losses.sum().backward()
    assert not hidden.grad.any()


def _batch(rows: list[tuple[torch.Tensor, torch.Tensor]], *, packed: bool) -> dict[str, torch.Tensor]:
    from nemo_reasoning.training.datamodule import collate_packed, collate_padded

    arrays = [(ids.numpy(), mask.numpy()) for ids, mask in rows]
    return (collate_packed if packed else collate_padded)(arrays, pad_id=0, pad_to=16)


@pytest.mark.slow
def test_a_packed_batch_has_the_loss_and_the_lora_gradients_of_its_samples_alone(
    tmp_path: Path, nemo_cpu: None
) -> None:
    """Samples of 60, 50, 20, 9 and 4 tokens: two groups in attention, and padding behind the last."""
    from nemo.collections.llm.peft import LoRA

    from nemo_reasoning.models.importer import convert
    from nemo_reasoning.models.loading import open_nemo_model
    from nemo_reasoning.training.callbacks.losses import install

    generator = torch.Generator().manual_seed(2)
    rows = [
        (torch.randint(200, (length,), generator=generator), torch.rand(length, generator=generator) < 0.6)
        for length in (60, 50, 20, 9, 4)
    ]
    convert(save_tiny_llama(tmp_path / "hf"), tmp_path / "nemo", "float32")
    with open_nemo_model(tmp_path / "nemo") as model:
        install(model)
        torch.manual_seed(3)
        adapted = LoRA(dim=4, alpha=8, dropout=0.0)(model)
        trained = [weight.requires_grad_() for name, weight in adapted.named_parameters() if ".adapter." in name]
        for weight in trained:  # NeMo freezes them as well outside of training, and begins with zeros
            torch.nn.init.normal_(weight, std=0.1)

        def gradients(batches: list[dict[str, torch.Tensor]]) -> tuple[float, list[torch.Tensor]]:
            losses = [(adapted.forward_step(batch) * batch["loss_mask"]).sum() for batch in batches]
            return float(sum(losses)), list(torch.autograd.grad(sum(losses), trained))

        alone = gradients([_batch([row], packed=False) for row in rows])
        for packed in (True, False):
            together = gradients([_batch(rows, packed=packed)])
            assert together[0] == pytest.approx(alone[0], rel=1e-5)
            assert len(trained) == 2 * 4 * 2
            for found, known in zip(together[1], alone[1], strict=True):
                torch.testing.assert_close(found, known, atol=1e-4, rtol=1e-4)
