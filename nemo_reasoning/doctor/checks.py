"""Verdicts: what was found against what is needed. Pure functions of facts."""

from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum

from nemo_reasoning.backend.versions import REMEDY, SUPPORTED
from nemo_reasoning.doctor.facts import OWN_CONTAINER, Access, Disk, Machine, Source
from nemo_reasoning.doctor.needs import Needs

_OLDEST_PYTHON = (3, 11)
_ALWAYS = ("torch", "lightning", "transformers", "hydra-core", "huggingface_hub")
_GRANTED = (Access.here, Access.granted)


class Verdict(Enum):
    """What a check comes to; only `fail` keeps a training from running."""

    ok = "ok"
    warn = "warn"
    fail = "fail"


@dataclass(frozen=True)
class Check:
    """One line of the doctor's answer.

    Attributes:
        name: What was looked at.
        found: What is there.
        needed: What there should be.
        verdict: What that comes to.
        remedy: What to do about it; empty where nothing is to be done.
    """

    name: str
    found: str
    needed: str
    verdict: Verdict
    remedy: str = ""


def judged(name: str, found: str, needed: str, *, holds: bool, remedy: str, otherwise: Verdict = Verdict.fail) -> Check:
    """Return a check that is ok if something holds, and otherwise says what to do."""
    return Check(name, found, needed, Verdict.ok if holds else otherwise, "" if holds else remedy)


