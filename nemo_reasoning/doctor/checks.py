"""Verdicts: what was found against what is needed. Pure functions of facts."""

from collections.abc import Iterator

from nemo_reasoning.doctor.facts import Machine
from nemo_reasoning.doctor.needs import Needs
from nemo_reasoning.doctor.software import check_software
from nemo_reasoning.doctor.storage import check_sources, check_storage
from nemo_reasoning.doctor.verdicts import Check, Verdict, judged


def judge(machine: Machine, needs: Needs) -> list[Check]:
    """Return every check of a machine that matters for a training."""
    return [
        *_check_plan(needs),
        *_check_gpus(machine, needs),
        *check_storage(machine, needs),
        *check_software(machine, needs),
        *check_sources(machine, needs),
    ]


def _check_plan(needs: Needs) -> Iterator[Check]:
    yield judged("plan", needs.plan, "settings that fit", holds=needs.problem is None, remedy=needs.problem or "")


def _check_gpus(machine: Machine, needs: Needs) -> Iterator[Check]:
    gpus = machine.gpus
    found = ", ".join(dict.fromkeys(gpu.name for gpu in gpus)) or "none"
    found = f"{len(gpus)} x {found}" if len(gpus) > 1 else found
    if needs.on_cpu:
        yield judged(
            "GPU",
            found,
            "none",
            holds=not gpus,
            remedy="a GPU lies idle; leave out hardware=cpu to use it",
            otherwise=Verdict.warn,
        )
        return
    wanted = f"{needs.devices}" if needs.devices > 1 else "one"
    yield judged(
        "GPU",
        found,
        wanted,
        holds=len(gpus) >= needs.devices,
        remedy="run it on a machine with enough NVIDIA GPUs (in a container: --gpus all), lower trainer.devices, or "
        "choose a small model with hardware=cpu",
    )
    if gpus:
        yield from _check_memory(machine, needs)
        yield from _check_driver(machine)
        yield from _check_arithmetic(machine, needs)
    if len(gpus) >= needs.devices > 1:
        yield judged(
            "NVLink",
            {True: "yes", False: "no", None: "unknown"}[machine.nvlink],
            "yes, between GPUs that share a model",
            holds=machine.nvlink is True,
            remedy="tensor parallelism over PCIe is slow; prefer pipeline parallelism, or one GPU each",
            otherwise=Verdict.warn,
        )


def _check_memory(machine: Machine, needs: Needs) -> Iterator[Check]:
    known = [gpu.memory_gb for gpu in machine.gpus[: needs.devices] if gpu.memory_gb is not None]
    needed = "unknown until the model is downloaded" if needs.gpu_gb is None else f"{needs.gpu_gb:.1f} GiB"
    if not known:
        remedy = "the driver does not tell; name hardware= yourself, smaller than what the GPU has"
        yield Check("GPU memory", "unknown", needed, Verdict.warn, remedy)
        return
    yield judged(
        "GPU memory",
        f"{min(known):.1f} GiB",
        needed,
        holds=needs.gpu_gb is None or min(known) >= needs.gpu_gb,
        remedy="choose hardware=auto, trainer.micro_batch_size=1, trainer.recompute=full, peft=qlora, or fewer "
        "trainer.seq_length; docs/memory.md says what fits",
    )


def _check_driver(machine: Machine) -> Iterator[Check]:
    yield Check("driver", machine.driver or "unknown", "any that serves torch's CUDA", Verdict.ok)
    torch = machine.torch
    if torch is None:
        return  # its absence is reported with the packages
    if torch.cuda is None:
        yield Check(
            "CUDA",
            f"torch {torch.version} is built without",
            "a torch with CUDA",
            Verdict.fail,
            "use NVIDIA's container (docs/version-matrix.md), or install torch for CUDA",
        )
        return
    old = machine.driver_cuda is not None and int(machine.driver_cuda.split(".")[0]) < int(torch.cuda.split(".")[0])
    yield judged(
        "CUDA",
        f"driver serves {machine.driver_cuda or 'unknown'}",
        f"{torch.cuda}, which torch was built for",
        holds=torch.available and not old,
        remedy="update NVIDIA's driver, or take an older container; `nvidia-smi` shows what the driver serves",
    )


def _check_arithmetic(machine: Machine, needs: Needs) -> Iterator[Check]:
    capabilities = [gpu.capability for gpu in machine.gpus[: needs.devices] if gpu.capability is not None]
    if not capabilities:
        return
    lowest = min(capabilities)
    found = ".".join(str(part) for part in lowest)
    yield judged(
        "compute capability",
        found,
        "8.0 for Transformer Engine",
        holds=lowest >= (8, 0),
        remedy="set backend.transformer_engine=false: torch's layers run on older GPUs, slowly",
        otherwise=Verdict.warn,
    )
    if needs.bf16:
        able = lowest >= (8, 0) and (machine.torch is None or not machine.torch.available or machine.torch.bf16)
        remedy = "set trainer.precision=32, which takes twice the memory"
        yield judged(
            "bfloat16", "yes" if able else "no", "yes: trainer.precision=bf16-mixed", holds=able, remedy=remedy
        )
