"""The command `nemo-reasoning`, and what the doors in recipes/ open: a command each, with Hydra's overrides."""

import atexit
import gc
import logging
import os
import signal
import sys
import tempfile
import traceback
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from io import TextIOWrapper
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nemo_reasoning.artifacts import storage_problem
from nemo_reasoning.config import CONF_PACKAGE, RECIPES, load_settings
from nemo_reasoning.config.checks import as_list
from nemo_reasoning.errors import ConfigError, NemoReasoningError, StorageError, harmless, is_failure
from nemo_reasoning.packages import explained

if TYPE_CHECKING:
    from omegaconf import DictConfig

    from nemo_reasoning.config.data import PrepareSettings
    from nemo_reasoning.config.doctor import DoctorSettings
    from nemo_reasoning.config.evaluate import EvaluateSettings
    from nemo_reasoning.config.export import ExportSettings
    from nemo_reasoning.config.inference import GenerateSettings, ServeSettings
    from nemo_reasoning.config.push import PushSettings
    from nemo_reasoning.config.self_improve import SelfImproveSettings
    from nemo_reasoning.config.train import SftSettings

_FULL_ERROR = "HYDRA_FULL_ERROR"


def sft(settings: "SftSettings") -> None:
    """Prepare what is missing, train, and measure; or print the plan."""
    from nemo_reasoning.training.memory.planner import explain_layout, fit_to_memory
    from nemo_reasoning.training.process import first_process

    fitted = fit_to_memory(settings)
    if (layout := explain_layout(settings)) and first_process():
        print(layout)
    if settings.launch.starts_elsewhere:
        from nemo_reasoning.launching.command import Command
        from nemo_reasoning.launching.start import start

        start(settings, Command.running("sft"))
    elif settings.dry_run:
        from nemo_reasoning.training.dry_run import print_plan

        print_plan(fitted, asked=settings)
    else:
        from nemo_reasoning.pipeline import fine_tune

        fine_tune(fitted)


def self_improve(settings: "SelfImproveSettings") -> None:
    """Let a trained model learn from its own right answers, in rounds; or print the plan of one."""
    from nemo_reasoning.improvement import rounds

    (rounds.print_rounds if settings.dry_run else rounds.self_improve)(settings)


def prepare(settings: "PrepareSettings") -> None:
    """Turn rows of chats into tokenized splits."""
    from nemo_reasoning.preparation import run_command
    from nemo_reasoning.terminal import plain_console

    run_command(settings, plain_console())


def export(settings: "ExportSettings") -> None:
    """Write what was trained for transformers, vLLM, NIM and llama.cpp, and verify it."""
    from nemo_reasoning.export.from_run import export_and_show, tokenizer_interpreter
    from nemo_reasoning.training.run_dir import Run

    export_and_show(
        Run.open(Path(settings.checkpoint)),
        formats=settings.formats,
        out=Path(settings.output_dir) if settings.output_dir else None,
        average=settings.average,
        adapters=settings.adapters or {},
        dtype=settings.dtype,
        gguf=settings.gguf,
        merge_onto=settings.merge_onto,
        verified=settings.verify,
        tokenizer_python=tokenizer_interpreter(settings.tokenizer_python),
    )


def push(settings: "PushSettings") -> None:
    """Upload an export or prepared data to a hub, with a card."""
    from nemo_reasoning.evaluation.push import push as push_to_hub
    from nemo_reasoning.terminal import plain_console

    push_to_hub(settings, plain_console(soft_wrap=True))


def evaluate(settings: "EvaluateSettings") -> None:
    """Measure a model on benchmarks, with thinking on and off; or compare two reports."""
    from nemo_reasoning.terminal import plain_console

    console = plain_console(soft_wrap=True)
    if settings.compare:
        from nemo_reasoning.evaluation.compare import compare

        compare([Path(folder) for folder in settings.compare], seed=settings.seed, console=console)
    else:
        from nemo_reasoning.evaluation.evaluate import evaluate_models

        evaluate_models(settings, console)


def generate(settings: "GenerateSettings") -> None:
    """Ask a model: one prompt, a file of them, or a chat in the terminal."""
    from nemo_reasoning.inference.generate import generate as answer

    answer(settings)


def serve(settings: "ServeSettings") -> None:
    """Serve a model to clients of OpenAI's protocol, and a chat page."""
    from nemo_reasoning.serving.server import serve as start

    start(settings)


def doctor(settings: "DoctorSettings") -> None:
    """Tell whether this machine can do a training; exit with 1 if it cannot."""
    from nemo_reasoning.doctor.run import examine

    sys.exit(0 if examine(settings) else 1)


COMMANDS: dict[str, Callable[[Any], None]] = {
    "sft": sft,
    "self_improve": self_improve,
    "prepare": prepare,
    "export": export,
    "push": push,
    "evaluate": evaluate,
    "generate": generate,
    "serve": serve,
    "doctor": doctor,
}


def compose_settings(command: str, *overrides: str) -> Any:
    """Return the checked settings of a command, as its command line would compose them.

    Args:
        command: One of `nemo_reasoning.config.RECIPES`, such as "sft" or "evaluate".
        overrides: Such as "model=llama3_8b" or "trainer.seq_length=8192".

    Returns:
        An object of the command's class in `nemo_reasoning.config.RECIPES`.

    Raises:
        ConfigError: Lists everything that is wrong, each with its remedy.
    """
    from nemo_reasoning.config.overrides import composed_settings
    from nemo_reasoning.hardware import register_resolvers

    if command not in RECIPES:
        raise ConfigError(f"{command}: there is no such command; choose one of {', '.join(RECIPES)}")
    register_resolvers()
    return composed_settings(RECIPES[command], overrides)


