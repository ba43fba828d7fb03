"""Start a training where `launch` says, or print what would be started."""

import shlex
import sys

from nemo_reasoning.config import checks
from nemo_reasoning.config.launch import LaunchKind
from nemo_reasoning.config.train import SftSettings
from nemo_reasoning.launching import slurm, torchrun
from nemo_reasoning.launching.command import Command


def start(settings: SftSettings, command: Command) -> None:
    """Start it; with `dry_run`, print on stdout what would be started, and on stderr what it takes from here.

    Args:
        settings: The run, validated.
        command: What was called.

    Raises:
        BackendError: What starts it is not there, or refuses.
        ConfigError: What the settings name is not there, or cannot be written to; lists everything.
    """
    launch = settings.launch
    if launch.kind is LaunchKind.torchrun:
        words = torchrun.torchrun_command(settings, command)
        if settings.dry_run:
            print(shlex.join(words))
        else:
            torchrun.become(words)
        return
    checks.refuse([*slurm.place_problems(settings, command), *slurm.cluster_problems(launch)])
    script = slurm.job_script(settings, command)
    if not settings.dry_run:
        print(slurm.submit(settings, script))
        return
    print(script)
    for line in _notes(settings, command):
        print(f"note: {line}", file=sys.stderr)


def _notes(settings: SftSettings, command: Command) -> list[str]:
    """Return what the script alone does not say."""
    launch = settings.launch
    notes = [f"handed to {' '.join(slurm.SUBMIT)} in {command.folder}, the script as {slurm.script_file(settings)}"]
    named = f"; {', '.join(launch.secrets)} by name" if launch.secrets else ""
    notes.append(f"the job has the environment of this shell, as sbatch hands it on{named}")
    if command.finds_hardware:
        notes.append(
            f"hardware=auto: each node finds its own, and {settings.trainer.devices} GPUs of each are asked for; "
            "hardware=gpu_80gb (or cpu) is checked before a job waits"
        )
    return notes
