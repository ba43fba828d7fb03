"""What holds for the whole process, not for one object of NeMo: torch's settings, and the signals that stop it."""

import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

from nemo_reasoning.backend.patching import Patch
from nemo_reasoning.backend.runtime import resolve
from nemo_reasoning.backend.versions import require_supported_versions
from nemo_reasoning.config.model import PeftScheme
from nemo_reasoning.config.train import SftSettings, needs_gpu
from nemo_reasoning.config.trainer import Fp8, TrainerSettings, needs_transformer_engine
from nemo_reasoning.errors import BackendError, ConfigError
from nemo_reasoning.packages import require

ALLOCATOR_VARIABLES = ("PYTORCH_CUDA_ALLOC_CONF", "PYTORCH_ALLOC_CONF")  # torch reads the first one that is there
# What cuBLAS, Transformer Engine and NCCL read once, and what makes them deterministic; the first where nothing is set.
DETERMINISTIC_VARIABLES = {
    "CUBLAS_WORKSPACE_CONFIG": (":4096:8", ":16:8"),
    "NVTE_ALLOW_NONDETERMINISTIC_ALGO": ("0",),
    "NCCL_ALGO": ("^NVLS", "Ring", "Tree"),
}
_FP8_CAPABILITY = (8, 9)  # of Ada and Hopper, the first with FP8 tensor cores


def prepare_process(settings: SftSettings, *, cuda: bool | None = None, transformer_engine: bool | None = None) -> None:
    """Refuse what this machine lacks, and set the variables that CUDA's allocator and libraries read once.

    Call it before anything lies on a GPU. Processes started from here inherit the variables.

    Args:
        settings: The run.
        cuda: As for `backend`.
        transformer_engine: As for `backend`.

    Raises:
        BackendError: A setting needs a GPU or a package that is not there, or comes too late.
        ConfigError: The environment places this process among others than the settings do.
        VersionError: NeMo or Megatron-Core is absent or lacks something.
    """
    require_supported_versions()
    trainer = settings.trainer
    _check_place(trainer)
    if settings.optim.kind.is_8bit:
        require("bitsandbytes", needed_by=f"optim.kind={settings.optim.kind.value}")
    if settings.peft.scheme is PeftScheme.qlora:
        require("bitsandbytes", needed_by="peft=qlora")
    if trainer.deterministic:
        _make_libraries_deterministic()
    if not needs_gpu(settings) + needs_transformer_engine(trainer):
        return  # and torch need not be loaded yet
    machine = resolve(cuda=cuda, transformer_engine=transformer_engine)
    problems = [] if machine.cuda else needs_gpu(settings)
    problems += [] if machine.transformer_engine else needs_transformer_engine(trainer)
    if problems:
        raise BackendError("\n".join(problems))
    if trainer.expandable_segments:
        _use_expandable_segments()
    if trainer.fp8 is not Fp8.none:
        _require_fp8(trainer.fp8)


def _check_place(trainer: TrainerSettings) -> None:
    """Refuse a place among processes, as launchers and Slurm state it, that the settings do not have."""
    processes = trainer.devices * trainer.num_nodes
    places = {"LOCAL_RANK": trainer.devices, "GROUP_RANK": trainer.num_nodes, "NODE_RANK": trainer.num_nodes}
    places |= {"RANK": processes, "SLURM_PROCID": processes}
    found = {name: os.environ[name] for name in places if name in os.environ}
    wrong = [f"{name}={rank}" for name, rank in found.items() if not rank.isdigit() or int(rank) >= places[name]]
    tasks = os.environ.get("SLURM_NTASKS", f"{processes}")
    if os.environ.get("SLURM_JOB_NAME") not in ("bash", "interactive") and tasks != f"{processes}":
        wrong.append(f"SLURM_NTASKS={tasks}")
    if wrong:
        raise ConfigError(
            f"{', '.join(wrong)} in the environment, but trainer.devices={trainer.devices} and trainer.num_nodes="
            f"{trainer.num_nodes} make {processes} process{'es' * (processes > 1)}; set these two to what was started, "
            f"or unset what another job left: unset {' '.join(one.partition('=')[0] for one in wrong)}"
        )


def _make_libraries_deterministic() -> None:
    missing = {name: values[0] for name, values in DETERMINISTIC_VARIABLES.items() if not os.environ.get(name)}
    for name in DETERMINISTIC_VARIABLES.keys() - missing.keys():
        found, accepted = os.environ[name], DETERMINISTIC_VARIABLES[name]
        if found not in accepted:
            raise BackendError(
                f"trainer.deterministic=true, but the environment has {name}={found}; unset it, or set it to "
                f"{' or '.join(accepted)}"
            )
    if missing:
        _refuse_late("trainer.deterministic=true")
        os.environ.update(missing)


def _refuse_late(setting: str) -> None:
    """Refuse a setting that would no longer be heard, once CUDA is in use."""
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_initialized():
        raise BackendError(f"{setting}, but CUDA is in use already; start in a new process")


def _use_expandable_segments() -> None:
    _refuse_late("trainer.expandable_segments=true")
    os.environ[ALLOCATOR_VARIABLES[0]] = with_expandable_segments(os.environ)


