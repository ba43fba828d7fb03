"""A run: its folder, opened once and handed on to whoever continues, exports, measures or serves it.

A run is identified by content: the prepared rows, the text of the chat template, the tokenizer and the base weights,
recorded in `run.json`, and by the settings in `config.yaml` that a checkpoint depends on.
"""

import json
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict
from functools import cached_property
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from nemo_reasoning.artifacts import write_json, write_text
from nemo_reasoning.config import settings_to_dict
from nemo_reasoning.config.adapter import RUN_CONFIG
from nemo_reasoning.config.model import Init
from nemo_reasoning.config.train import SftSettings
from nemo_reasoning.errors import CheckpointError
from nemo_reasoning.models.hub import BaseModel, fetch_base, weights_fingerprint
from nemo_reasoning.training.checkpoints import Checkpoint, History, damage, list_checkpoints, origin_differs
from nemo_reasoning.training.folder_lock import FolderLock
from nemo_reasoning.training.identity import Identity, changed_settings, fixed_settings, rows_fingerprint
from nemo_reasoning.training.process import first_process
from nemo_reasoning.training.recorded_settings import check_own, read_settings

CONFIG_FILE, IDENTITY_FILE, DATA, EXPORT, MERGED = RUN_CONFIG, "run.json", "data", "export", "base"


