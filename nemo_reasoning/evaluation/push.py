"""Upload exports and prepared data to a hub, each with a card that the hub accepts."""

import json
import textwrap
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from huggingface_hub import CommitOperationAdd, DatasetCard, EvalResult, HfApi, ModelCard
from rich.console import Console

from nemo_reasoning.artifacts import MANIFEST, portable, read_manifest
from nemo_reasoning.config.push import Pushed, PushSettings
from nemo_reasoning.errors import ExportError, NemoReasoningError
from nemo_reasoning.evaluation.report.training import evaluation_path, measurement
from nemo_reasoning.evaluation.samples import Evaluation
from nemo_reasoning.evaluation.scores import score
from nemo_reasoning.export.from_run import holds_export
from nemo_reasoning.export.serve_commands import is_hub_id
from nemo_reasoning.reasoning.messages import Mode
from nemo_reasoning.training.checkpoints import content_id
from nemo_reasoning.training.run_dir import Run

_CARD, _LONGEST_REASON = "README.md", 800
_DATA = ("training.jsonl", "validation.jsonl", MANIFEST)
MODES: tuple[Mode, ...] = ("on", "off")


@dataclass(frozen=True)
class Upload:
    """What goes to a hub.

    Attributes:
        repo: Where to, owner/name.
        repo_type: "model" or "dataset".
        files: Files, or the content of one, by their path in the repository; without the card.
        card: Text of README.md.
        note: What the card leaves out, and why.
    """

    repo: str
    repo_type: str
    files: dict[str, Path | bytes]
    card: str
    note: str = ""


def prepare_upload(settings: PushSettings) -> Upload:
    """Return what settings ask to upload; nothing is sent.

    Raises:
        ExportError: It does not exist, or nobody elsewhere could use it; with the remedy.
    """
    run = Run.open(Path(settings.checkpoint))
    if settings.what is Pushed.data:
        missing = [name for name in _DATA if not (run.data / name).is_file()]
        if missing:
            raise ExportError(f"{run.data} has no {', '.join(missing)}; prepare it with data.messages=true")
        files: dict[str, Path | bytes] = {name: run.data / name for name in _DATA}
        files[MANIFEST] = json.dumps(portable(read_manifest(run.data)), indent=2, ensure_ascii=False).encode()
        return Upload(settings.repo, "dataset", files, str(_data_card(run, settings)))
    folder = run.export_dir / settings.what.value
    if not holds_export(run, settings.what.value):
        raise ExportError(
            f"{run.export_dir} does not hold the best checkpoint as {settings.what.value}; export it first: "
            f"recipes/export.py checkpoint={run.path} 'formats=[{settings.what.value}]'"
        )
    base, merged = run.settings.model.source, run.settings.peft.merges_start
    if settings.what is Pushed.hf_peft and (merged or not is_hub_id(base)):
        raise ExportError(
            f"{run.path} was trained on {base}{' with an adapter merged into it' if merged else ''}, which nobody "
            "finds on a hub: an adapter is of no use without its base; set what=merged"
        )
    files = {path.name: path for path in sorted(folder.iterdir()) if path.is_file() and path.name != _CARD}
    card = str(_model_card(run, folder, settings))
    return Upload(settings.repo, "model", files, card, note=_outdated(run))


def _model_card(run: Run, folder: Path, settings: PushSettings) -> ModelCard:
    """Return the export's own card with license, data and measurements in it."""
    card = ModelCard((folder / _CARD).read_text(encoding="utf-8"), ignore_metadata_errors=False)
    known: Any = card.data
    known.license = settings.license
    known.datasets = settings.datasets or None
    if results := list(_results(run)):
        known.model_name = settings.repo.partition("/")[2]
        known.eval_results = results
    return card


def _outdated(run: Run) -> str:
    """Say if there are measurements, but not of the best checkpoint; nothing otherwise."""
    path = evaluation_path(run.path, "trained")
    if not path.is_file() or _measured_weights(run) == content_id(run.selected()[0]):
        return ""
    return (
        f"left out: the measurements in {path}, which are not known to be of the best checkpoint; the training's "
        "command, with evaluate=, measures it"
    )


def _measured_weights(run: Run) -> str | None:
    weights: str | None = measurement(run.path, "trained").get("of", {}).get("weights")
    return weights