def with_expandable_segments(environment: Any) -> str:
    """Return the allocator's configuration of an environment, with expandable segments on."""
    given = next((environment[name] for name in ALLOCATOR_VARIABLES if environment.get(name)), "")
    kept = [option for option in given.split(",") if option and not option.startswith("expandable_segments")]
    return ",".join([*kept, "expandable_segments:True"])


def _require_fp8(recipe: Fp8) -> None:
    import torch

    found = torch.cuda.get_device_capability()
    if found < _FP8_CAPABILITY:
        raise BackendError(
            f"trainer.fp8={recipe.value} needs a GPU of compute capability 8.9 or newer, this one has "
            f"{found[0]}.{found[1]}; set trainer.fp8=none"
        )


@contextmanager
def switched(trainer: TrainerSettings) -> Iterator[None]:
    """Hold torch's precision of float32 products, and whether it is deterministic, for the length of the block."""
    import torch
    from torch.backends import cudnn

    precision, deterministic = torch.get_float32_matmul_precision(), torch.get_deterministic_debug_mode()
    convolutions = cudnn.deterministic, cudnn.benchmark
    if trainer.tf32:
        torch.set_float32_matmul_precision("high")
    if trainer.deterministic:
        torch.use_deterministic_algorithms(True)  # what has no deterministic kernel raises
        cudnn.deterministic, cudnn.benchmark = True, False
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(precision)
        torch.set_deterministic_debug_mode(deterministic)
        cudnn.deterministic, cudnn.benchmark = convolutions


def process_began() -> float:
    """Return `time.monotonic()` of the start of this process: what it imported belongs to its time.

    Both clocks count from the machine's start, so setting its date changes nothing.
    """
    ticks = int(Path("/proc/self/stat").read_text(encoding="utf-8").rpartition(")")[2].split()[19])  # proc(5)
    return time.monotonic() - (time.clock_gettime(time.CLOCK_BOOTTIME) - ticks / os.sysconf("SC_CLK_TCK"))


def first_process() -> bool:
    """Whether this is the process that writes files, of those that train together.

    torchrun says the rank among all; Lightning and others, the ranks on the machine and of the machine; srun, its own.
    """
    for names in (("RANK",), ("LOCAL_RANK", "NODE_RANK"), ("SLURM_PROCID",)):
        if names[0] in os.environ:
            return all(int(os.environ.get(name, "0")) == 0 for name in names)
    return True


TIME_IS_UP = 75  # EX_TEMPFAIL of sysexits.h: nothing is wrong, run it again
_STOPPING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def _sigterm_of_lightning() -> list[tuple[Any, str, Any]]:
    from lightning.pytorch import Trainer

    return [(Trainer, "received_sigterm", property(lambda trainer: False))]


OWN_STOPS = Patch(
    "own-stops",
    "after a SIGTERM Lightning leaves within a validation, with nothing saved, and in one process alone",
    _sigterm_of_lightning,
)


class Stopped(SystemExit):
    """The command was told to end before its work was done; the code is what a shell reports for the signal.

    Attributes:
        said: Whether the user has been told.
    """

    def __init__(self, code: int, *, said: bool = False) -> None:
        """Take the exit code."""
        super().__init__(code)
        self.said = said

    @property
    def signal(self) -> int:
        """Number of the signal."""
        return int(self.code or 0) - 128


def signal_name(number: int) -> str:
    """Return how people call a signal."""
    return "Ctrl-C" if number == signal.SIGINT else signal.Signals(number).name


class StopSignals:
    """Ctrl-C, SIGTERM and SIGHUP for the length of a block.

    The first one ends the block with `Stopped`, or within `deferred` is only noted: training looks at `received`
    after each step. A Ctrl-C after that ends the process at once, which loses no more than a kill does. A process
    started with nohup goes on ignoring SIGHUP.

    Attributes:
        received: Number of the signal that arrived; None if none did.
    """

    def __init__(self) -> None:
        """Listen to nothing yet."""
        self.received: int | None = None
        self._deferring = False
        self._before: dict[signal.Signals, object] = {}

    def __enter__(self) -> "StopSignals":
        """Listen, where this is the thread that signals go to."""
        if threading.current_thread() is threading.main_thread():
            ignored = signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
            heard = [number for number in _STOPPING if number != signal.SIGHUP or not ignored]
            self._before = {number: signal.signal(number, self._receive) for number in heard}
        return self

    def __exit__(self, *error: object) -> None:
        """Give the signals back to who had them."""
        for number, handler in self._before.items():
            signal.signal(number, handler)  # type: ignore[arg-type]  # what it returned
        self._before = {}

    @contextmanager
    def deferred(self) -> Iterator[None]:
        """Note signals only, for the length of the block."""
        self._deferring = True
        try:
            yield
        finally:
            self._deferring = False

    def _receive(self, number: int, frame: FrameType | None) -> None:
        if self.received is not None and number == signal.SIGINT:
            os._exit(128 + number)
        repeated, self.received = self.received is not None, number
        if not self._deferring and not repeated:
            raise Stopped(128 + number)