def main() -> None:
    """Run `nemo-reasoning COMMAND [override ...]`."""
    from nemo_reasoning import __version__

    name = sys.argv[1] if len(sys.argv) > 1 else "--help"
    if name == "--version":
        print(f"nemo-reasoning {__version__}")
    elif name in ("--help", "-h"):
        print("Usage: nemo-reasoning COMMAND [group=choice] [key=value] ...\n")
        print("\n".join(f"  {command:10}{(run.__doc__ or '').strip()}" for command, run in COMMANDS.items()))
        print("\n`nemo-reasoning COMMAND --help` lists the groups and settings of a command.")
    elif name not in COMMANDS:
        sys.exit(f"nemo-reasoning {name}: there is no such command; choose one of {', '.join(COMMANDS)}")
    else:
        given = sys.argv[:]
        del sys.argv[1]
        run(name, argv=given)


def run(name: str, *, argv: list[str] | None = None) -> None:
    """Compose the settings of a command from conf/ and the overrides in `sys.argv`, check them, and run it.

    Args:
        name: Of the command.
        argv: What starts this process anew, if not `sys.argv`: a launcher of further processes reads it from there.
    """
    import hydra
    from hydra.core.hydra_config import HydraConfig
    from hydra.errors import HydraException
    from omegaconf.errors import OmegaConfBaseException

    from nemo_reasoning.config.overrides import problems_of, problems_of_command_line, register_help
    from nemo_reasoning.hardware import register_resolvers

    recipe, full_errors = RECIPES[name], os.environ.get(_FULL_ERROR)
    atexit.register(gc.freeze)  # Python ends without seconds of looking for garbage in what libraries imported
    if isinstance(sys.stdout, TextIOWrapper):  # where the locale lacks a character, or a file's name is no text
        sys.stdout.reconfigure(errors="backslashreplace")

    def job(config: "DictConfig") -> None:
        _restore(full_errors)
        places: list[Path] = []
        with one_line_errors(f"nemo-reasoning {name}", places=places):
            sys.argv[:] = argv or sys.argv
            try:
                settings = load_settings(config, recipe.settings)
                recipe.validate(settings)
            except ConfigError as error:
                problems = problems_of(recipe, list(HydraConfig.get().overrides.task))
                raise ConfigError(as_list(problems) or str(error)) from None
            given = (getattr(settings, key, None) for key in ("output_dir", "cache_dir"))
            places += [Path(place).expanduser() for place in given if place]
            COMMANDS[name](settings)

    try:
        os.getcwd()
    except FileNotFoundError:
        sys.exit(f"{StorageError.__name__}: the folder you are in was removed or moved; cd to one that is there")
    register_resolvers()
    register_help(recipe, f"python {sys.argv[0]}" if sys.argv[0].endswith(".py") else f"nemo-reasoning {name}")
    os.environ[_FULL_ERROR] = "1"  # Hydra raises what it cannot compose, for us to explain
    try:
        hydra.main(version_base="1.3", config_path=CONF_PACKAGE, config_name=recipe.root)(job)()
    except (HydraException, OmegaConfBaseException) as error:
        with one_line_errors():
            raise ConfigError(as_list(problems_of_command_line(recipe)) or str(error)) from error
    except BrokenPipeError:  # `--help | head`: nobody reads on, and Python would say so once more as it ends
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    finally:
        _restore(full_errors)


def _restore(full_errors: str | None) -> None:
    """Set Hydra's switch back to what the user has it at."""
    os.environ.pop(_FULL_ERROR, None)
    if full_errors is not None:
        os.environ[_FULL_ERROR] = full_errors


@contextmanager
def one_line_errors(command: str = "this command", *, places: Sequence[Path] = ()) -> Iterator[None]:
    """Turn an exception into its message and exit code 1; a traceback that is not ours to explain goes to a file.

    HYDRA_FULL_ERROR=1 shows every traceback.

    Args:
        command: What runs.
        places: Where it writes; read when a disk is full.
    """
    warnings.filterwarnings("ignore", message="The pynvml package is deprecated")  # while others are imported
    # Without its faster kernel for CPUs, which it would load from the hub, bitsandbytes computes all the same.
    logging.getLogger("bitsandbytes.backends.cpu.ops").setLevel(logging.ERROR)
    try:
        yield
    except NemoReasoningError as error:
        text = harmless(str(error))
        sys.exit(f"{type(error).__name__}:{chr(10) if text.startswith('- ') else ' '}{text}")
    except KeyboardInterrupt:
        if os.environ.get(_FULL_ERROR) == "1":
            raise
        print(f"\n{command}: stopped by Ctrl-C; run it again to go on", file=sys.stderr)
        sys.exit(128 + signal.SIGINT)
    except BaseException as error:
        if not is_failure(error):
            raise
        if isinstance(error, ModuleNotFoundError) and (known := explained(error, command=command)):
            sys.exit(f"{type(known).__name__}: {known}")
        if os.environ.get(_FULL_ERROR) == "1":
            raise
        if problem := storage_problem(error, places=[*places, Path(tempfile.gettempdir())]):
            sys.exit(f"{StorageError.__name__}: {problem}, then run the same command again")
        with tempfile.NamedTemporaryFile("w", prefix="nemo-reasoning-", suffix=".log", delete=False) as log:
            traceback.print_exc(file=log)
        said = harmless(str(error))
        if not isinstance(error, Exception):  # of torch's, which hold a traceback; the cause is its last line
            said = said.strip().splitlines()[-1]
        sys.exit(f"{type(error).__name__}: {said}\nThis was not foreseen; the traceback is in {log.name}")
