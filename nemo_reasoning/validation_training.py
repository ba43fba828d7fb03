"""Checks of how a model is trained: each returns the problems it finds, every one with its remedy."""

from nemo_reasoning.config import LORA_TARGETS, PeftScheme, PeftSettings, TrainerSettings


def check_peft(peft: PeftSettings, trainer: TrainerSettings) -> list[str]:
    """Return what cannot work about an adapter, or the lack of one."""
    if peft.scheme is PeftScheme.none:
        given = {"dim": peft.dim, "alpha": peft.alpha, "dropout": peft.dropout, "target_modules": peft.target_modules}
        return [
            f"peft.{key}={value}: peft=none trains every weight and has no adapter; leave it out, or choose peft=lora"
            for key, value in given.items()
            if value
        ]
    problems = []
    unknown = sorted(set(peft.target_modules) - set(LORA_TARGETS))
    if unknown or not peft.target_modules:
        problems.append(f"peft.target_modules={unknown or '[]'}: choose from {', '.join(LORA_TARGETS)}")
    return problems + (_check_dora(peft, trainer) if peft.scheme is PeftScheme.dora else [])


def _check_dora(peft: PeftSettings, trainer: TrainerSettings) -> list[str]:
    """Return what NeMo's DoRA gets wrong."""
    problems = []
    if peft.dropout > 0:
        problems.append(
            f"peft.dropout={peft.dropout} with peft=dora: NeMo's DoRA normalises the dropped-out input of linear_qkv "
            "and linear_fc1 a second time; set peft.dropout=0"
        )
    if trainer.tensor_model_parallel_size > 1:
        problems.append(
            f"trainer.tensor_model_parallel_size={trainer.tensor_model_parallel_size} with peft=dora: NeMo's DoRA "
            "takes the norm over one rank's share of a weight; set it to 1, or choose peft=lora"
        )
    return problems
