"""A batch job of Slurm, as NeMo-Run's executor writes it; it goes back into the queue by itself until it is done."""

import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

from nemo_reasoning.artifacts import write_text
from nemo_reasoning.config.launch import LaunchSettings
from nemo_reasoning.config.train import SftSettings
from nemo_reasoning.config.trainer import Accelerator
from nemo_reasoning.errors import BackendError, StorageError, VersionError
from nemo_reasoning.launching.command import Command
from nemo_reasoning.launching.nemo_run import nemo_run_alone
from nemo_reasoning.training.process import TIME_IS_UP

SUBMIT = ("sbatch", "--requeue", "--parsable")
FOLDER = "launch"  # of a run: script and logs of its jobs
# Training ends with one of these when it has saved before its time was up: SIGTERM, trainer.max_hours.
_GOES_ON = (128 + signal.SIGTERM, TIME_IS_UP)
_REMEDIES = {
    "partition": "launch.partition=; `sinfo` lists them",
    "account": "launch.account=; `sacctmgr show associations user=$USER` lists yours",
    "node configuration": "launch.nodes, trainer.devices and launch.sbatch; `sinfo -o '%D %c %m %G'` lists them",
    "node count": "launch.nodes; `sinfo` lists how many a partition has",
    "time limit": "launch.time; `sinfo -o '%P %l'` lists how long a partition lets jobs run",
    "qos": "launch.sbatch={qos: ...}; `sacctmgr show qos` lists them",
    "unrecognized option": "launch.sbatch; `sbatch --help` lists its options",
    "configuration source": "SLURM_CONF, or start it on a machine of the cluster",
    "contact slurm controller": "whether the cluster is up: `scontrol ping`",
}


def job_script(settings: SftSettings, command: Command) -> str:
    """Return the script of the job, for sbatch.

    Args:
        settings: The run, validated.
        command: What was called.

    Raises:
        MissingPackageError: NeMo-Run is not installed.
        VersionError: It writes other scripts than this one is made of.
    """
    launch, job = settings.launch, settings.name
    folder = run_folder(settings) / FOLDER
    with nemo_run_alone(needed_by="launch=slurm"):
        from nemo_run.core.execution.slurm import SlurmBatchRequest, SlurmExecutor, SlurmJobDetails
        from nemo_run.core.tunnel.client import LocalTunnel
    executor = SlurmExecutor(
        account=launch.account,
        partition=launch.partition,
        job_name_prefix="nemo-reasoning.",
        time=launch.time,
        nodes=launch.nodes,
        ntasks_per_node=settings.trainer.devices,
        gpus_per_node=_gpus_per_node(settings, command),
        signal=f"TERM@{launch.grace}",  # to all ranks, not to the script
        container_image=launch.container,
        container_env=sorted({*launch.secrets, *launch.env}) if launch.container else None,
        additional_parameters={"chdir": str(command.folder), **_options(launch)},
        srun_args=["--wait=0"],  # the first rank alone measures what was trained
        setup_lines="\n".join(_setup(launch)),
        job_details=SlurmJobDetails(folder=str(folder)),
        tunnel=LocalTunnel(job_dir=str(folder.parent)),
    )
    executor.job_dir = str(folder)
    request = SlurmBatchRequest(
        launch_cmd=list(SUBMIT),
        jobs=[re.sub(r"[^\w.-]+", "-", job)],
        command_groups=[[shlex.join(_started(settings, command))]],
        executor=executor,
        max_retries=0,
        extra_env={},
        launcher=executor.get_launcher(),
    )
    return _in_place(request.materialize(), folder, launch, command)


def submit(settings: SftSettings, script: str) -> str:
    """Write the script into the run's folder, hand it to sbatch, and return a line about the job.

    Raises:
        BackendError: There is no sbatch here, or it refuses the job.
        StorageError: The run's folder cannot be written to.
    """
    if shutil.which(SUBMIT[0]) is None:
        raise BackendError(
            "launch=slurm: this machine has no sbatch; start it on one that submits to the cluster, or look at the "
            "script with dry_run=true"
        )
    file = script_file(settings)
    try:
        write_text(file, script)
    except OSError as error:
        raise StorageError(
            f"output_dir={settings.output_dir} cannot be written to ({error.strerror}); choose another"
        ) from error
    done = subprocess.run([*SUBMIT, str(file)], capture_output=True, text=True, check=False)
    if done.returncode:
        raise BackendError(f"sbatch refused the job: {_refusal(done.stderr)}")
    job = done.stdout.strip().partition(";")[0]
    return f"job {job} is in the queue: `squeue -j {job}` shows it, `scancel {job}` ends it; its logs: {file.parent}"


def run_folder(settings: SftSettings) -> Path:
    """Return the folder of the run on this machine."""
    return Path(settings.launch.on_host(str(Path(settings.output_dir).expanduser().absolute())))


def script_file(settings: SftSettings) -> Path:
    """Return where the script of the job is kept."""
    return run_folder(settings) / FOLDER / "job.sh"


