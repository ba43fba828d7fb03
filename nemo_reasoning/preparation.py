"""What recipes/prepare_data.py does."""

from pathlib import Path

from rich.console import Console
from rich.table import Table

from nemo_reasoning.config import PrepareSettings
from nemo_reasoning.data.chat import ChatFormatter, load_template
from nemo_reasoning.data.prepare.preview import show, write_page
from nemo_reasoning.data.prepare.run import prepare_data, preview_data
from nemo_reasoning.models.source import fetch_tokenizer


def run_command(settings: PrepareSettings, console: Console) -> None:
    """Show some rows, or prepare all and print a summary.

    Args:
        settings: The command's, validated.
        console: Where to print.
    """
    out, model = Path(settings.output_dir), settings.model
    tokenizer = fetch_tokenizer(model.source, revision=model.revision, cache_dir=Path(settings.cache_dir).expanduser())
    formatter = ChatFormatter.load(tokenizer, template=load_template(model.template))
    if settings.preview:
        samples = preview_data(
            settings.data, formatter=formatter, seq_length=settings.seq_length, count=settings.preview
        )
        show(samples, console)
        page = out.with_name(f"{out.name}.preview.html")
        write_page(samples, page)
        console.print(f"the same as a page: {page}")
        return
    manifest = prepare_data(
        settings.data, formatter=formatter, seq_length=settings.seq_length, out=out, tell=console.print
    )
    counts = manifest["counts"]
    console.print(_table(counts))
    console.print(f"tokenised with {counts['tokenizer']}; report: {out / 'report.html'}")


def _table(counts: dict[str, dict[str, dict[str, int]]]) -> Table:
    """Return where every row went."""
    table = Table("outcome", *counts["outcomes"])
    names = sorted({name for outcomes in counts["outcomes"].values() for name in outcomes})
    for name in names:
        table.add_row(name, *(f"{outcomes.get(name, 0):,}" for outcomes in counts["outcomes"].values()))
    return table
