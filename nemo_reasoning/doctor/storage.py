"""Verdicts on memory, disks, model and data."""

from collections.abc import Iterator

from nemo_reasoning.doctor.facts import Access, Disk, Machine, Source
from nemo_reasoning.doctor.needs import Needs
from nemo_reasoning.doctor.verdicts import Check, Verdict, judged

_GRANTED = (Access.here, Access.granted)


def check_storage(machine: Machine, needs: Needs) -> Iterator[Check]:
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
    yield from _check_disks(machine, needs)


def _check_disks(machine: Machine, needs: Needs) -> Iterator[Check]:
    """Yield a check for each file system; folders on the same one share its room."""
    downloaded = not needs.hub or any(s.key == "model.source" and s.access is Access.here for s in machine.sources)
    wanted: list[tuple[Disk, float, str]] = [
        (machine.outputs, needs.output_gb, "data and checkpoints"),
        (machine.cache, 0.0 if machine.imported else needs.cache_gb, "the base model in NeMo's format"),
        (machine.downloads, 0.0 if downloaded else needs.download_gb, "the download"),
    ]
    for device in dict.fromkeys(disk.device for disk, _, _ in wanted):
        here = [(disk, size, use) for disk, size, use in wanted if disk.device == device and size]
        if here:
            free, needed = here[0][0].free_gb, sum(size for _, size, _ in here)
            yield judged(
                "disk",
                f"{free:.1f} GiB free for {', '.join(disk.path for disk, _, _ in here)}",
                f"{needed:.1f} GiB: {', '.join(f'{use} {size:.1f}' for _, size, use in here)}",
                holds=free >= needed,
                remedy="free some, or set output_dir=, cache_dir= and HF_HOME to folders on a larger disk",
            )


def check_sources(machine: Machine, needs: Needs) -> Iterator[Check]:
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
