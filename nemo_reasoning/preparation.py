"""What recipes/prepare_data.py does."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.table import Table

from nemo_reasoning.config.data import Executor, PrepareSettings
from nemo_reasoning.data.prepare.executors import WITHOUT_TORCH, start_server
from nemo_reasoning.data.prepare.inputs import check_local_files
from nemo_reasoning.errors import harmless
from nemo_reasoning.models.hub import fetch_tokenizer

if TYPE_CHECKING:
    from nemo_reasoning.data.chat import ChatFormatter


def run_command(settings: PrepareSettings, console: Console) -> None:
    """Show some rows, or prepare all and print a summary.

    Args:
        settings: The command's, validated.
        console: Where to print.
    """
    check_local_files(settings.data)
    if settings.data.engine is Executor.local and settings.data.workers != 1 and not settings.preview:
        start_server()
    model, cache_dir = settings.model, Path(settings.cache_dir).expanduser()
    tokenizer = fetch_tokenizer(model.source, revision=model.revision, cache_dir=cache_dir)
    os.environ.update(WITHOUT_TORCH)  # from here on, so these modules are imported here
    from nemo_reasoning.data.chat import ChatFormatter, load_template

    formatter = ChatFormatter.load(tokenizer, template=load_template(model.template))
    if settings.preview:
        _preview(settings, formatter, console)
    else:
        _prepare(settings, formatter, console)


def _preview(settings: PrepareSettings, formatter: "ChatFormatter", console: Console) -> None:
    from nemo_reasoning.data.prepare.pipeline import preview_data
    from nemo_reasoning.data.prepare.preview import show, write_page

    out = Path(settings.output_dir)
    samples = preview_data(settings.data, formatter=formatter, seq_length=settings.seq_length, count=settings.preview)
    show(samples, console)
    page = out.with_name(f"{out.name}.preview.html")
    write_page(samples, page)
    console.print(f"the same as a page: {page}")


def _prepare(settings: PrepareSettings, formatter: "ChatFormatter", console: Console) -> None:
    from nemo_reasoning.data.prepare.pipeline import prepare_data

    out, tell = Path(settings.output_dir), teller(console)
    manifest = prepare_data(settings.data, formatter=formatter, seq_length=settings.seq_length, out=out, tell=tell)
    counts = manifest["counts"]
    console.print(_table(counts))
    console.print(f"tokenised with {counts['tokenizer']}; report: {out / 'report.html'}", soft_wrap=True)


def teller(console: Console) -> Callable[[str], None]:
    """Return what prints a line of progress, warnings in yellow."""

    def tell(line: str) -> None:
        style = "yellow" if line.startswith("warning: ") else None
        console.print(harmless(line), style=style, soft_wrap=True)

    return tell


def _table(counts: dict[str, Any]) -> Table:
    """Return where every row went, by subset and mode."""
    by_mode: dict[str, dict[str, dict[str, int]]] = counts["outcomes_by_mode"]
    groups = [(subset, mode, ends) for subset, modes in by_mode.items() for mode, ends in modes.items()]
    table = Table("outcome", *(f"{subset}, {mode}" for subset, mode, _ in groups))
    for name in sorted({name for _, _, ends in groups for name in ends}, key=lambda name: (name != "kept", name)):
        table.add_row(name, *(f"{ends.get(name, 0):,}" for _, _, ends in groups))
    return table