def _gpus_per_node(settings: SftSettings, command: Command) -> int | None:
    """Return what to ask for; `hardware=auto` on a machine that only submits is for the nodes to answer."""
    asked = {name.replace("-", "_") for name in settings.launch.sbatch}
    if {"gres", "gpus", "gpus_per_node", "gpus_per_task"} & asked:
        return None
    on_cpu = settings.hardware.accelerator is Accelerator.cpu and not command.finds_hardware
    return None if on_cpu else settings.trainer.devices


def _options(launch: LaunchSettings) -> Mapping[str, str | bool]:
    return {name: True if text.lower() == "true" else text for name, text in launch.sbatch.items()}


def _setup(launch: LaunchSettings) -> list[str]:
    """Return lines of the script before training starts."""
    codes = "|".join(map(str, _GOES_ON))
    return [
        "",
        "# NeMo-Run's would make the tasks' output a terminal's, with bars that are drawn again and again.",
        "unset SLURM_UNBUFFEREDIO",
        "# Where Slurm itself reaches the first node: its name need not be known elsewhere.",
        """export MASTER_ADDR=$(scontrol show node "$head_node" | sed -n 's/.*NodeAddr=\\([^ ]*\\).*/\\1/p')""",
        "# Training that had to stop has saved: the job goes back into the queue, and on from there.",
        f"""trap 'case $? in {codes}) scontrol requeue "$SLURM_JOB_ID" ;; esac' EXIT""",
        *(f"export {name}={shlex.quote(value)}" for name, value in launch.env.items()),
    ]


def _started(settings: SftSettings, command: Command) -> list[str]:
    """Return what each task runs: the command as it was called, without launching."""
    launch, pinned = settings.launch, dict[str, str | int]({"trainer.num_nodes": settings.launch.nodes})
    program = [sys.executable, str(command.program)]
    if launch.container is not None:
        pinned["cache_dir"] = str(Path(settings.cache_dir).expanduser().absolute())
        in_image = command.program.suffix != ".py" or not launch.mounted(str(command.program))
        program = ["nemo-reasoning"] if in_image else ["python", str(command.program)]
        if in_image and command.name is None:
            program.append("sft")
    return [*program, *command.arguments, *command.told(pinned)]


def _in_place(script: str, folder: Path, launch: LaunchSettings, command: Command) -> str:
    """Give the job this run's mounts and folder in place of NeMo-Run's, which it asks of Pyxis without an image too."""
    theirs = f" --container-mounts {shlex.quote(f'{folder}:/nemo_run')} --container-workdir /nemo_run/code"
    if theirs not in script:
        raise VersionError("this NeMo-Run writes other scripts for Slurm; install nemo_run 0.7")
    ours = ""
    if launch.mounts:
        ours = f" --container-mounts {shlex.quote(','.join(launch.mounts))}"
    if launch.container and launch.mounted(str(command.folder)):
        ours += f" --container-workdir {shlex.quote(str(command.folder))}"
    return script.replace(theirs, ours)


def _refusal(said: str) -> str:
    """Return what sbatch says in one line, with what to look at."""
    lines = [line.removeprefix("sbatch: ").removeprefix("error: ") for line in said.splitlines() if line.strip()]
    text = "; ".join(dict.fromkeys(lines)) or "it said nothing"
    hints = [remedy for sign, remedy in _REMEDIES.items() if sign in text.lower()]
    return f"{text}. Correct {hints[0]}" if hints else text


def cluster_problems(launch: LaunchSettings) -> list[str]:
    """Return what the cluster at hand does not have; nothing where there is none, as on a machine of one's own."""
    if launch.partition is None or shutil.which("sinfo") is None:
        return []
    done = subprocess.run(["sinfo", "--noheader", "--format=%R"], capture_output=True, text=True, check=False)
    known = sorted(set(done.stdout.split()))
    missing = [name for name in launch.partition.split(",") if name not in known]
    if done.returncode or not missing:
        return []
    return [f"launch.partition={launch.partition}: this cluster has no {missing[0]}; choose of {', '.join(known)}"]


def place_problems(settings: SftSettings, command: Command) -> list[str]:
    """Return what would be written or read where it cannot be, or is lost with the container."""
    launch, folder = settings.launch, run_folder(settings)
    found = []
    if launch.container and _is_file(launch.container) and not Path(launch.container).expanduser().is_file():
        found.append(f"launch.container={launch.container}: there is no such image; correct the path, or give a name")
    written = {"output_dir": settings.output_dir, "cache_dir": settings.cache_dir}
    read = [("model.source", settings.model.source), *(("data.paths", path) for path in settings.data.paths)]
    for key, value in [*written.items(), *read]:
        place = Path(value).expanduser().absolute()
        if not launch.mounted(str(place)) and (key in written or place.exists()):
            found.append(f"{key}: {place} is in none of launch.mounts, and not there in the container; mount it")
    if strange := set(re.findall(r"[^\w./@+,:=-]", str(folder))):
        found.append(
            f"output_dir={folder}: Slurm and its scripts mistake {' '.join(sorted(map(repr, strange)))}; rename it"
        )
    there = next(path for path in (folder, *folder.parents) if path.exists())
    if not os.access(there, os.W_OK) or not there.is_dir():
        found.append(f"output_dir={settings.output_dir} cannot be written to ({there}); choose another")
    return found


def _is_file(image: str) -> bool:
    return image.startswith(("/", "./", "../", "~")) or image.endswith(".sqsh")
