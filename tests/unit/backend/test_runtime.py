import importlib.util

import pytest
import torch

from nemo_reasoning.backend.no_cuda import NO_CUDA, TORCH_OPTIMIZER
from nemo_reasoning.backend.no_te import NO_TE
from nemo_reasoning.backend.patching import Patch, applied
from nemo_reasoning.backend.runtime import Backend, backend, resolve
from nemo_reasoning.backend.trust import TRUST
from nemo_reasoning.errors import BackendError


class _Owner:
    kept = 1


def test_a_patch_restores_old_values_and_removes_new_ones() -> None:
    patch = Patch("sample", "nothing", lambda: [(_Owner, "kept", 2), (_Owner, "fresh", 3)])
    with applied(patch):
        assert (_Owner.kept, _Owner.fresh) == (2, 3)
    assert _Owner.kept == 1
    assert not hasattr(_Owner, "fresh")


def test_a_patch_is_undone_when_the_block_fails() -> None:
    with pytest.raises(ZeroDivisionError), applied(Patch("sample", "nothing", lambda: [(_Owner, "kept", 2)])):
        raise ZeroDivisionError
    assert _Owner.kept == 1


def _values(patches: tuple[Patch, ...]) -> list[object]:
    return [vars(owner).get(name) for patch in patches for owner, name, _ in patch.replacements()]


def test_every_patch_is_named_documented_and_undone() -> None:
    patches = (*NO_CUDA, TORCH_OPTIMIZER, *NO_TE, *TRUST)
    before = _values(patches)
    with backend(cuda=False, transformer_engine=False) as active:
        assert set(active.patches) == {patch.name for patch in patches} | {"cuda-on-cpu"}
        assert torch.zeros(2, device="cuda").device.type == "cpu"
    assert all(patch.answers for patch in patches)
    assert _values(patches) == before
    assert not torch.overrides._get_current_function_mode_stack()


def test_applying_twice_changes_nothing() -> None:
    with backend(cuda=False, transformer_engine=False) as outer:
        held = _values(NO_CUDA + NO_TE)
        with backend(cuda=False, transformer_engine=False) as inner:
            assert inner is outer
            assert _values(NO_CUDA + NO_TE) == held
        assert _values(NO_CUDA + NO_TE) == held


def test_a_nested_call_cannot_ask_for_something_else(monkeypatch: pytest.MonkeyPatch) -> None:
    with backend(cuda=False, transformer_engine=False):
        monkeypatch.setattr("torch.cuda.is_available", lambda: True)
        with pytest.raises(BackendError, match="leave its block"), backend():
            pass


def test_only_reading_is_patched_where_cuda_and_transformer_engine_are_present(monkeypatch: pytest.MonkeyPatch) -> None:
    found = importlib.util.find_spec
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr(
        "importlib.util.find_spec", lambda name: object() if name == "transformer_engine" else found(name)
    )
    with backend() as active:
        assert active == Backend(cuda=True, transformer_engine=True, patches=("contexts", "pickles"))


def test_the_switches_are_independent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    with backend() as active:
        assert active.cuda
        assert not active.transformer_engine
        assert set(active.patches) == {patch.name for patch in (*NO_TE, *TRUST)}


def test_demanding_what_is_absent_is_refused() -> None:
    with pytest.raises(BackendError, match="backend.cuda"):
        resolve(cuda=True)
    with pytest.raises(BackendError, match="backend.transformer_engine"):
        resolve(transformer_engine=True)
