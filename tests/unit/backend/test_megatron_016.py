"""The call of Megatron-Core's optimizer as 0.16 has it. Tests of whole runs on 0.16 are in tests/rehearsal."""

import pytest
from megatron.core import optimizer

from nemo_reasoning.backend.megatron_016 import OPTIMIZER_CALL, TENSORSTORE, needed
from nemo_reasoning.backend.patching import applied
from nemo_reasoning.errors import BackendError


def optimizer_of_0_16(config, model_chunks, config_overrides=None, use_gloo_process_groups=True, pg_collection=None):  # type: ignore[no-untyped-def]
    return config, model_chunks, use_gloo_process_groups


def test_the_installed_release_needs_no_patch() -> None:
    assert needed() == ()


def test_nemos_keywords_are_dropped_at_their_defaults_and_refused_otherwise(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(optimizer, "get_megatron_optimizer", optimizer_of_0_16)
    assert needed() == (OPTIMIZER_CALL,)

    with applied(OPTIMIZER_CALL):
        call = optimizer.get_megatron_optimizer
        defaults = {"no_weight_decay_cond": None, "scale_lr_cond": None, "lr_mult": 1.0}
        assert call("config", ["model"], **defaults, use_gloo_process_groups=False) == ("config", ["model"], False)
        for changed in ({"no_weight_decay_cond": len}, {"scale_lr_cond": len}, {"lr_mult": 2.0}):
            with pytest.raises(BackendError, match=rf"{next(iter(changed))}.*Megatron-Core 0\.15"):
                call("config", ["model"], **{**defaults, **changed})


def test_the_module_that_is_gone_can_be_imported_and_not_used() -> None:
    with applied(TENSORSTORE):
        from megatron.core.dist_checkpointing.strategies import tensorstore

        with pytest.raises(BackendError, match="zarr"):
            _ = tensorstore.TensorStoreLoadShardedStrategy
