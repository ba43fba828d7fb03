"""Settings of conf/launch: where a training starts, and what cannot be started there."""

import os
import re
from dataclasses import dataclass
from enum import Enum
from pathlib import PurePosixPath

from nemo_reasoning.config import checks

_TIME = re.compile(r"(?:(\d+)-(\d+)(?::(\d+)(?::(\d+))?)?|(?:(\d+):)?(\d+):(\d+))")
_NAME = re.compile(r"[A-Za-z_]\w*", re.ASCII)
_SECRET_NAME = re.compile(r"TOKEN|SECRET|PASSW|CREDENTIAL|API_?KEY|ACCESS_?KEY", re.IGNORECASE)
_MOUNT = re.compile(r"/[^:,]*(:/[^:,]*(:[\w+]+)?)?")
# What `launch`, the trainer and NeMo-Run set themselves, and where they do.
_SBATCH_OF_OURS = {
    **{"nodes": "launch.nodes", "time": "launch.time", "partition": "launch.partition", "account": "launch.account"},
    **dict.fromkeys(("ntasks", "ntasks_per_node"), "trainer.devices"),
    **{"signal": "launch.grace", "export": "launch.env"},
    **{name: "the name and the folder of the run" for name in ("job_name", "output", "error", "chdir", "open_mode")},
    **dict.fromkeys(("requeue", "no_requeue", "array", "wrap", "parsable", "test_only", "help", "version"), "nothing"),
}


class LaunchKind(Enum):
    """What starts the processes."""

    local = "local"
    torchrun = "torchrun"
    slurm = "slurm"


# What each kind takes besides `nodes`.
_TAKEN = {
    LaunchKind.local: (),
    LaunchKind.torchrun: ("node_rank", "address", "port"),
    LaunchKind.slurm: (
        *("time", "grace", "partition", "account", "sbatch"),
        *("container", "mounts", "secrets", "env"),
    ),
}


