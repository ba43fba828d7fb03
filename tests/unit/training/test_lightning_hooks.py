"""What the adapter to Lightning does around our callbacks."""

import torch

from nemo_reasoning.training.lightning_hooks import _evaluating


def test_evaluating_restores_modes_and_random_state() -> None:
    model = torch.nn.Sequential(torch.nn.Embedding(3, 4), torch.nn.Dropout(0.5)).train()
    model[0].eval()  # frozen parts may already be in evaluation mode
    state = torch.random.get_rng_state()
    with _evaluating(model):
        assert not model[1].training
        assert not torch.is_grad_enabled()
        torch.rand(3)

    assert torch.equal(torch.random.get_rng_state(), state)
    assert (model.training, model[0].training, model[1].training) == (True, False, True)
    assert torch.is_grad_enabled()
