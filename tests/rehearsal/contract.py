"""Compare the model of Transformer Engine's layers with that of the torch layers, on the meta device.

    REHEARSE_TE=1 PYTHONPATH=tests/rehearsal/stand_ins:TE:REPOSITORY python tests/rehearsal/contract.py MODEL:SCHEME ...

Prints for each what only one of the two has, as JSON: parameters with shape and dtype, keys of a distributed
checkpoint, names of trained parameters, and whether the loss over supervised positions could be put in. Last, what a
weight takes in FP8.
"""

import contextlib
import json
import os
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch


def main(pairs: list[str]) -> None:
    """Build both kinds of each model and scheme, and print the differences."""
    sys.path.insert(0, str(Path(__file__).parents[1]))
    from composing import asked_settings

    _one_process_on_meta()
    answers = {}
    for pair in pairs:
        model, scheme = pair.split(":")
        settings = asked_settings(f"model={model}", f"peft={scheme}", "hardware=gpu_80gb", "trainer.micro_batch_size=1")
        answers[pair] = _differences(settings)
    answers["FP8 bytes of a weight"] = _fp8_bytes()
    print(json.dumps(answers))


def _differences(settings: Any) -> dict[str, Any]:
    engine, ours = (_described(settings, torch_layers=torch_layers) for torch_layers in (False, True))
    return {
        "counts": {part: len(names) for part, names in engine.items()},
        "only Transformer Engine": {part: sorted(engine[part] - ours[part]) for part in engine},
        "only torch": {part: sorted(ours[part] - engine[part]) for part in engine},
    }


def _fp8_bytes() -> float:
    """Return the bytes of an entry of a weight that Transformer Engine keeps in FP8 for both passes."""
    import transformer_engine_torch as extension
    from transformer_engine.pytorch.tensor.float8_tensor import Float8Quantizer

    one = torch.ones(1)
    quantizer = Float8Quantizer(one, one, extension.DType.kFloat8E4M3, rowwise=True, columnwise=True)
    held = quantizer.make_empty((64, 32), dtype=torch.bfloat16, device=torch.device("cpu"))
    return sum(part.nbytes for part in (held._data, held._transpose)) / (64 * 32)


def _one_process_on_meta() -> None:
    from megatron.core import parallel_state
    from megatron.core.tensor_parallel import random

    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT="0", RANK="0", WORLD_SIZE="1")
    torch.distributed.init_process_group("gloo", rank=0, world_size=1, store=torch.distributed.HashStore())
    parallel_state.initialize_model_parallel(create_gloo_process_groups=False)
    cuda: Any = torch.cuda
    cuda.current_device = lambda: torch.device("meta")
    cuda.get_rng_state = lambda *_, **__: torch.get_rng_state()
    cuda.manual_seed = torch.manual_seed
    cuda.Stream = lambda *_, **__: None
    random._get_cuda_rng_state = lambda *_, **__: None
    random._set_cuda_rng_state = lambda *_, **__: None


def _described(settings: Any, *, torch_layers: bool) -> dict[str, set[str]]:
    from nemo.collections.llm import fn

    from nemo_reasoning.backend.no_te import NO_TE
    from nemo_reasoning.backend.patching import applied
    from nemo_reasoning.models.families import family_named
    from nemo_reasoning.training import nemo_objects
    from nemo_reasoning.training.callbacks.losses import install

    with contextlib.ExitStack() as stack:
        for patch in NO_TE if torch_layers else ():
            stack.enter_context(applied(patch))
        config = family_named(settings.model.architecture.family).nemo_config(settings.model.architecture)
        config.bf16, config.params_dtype, config.perform_initialization = True, torch.bfloat16, False
        config.init_model_with_meta_device = True
        model = config.configure_model(SimpleNamespace(vocab_size=settings.model.architecture.vocab_size))
        described = {"base parameters": _parameters(model), "base checkpoint": _checkpoint_keys(model)}
        before = model._postprocess
        install(model)
        described["loss"] = {"installed"} if model._postprocess is not before else set()
        model.requires_grad_(False)
        peft = nemo_objects.build_peft(settings.peft, seed=0)
        if peft is not None:
            peft._add_via_setattr = False
            fn.walk(model, peft.transform)
        described |= {"parameters": _parameters(model), "checkpoint": _checkpoint_keys(model)}
        described["trained"] = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    return described


def _parameters(model: torch.nn.Module) -> set[str]:
    return {f"{name} {tuple(p.shape)} {p.dtype}" for name, p in model.named_parameters()}


def _checkpoint_keys(model: Any) -> set[str]:
    from megatron.core.dist_checkpointing.dict_utils import nested_values
    from megatron.core.dist_checkpointing.mapping import ShardedObject, ShardedTensorFactory

    keys = set()
    for value in nested_values(model.sharded_state_dict(prefix="module.")):
        for part in nested_values(value.build()) if isinstance(value, ShardedTensorFactory) else [value]:
            is_object = isinstance(part, ShardedObject)
            keys.add(part.unique_key if is_object else f"{part.key} {tuple(part.global_shape)} {part.dtype}")
    return keys


if __name__ == "__main__":
    main(sys.argv[1:])