@dataclass
class LaunchSettings:
    """conf/launch: a kind leaves null or empty what it does not take."""

    kind: LaunchKind
    nodes: int
    node_rank: int | None
    address: str | None
    port: int | None
    time: str | None
    grace: int | None
    partition: str | None
    account: str | None
    sbatch: dict[str, str]
    container: str | None
    mounts: list[str]
    secrets: list[str]
    env: dict[str, str]

    @property
    def starts_elsewhere(self) -> bool:
        """Whether this process starts others, and does not train itself."""
        return self.kind is not LaunchKind.local

    def problems(self) -> list[str]:
        """Return the values that cannot be, each with its remedy."""
        return [
            *self._idle_problems(),
            *checks.positive({"launch.nodes": self.nodes, "launch.grace": self.grace}),
            *self._time_problems(),
            *self._machine_problems(),
            *self._variable_problems(),
            *self._sbatch_problems(),
            *self._mount_problems(),
        ]

    def contradictions(self, *, num_nodes: int, restart: bool) -> list[str]:
        """Return where the trainer asks for something else.

        Args:
            num_nodes: `trainer.num_nodes`.
            restart: Whether the run starts over.
        """
        found = []
        if self.nodes != num_nodes and (self.starts_elsewhere or self.nodes != 1):
            found.append(
                f"trainer.num_nodes={num_nodes} with launch.nodes={self.nodes}: they are the same; give launch.nodes "
                "alone"
            )
        if self.kind is LaunchKind.slurm and restart:
            found.append(
                "restart=true with launch=slurm: each time the job comes back from the queue it would start over; "
                "choose another name=, or start it over once with launch=local"
            )
        return found

    def mounted(self, path: str) -> bool:
        """Whether a path lies in a mount of the container; without a container every path is there."""
        where = PurePosixPath(path)
        return self.container is None or any(where.is_relative_to(_inside(mount)) for mount in self.mounts)

    def on_host(self, path: str) -> str:
        """Return where a mounted path lies outside of the container."""
        for mount in self.mounts if self.container else []:
            if PurePosixPath(path).is_relative_to(_inside(mount)):
                return str(PurePosixPath(mount.split(":")[0]) / PurePosixPath(path).relative_to(_inside(mount)))
        return path

    def _idle_problems(self) -> list[str]:
        """Return what is given and would be heard by another kind alone."""
        taken = {name: kind.value for kind, names in _TAKEN.items() for name in names}
        return [
            f"launch.{name} is heard with launch={kind} alone, and this is launch={self.kind.value}; choose that, or "
            "leave it out"
            for name, kind in taken.items()
            if name not in _TAKEN[self.kind] and getattr(self, name) not in (None, [], {})
        ]

    def _time_problems(self) -> list[str]:
        if self.time is None:
            return []
        seconds = seconds_of(self.time)
        if seconds is None:
            return [
                f"launch.time={self.time}: give hours:minutes:seconds such as 48:00:00, or days-hours such as 2-00; in "
                "a YAML file in quotes"
            ]
        if self.grace is not None and seconds <= self.grace:
            return [f"launch.time={self.time} is no longer than launch.grace={self.grace} seconds; raise launch.time"]
        return []

    def _machine_problems(self) -> list[str]:
        if self.node_rank is None or self.port is None:
            return []
        found = []
        if not 0 <= self.node_rank < max(1, self.nodes):
            found.append(
                f"launch.node_rank={self.node_rank} with launch.nodes={self.nodes}: must be 0 or above, and below"
            )
        if self.nodes > 1 and not self.address:
            found.append(f"launch.nodes={self.nodes}: give launch.address=, of the machine with launch.node_rank=0")
        if not 0 < self.port < 65536:
            found.append(f"launch.port={self.port}: must be 1 to 65535")
        return found

    def _variable_problems(self) -> list[str]:
        found = []
        for name in self.secrets:
            if not _NAME.fullmatch(name):
                found.append("launch.secrets holds what is no name of a variable (not shown); give names alone")
            elif not os.environ.get(name):
                found.append(f"launch.secrets: {name} is not set in this shell; export it first")
        for name in self.env:
            if not _NAME.fullmatch(name):
                found.append(f"launch.env: {name!r} is no name of a variable")
            elif _SECRET_NAME.search(name):
                found.append(
                    f"launch.env: {name} looks like a secret, whose value would be written into files; export it in "
                    f"this shell, and give its name alone: launch.secrets=[{name}]"
                )
        return found

    def _sbatch_problems(self) -> list[str]:
        found = []
        for name in self.sbatch:
            known = name.replace("-", "_")
            if known in _SBATCH_OF_OURS:
                found.append(f"launch.sbatch: {name} follows from {_SBATCH_OF_OURS[known]}; leave it out here")
            elif not re.fullmatch(r"[a-z][a-z_]*", known):
                found.append(f"launch.sbatch: {name!r} is no option of sbatch; give its long name, as in {{qos: high}}")
        return found

    def _mount_problems(self) -> list[str]:
        if self.container == "":
            return ["launch.container=: give an image, or null for none"]
        if self.mounts and self.container is None:
            return ["launch.mounts without launch.container: nothing would be mounted; give the image, or leave it out"]
        return [
            f"launch.mounts: {mount!r} must be /disk or /disk:/where, both from the root"
            for mount in self.mounts
            if not _MOUNT.fullmatch(mount)
        ]


def seconds_of(time: str) -> int | None:
    """Return the seconds of a limit as sbatch takes it; None if it is none, or no limit.

    Its forms: minutes:seconds, hours:minutes:seconds, days-hours, days-hours:minutes and days-hours:minutes:seconds.
    Minutes alone are left out: YAML reads an unquoted 48:00:00 as such a number, of seconds.
    """
    match = _TIME.fullmatch(time.strip())
    if match is None:
        return None
    groups = [int(group or 0) for group in match.groups()]
    days, hours, minutes, seconds = groups[:4] if match[1] else [0, *groups[4:]]
    return 86400 * days + 3600 * hours + 60 * minutes + seconds or None


def _inside(mount: str) -> str:
    """Return where a mount is seen in the container."""
    return mount.split(":")[1] if ":" in mount else mount