def judge(machine: Machine, needs: Needs) -> list[Check]:
    """Return every check of a machine that matters for a training."""
    return [
        *_check_plan(needs),
        *_check_gpus(machine, needs),
        *_check_storage(machine, needs),
        *_check_software(machine, needs),
        *_check_sources(machine, needs),
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
    hidden = "" if machine.visible is None else f"CUDA_VISIBLE_DEVICES={machine.visible} hides others: unset it; or "
    yield judged(
        "GPU",
        found,
        wanted,
        holds=len(gpus) >= needs.devices,
        remedy=f"{hidden}run it on a machine with enough NVIDIA GPUs (in a container: --gpus all), lower "
        "trainer.devices, or choose a small model with hardware=cpu",
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


def _check_software(machine: Machine, needs: Needs) -> Iterator[Check]:
    """Yield the checks of Python, container and packages."""
    version = tuple(int(part) for part in machine.python.split(".")[:2])
    yield judged(
        "Python", machine.python, "3.11 or newer", holds=version >= _OLDEST_PYTHON, remedy="install a newer Python"
    )
    yield judged(
        "container",
        machine.container or "none",
        "any" if needs.on_cpu else "NVIDIA's NeMo container",
        holds=needs.on_cpu or machine.container not in (None, OWN_CONTAINER),
        remedy="docs/version-matrix.md names the container whose versions work together",
        otherwise=Verdict.warn,
    )
    for name, wanted in SUPPORTED.items():
        problem = machine.problems.get(name)
        found = machine.packages.get(name) or "not installed"
        yield judged(name, found, wanted, holds=problem is None, remedy=f"{problem} {REMEDY}")
    yield from _check_packages(machine, needs)


def _check_packages(machine: Machine, needs: Needs) -> Iterator[Check]:
    needed = [*_ALWAYS, *(["bitsandbytes"] if needs.quantised else [])]
    missing = [name for name in needed if machine.packages.get(name) is None]
    listed = ", ".join(f"{name} {machine.packages[name]}" for name in needed if name not in missing)
    yield judged(
        "packages",
        listed or "none",
        ", ".join(needed),
        holds=not missing,
        remedy=f"{', '.join(missing)} missing. {REMEDY}",
    )
    if not needs.on_cpu and not needs.quantised:
        engine = machine.packages.get("transformer-engine")
        yield judged(
            "Transformer Engine",
            engine or "not installed",
            "for speed",
            holds=engine is not None,
            remedy="torch's layers take its place, slower; NVIDIA's container has it",
            otherwise=Verdict.warn,
        )


def _check_storage(machine: Machine, needs: Needs) -> Iterator[Check]:
    """Yield the checks of main memory and of every disk that is written to."""
    importing = 0.0 if machine.imported else needs.import_gb
    needed = max(needs.ram_gb, importing)
    purpose = "to import the base model, once" if importing > needs.ram_gb else "to train"
    enough = machine.ram_gb >= needed
    remedy = "take a machine with more memory, or a smaller model"
    if enough:
        remedy = "something else uses it; stop that, or the run may be killed"
    yield judged(
        "RAM",
        f"{machine.ram_gb:.1f} GiB, {machine.ram_free_gb:.1f} free",
        f"{needed:.1f} GiB {purpose}",
        holds=machine.ram_free_gb >= needed,
        remedy=remedy,
        otherwise=Verdict.warn if enough else Verdict.fail,
    )
    yield judged(
        "RAM to export",
        f"{machine.ram_gb:.1f} GiB",
        f"{needs.export_gb:.1f} GiB to compare logits" if needs.export_gb else "unknown until the model is downloaded",
        holds=machine.ram_gb >= needs.export_gb,
        remedy="training runs; export on a machine with more memory, or without the comparison: verify=false",
        otherwise=Verdict.warn,
    )
    yield from _check_disks(machine, needs)


def _check_disks(machine: Machine, needs: Needs) -> Iterator[Check]:
    """Yield a check for each file system; folders on the same one share its room."""
    downloaded = not needs.hub or any(s.key == "model.source" and s.access is Access.here for s in machine.sources)
    wanted: list[tuple[Disk, float, str]] = [
        (machine.outputs, needs.output_gb, "data and checkpoints"),
        (machine.cache, 0.0 if machine.imported else needs.cache_gb, "the base model in NeMo's format"),
        (machine.downloads, 0.0 if downloaded else needs.download_gb, "the download"),
    ]
    for disk, size, use in wanted:
        if disk.problem and size:
            remedy = "set output_dir=, cache_dir= (NEMO_REASONING_CACHE) or HF_HOME to a folder of your own"
            yield Check("folder", f"{disk.path}: {disk.problem}", f"room for {use}", Verdict.fail, remedy)
    usable = [one for one in wanted if not one[0].problem]
    for device in dict.fromkeys(disk.device for disk, _, _ in usable):
        here = [(disk, size, use) for disk, size, use in usable if disk.device == device and size]
        if here:
            free, needed = here[0][0].free_gb, sum(size for _, size, _ in here)
            yield judged(
                "disk",
                f"{free:.1f} GiB free for {', '.join(disk.path for disk, _, _ in here)}",
                f"{needed:.1f} GiB: {', '.join(f'{use} {size:.1f}' for _, size, use in here)}",
                holds=free >= needed,
                remedy="free some, or set output_dir=, cache_dir= and HF_HOME to folders on a larger disk",
            )


def _check_sources(machine: Machine, needs: Needs) -> Iterator[Check]:
    """Yield the checks of model, data and the hub's token."""
    remote = [source for source in machine.sources if source.access is not Access.here]
    asks_hub = any(source.key == "data.root" or needs.hub for source in remote)
    if asks_hub:
        yield judged(
            "hub token",
            "yes" if machine.token else "none",
            "for gated and private repositories",
            holds=machine.token,
            remedy="set HF_TOKEN, or run `hf auth login`",
            otherwise=Verdict.warn,
        )
    for source in machine.sources:
        name = "base model" if source.key == "model.source" else "data"
        yield judged(
            name,
            f"{source.name}: {source.access.value}" + (f" ({source.detail})" if source.detail else ""),
            "readable",
            holds=source.access in _GRANTED,
            remedy=_remedy(source),
        )


def _remedy(source: Source) -> str:
    if source.access is Access.gated:
        page = f"https://huggingface.co/{source.name}"
        return f"accept the licence at {page} and set HF_TOKEN to a token of the same account"
    if source.access is Access.missing:
        return f"check the spelling of {source.key}; a private repository needs HF_TOKEN. {source.detail}".rstrip()
    model = source.key == "model.source"
    own = "model=hf_local model.source=/its/directory" if model else "data=local data.root=/its/copy"
    return f"check the network and HF_HUB_OFFLINE, or download it elsewhere and use {own}"