class Run:
    """The folder of a run and what it says about itself.

    Attributes:
        path: The folder.
        settings: The resolved settings of its latest start.
    """

    def __init__(self, path: Path, settings: SftSettings) -> None:
        """Hold a folder and its settings; `open` and `start` make runs."""
        self.path, self.settings = path, settings
        self._lock = FolderLock(path)
        self._selected: tuple[Checkpoint, str] | None = None

    @classmethod
    def open(cls, path: Path) -> "Run":
        """Open the folder of an earlier training.

        Raises:
            CheckpointError: The folder is not one of a run.
        """
        config = path / CONFIG_FILE
        if not config.is_file():
            raise CheckpointError(f"{path} has no {CONFIG_FILE}: point at the folder that recipes/sft_lora.py wrote")
        return cls(path, read_settings(config))

    @classmethod
    def start(cls, settings: SftSettings) -> "Run":
        """Open a run to train it: a new one, or one that goes on.

        The settings of a new one are written to the folder; those of one that goes on when `claim` has accepted it.

        Raises:
            CheckpointError: The folder holds checkpoints of a run with other settings, is in use, or cannot be written.
        """
        run = cls(Path(settings.output_dir), settings)
        try:
            with run.locked() if first_process() else nullcontext():
                if run.path.joinpath(CONFIG_FILE).is_file() and run.checkpoints and not settings.restart:
                    run._refuse(changed_settings(cls.open(run.path).settings, settings))
                elif first_process():
                    check_own(run.path / CONFIG_FILE)
                    run._record_settings()
        except OSError as error:
            why = "it is a link to no folder" if run.path.is_symlink() and not run.path.is_dir() else error.strerror
            raise CheckpointError(
                f"output_dir={settings.output_dir} cannot be written to ({why}); choose another"
            ) from error
        return run

    def _record_settings(self) -> None:
        write_text(self.path / CONFIG_FILE, OmegaConf.to_yaml(OmegaConf.create(settings_to_dict(self.settings))))

    def claim(self, identity: Identity) -> None:
        """Record what the run is made of, or compare it with what its checkpoints were made from.

        Raises:
            CheckpointError: The folder holds checkpoints of another run; says what differs.
        """
        if found := self.checkpoints:
            self._refuse([f"{name} changed" for name in self.identity.differences(identity)])
            made_from = self.made_from(identity)
            foreign = [origin_differs(checkpoint, made_from) for checkpoint in found]
            if all(foreign):
                self._refuse(foreign[-1])
        self._record_settings()
        write_json(self.path / IDENTITY_FILE, asdict(identity))

    def made_from(self, identity: Identity) -> dict[str, Any]:
        """Return all that checkpoints of this run depend on, by content; they carry it with them."""
        return identity.fingerprints() | fixed_settings(self.settings)

    def _refuse(self, differences: list[str]) -> None:
        if differences:
            raise CheckpointError(
                f"{self.path} holds the checkpoints of another run: {'; '.join(differences)}. "
                "Undo that, choose another name=, or delete the folder to start anew"
            )

    @property
    def identity(self) -> Identity:
        """What the run was made from, as far as it is recorded."""
        try:
            recorded = json.loads((self.path / IDENTITY_FILE).read_text(encoding="utf-8"))
            return Identity(**{name: recorded.get(name) for name in Identity.__dataclass_fields__})
        except (FileNotFoundError, ValueError, AttributeError):  # the checkpoints know what they were made from
            return Identity(rows=rows_fingerprint(self.data))

    @property
    def data(self) -> Path:
        """Folder of the prepared rows."""
        return self.path / DATA

    @property
    def export_dir(self) -> Path:
        """Folder of exports."""
        return self.path / EXPORT

    @property
    def merged_base(self) -> Path:
        """Hugging Face directory of the base with the adapter merged into it that `peft.start_from` names."""
        return self.path / MERGED

    @property
    def history(self) -> History:
        """Validations and saves so far."""
        return History(self.path)

    @property
    def template(self) -> str:
        """Text of the chat template the run was trained with.

        Raises:
            CheckpointError: It is not recorded, and the file it came from holds another one now.
        """
        from nemo_reasoning.data.chat import load_template

        if (recorded := self.identity.template) is not None:
            return recorded
        found = Identity(template=load_template(self.settings.model.template)).fingerprints()
        for checkpoint in self.checkpoints:
            if origin_differs(checkpoint, found):
                raise CheckpointError(
                    f"{self.path / IDENTITY_FILE} is missing or broken, and model.template="
                    f"{self.settings.model.template} is not what the run was trained with; restore one of them"
                )
        return load_template(self.settings.model.template)

    @cached_property
    def base(self) -> BaseModel:
        """The base model.

        Raises:
            CheckpointError: The run trained random weights, or other ones than the source holds now.
            ModelSourceError: The base is not where the run found it.
        """
        model = self.settings.model
        if model.init is Init.random:
            raise CheckpointError(f"{self.path} trained random weights, which only measure speed; nothing to use")
        source, revision = model.source, model.revision
        if self.settings.peft.merges_start:
            source, revision = str(self.merged_base), None
        base = fetch_base(source, revision=revision, cache_dir=Path(self.settings.cache_dir).expanduser())
        known = self.identity.base
        if known is not None and weights_fingerprint(base.path) != known:
            raise CheckpointError(
                f"{self.path} was not trained on the weights that {source} holds now; restore them, "
                f"or write the place of the right ones into {self.path / CONFIG_FILE}"
            )
        return base

    @property
    def checkpoints(self) -> list[Checkpoint]:
        """Finished checkpoints, by step."""
        return list_checkpoints(self.path)

    @property
    def last(self) -> Checkpoint | None:
        """The checkpoint with most steps; None if there is none."""
        return max(self.checkpoints, key=lambda checkpoint: checkpoint.step, default=None)

    @property
    def best(self) -> Checkpoint | None:
        """The checkpoint with the lowest measured validation loss, of equals the later; None if none was measured."""
        measured = [(checkpoint.loss, -checkpoint.step, checkpoint) for checkpoint in self.checkpoints]
        return min((entry for entry in measured if entry[0] is not None), default=(None, 0, None))[2]

    def selected(self) -> tuple[Checkpoint, str]:
        """Return the checkpoint to use, and why: the best; the last where no saved step was validated.

        A damaged one is passed over, and named.

        Raises:
            CheckpointError: The run has no finished checkpoint that is intact.
        """
        if self._selected is None or not self._selected[0].path.is_dir():
            self._selected = self._select()
        return self._selected

    def _select(self) -> tuple[Checkpoint, str]:
        found, notes = self.checkpoints, []
        measured = sorted((one for one in found if one.loss is not None), key=lambda one: (one.loss or 0.0, -one.step))
        for checkpoint in [*measured, *(one for one in reversed(found) if one.loss is None)]:
            if harm := damage(checkpoint):
                notes.append(f"; step {checkpoint.step} would come first, but is damaged: {harm}")
                continue
            why = "the last: no checkpoint has a measured validation loss"
            if checkpoint.loss is not None:
                why = f"validation loss {checkpoint.loss:.4f}, the lowest of {len(measured)} that are kept"
            return checkpoint, f"step {checkpoint.step}, {why}{''.join(notes)}"
        raise CheckpointError(
            f"{self.path} has no finished checkpoint{''.join(notes)}; train first: recipes/sft_lora.py"
        )

    def locked(self) -> AbstractContextManager[None]:
        """Hold the folder for writing, as `FolderLock.held` does."""
        return self._lock.held()