def _results(run: Run) -> Iterator[EvalResult]:
    """Yield what was measured of these very weights on the held-out problems, and nothing else."""
    if _measured_weights(run) != content_id(run.selected()[0]):
        return
    measured = Evaluation.load(evaluation_path(run.path, "trained"))
    for mode in MODES:
        if found := measured.of(mode):
            yield EvalResult(
                task_type="text-generation",
                dataset_type="built-in",
                dataset_name=f"held-out built-in problems, thinking {mode}",
                dataset_config=f"thinking_{mode}",
                metric_type="accuracy",
                metric_name=f"accuracy of {len(found)} answers",
                metric_value=round(score(found).accuracy, 4),
            )


def _data_card(run: Run, settings: PushSettings) -> DatasetCard:
    counts: Any = read_manifest(run.data)["counts"]
    sources = "".join(f", from {name}" for name in settings.datasets)
    license_line = f"license: {settings.license}\n" if settings.license else ""
    return DatasetCard(
        f"""---
{license_line}task_categories: [text-generation]
tags: [reasoning, nemo]
configs:
- config_name: default
  data_files:
  - split: train
    path: training.jsonl
  - split: validation
    path: validation.jsonl
---

# Chats with a thinking switch

{counts["train"]["rows"]:,} training and {counts["validation"]["rows"]:,} validation rows of messages, prepared with
nemo-reasoning{sources}. The system turn says whether the last answer thinks; the thinking stands between `<think>` and
`</think>`. The licenses of the rows' sources apply. `manifest.json` says what was read, kept and left out.
""",
        ignore_metadata_errors=False,
    )


def push(settings: PushSettings, console: Console) -> None:
    """Show what would be uploaded, or upload it in one commit.

    Raises:
        ExportError: There is nothing to upload, or the hub refuses it; with its reason.
    """
    upload = prepare_upload(settings)
    console.print(f"{upload.repo_type} {upload.repo}{' (private)' if settings.private else ''}", markup=False)
    for name, content in upload.files.items():
        size = len(content) if isinstance(content, bytes) else content.stat().st_size
        console.print(f"  {name}  {size:,} bytes", markup=False)
    if upload.note:
        console.print(f"  {upload.note}", markup=False)
    if settings.dry_run:
        console.print(f"  {_CARD}:\n\n{upload.card}\nnothing was sent; dry_run=false uploads it", markup=False)
        return
    console.print(f"uploaded: {_send(upload, settings)}", markup=False)


def _send(upload: Upload, settings: PushSettings) -> str:
    from huggingface_hub.errors import HfHubHTTPError, LocalTokenNotFoundError
    from requests import RequestException

    api = HfApi()
    operations = [
        *(CommitOperationAdd(name, content) for name, content in upload.files.items()),
        CommitOperationAdd(_CARD, upload.card.encode()),
    ]
    try:
        api.create_repo(upload.repo, private=settings.private, exist_ok=True, repo_type=upload.repo_type)
        commit = api.create_commit(
            upload.repo,
            operations,
            commit_message=f"Upload {settings.what.value} with nemo-reasoning",
            revision=settings.revision,
            repo_type=upload.repo_type,
        )
    except (LocalTokenNotFoundError, HfHubHTTPError, RequestException, OSError, ValueError) as error:
        raise _explained(error, upload, settings.revision) from error
    return str(commit.commit_url)


def _explained(error: Exception, upload: Upload, revision: str | None) -> NemoReasoningError:
    status = getattr(getattr(error, "response", None), "status_code", None)
    reason = textwrap.shorten(str(error), _LONGEST_REASON) or type(error).__name__
    if status in (401, 403):
        return ExportError(
            f"the hub does not let you write to {upload.repo} ({status}); set HF_TOKEN to a token that may"
        )
    if status == 404 and revision is not None:
        remedy = f"revision={revision} is no branch of {upload.repo}: create it on the hub, or leave revision out"
    elif status in (400, 422) or (isinstance(error, ValueError) and not isinstance(error, OSError)):
        remedy = "correct the setting that it speaks of: license and datasets are in the card, and repo"
    else:
        remedy = "run the same command again, nothing is lost"
    return ExportError(f"{upload.repo} was not uploaded: {reason}; {remedy}")
