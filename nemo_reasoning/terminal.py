"""A terminal that shows what the user asked for, and a log file for the rest."""

import errno
import io
import logging
import os
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any, TextIO

from rich.console import Console

from nemo_reasoning.errors import is_failure

# Besides the root logger: those of NeMo, Megatron and Lightning keep their records to themselves.
_LOGGERS = ("", "nemo_logger", "megatron.core", "lightning.pytorch", "lightning.fabric")
_STDOUT, _STDERR = 1, 2


def plain_console(**options: Any) -> Console:
    """Return a console that shows text as it is: brackets and colons of paths, values and messages are no markup."""
    return Console(highlight=False, markup=False, emoji=False, **options)


@contextmanager
def quiet_output(log_file: Path) -> Iterator[TextIO]:
    """Send everything written to stdout and stderr to `log_file`, and yield the terminal.

    The file descriptors themselves are redirected, so C++ libraries, child processes and whatever
    packages print while they are imported are covered: enter before importing NeMo. Log records of
    level ERROR and above also reach the terminal. An exception leaves the block with the terminal
    restored, so its traceback is seen.

    Args:
        log_file: Appended to, by all ranks of a machine.

    Yields:
        A text stream to the original stdout.
    """
    log_file.parent.mkdir(parents=True, exist_ok=True)
    with ExitStack() as stack:
        terminal = stack.enter_context(_Terminal(os.dup(_STDOUT)))
        stack.enter_context(_descriptors_to(log_file))
        stack.enter_context(_errors_to(terminal))
        try:
            yield terminal
        except BaseException as error:
            if not is_failure(error):
                raise
            terminal.write(f"Failed; what led to it is in {log_file}\n")
            raise


class _Terminal(io.TextIOWrapper):
    """The original stdout. When it is gone, a closed window or a broken pipe, what is shown goes to the log instead."""

    def __init__(self, descriptor: int) -> None:
        """Take over a descriptor."""
        super().__init__(io.FileIO(descriptor, "w"), encoding="utf-8", write_through=True)
        self._gone = False

    def write(self, text: str) -> int:
        """Show `text`."""
        data = text.encode("utf-8", errors="backslashreplace")
        while data and not self._gone:
            try:
                data = data[os.write(self.fileno(), data) :]
            except OSError as error:
                if error.errno not in (errno.EIO, errno.EPIPE, errno.EBADF):
                    raise
                self._gone = True
        if self._gone:
            sys.stdout.write(text)
        return len(text)


@contextmanager
def _descriptors_to(log_file: Path) -> Iterator[None]:
    # Python's own streams are replaced as well: a notebook's or a test runner's do not use 1 and 2.
    # The replacements borrow the descriptors, so handlers that keep them still work after the block.
    log = os.open(log_file, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
    saved = {descriptor: os.dup(descriptor) for descriptor in (_STDOUT, _STDERR)}
    out, err = (
        os.fdopen(descriptor, "w", buffering=1, encoding="utf-8", errors="backslashreplace", closefd=False)
        for descriptor in saved
    )
    sys.stdout.flush()
    sys.stderr.flush()
    for descriptor in saved:
        os.dup2(log, descriptor)
    os.close(log)
    before = (sys.stdout, sys.stderr)
    try:
        with redirect_stdout(out), redirect_stderr(err):
            yield
    finally:
        for stream in (*before, out, err):
            stream.flush()
        for descriptor, original in saved.items():
            os.dup2(original, descriptor)
            os.close(original)


@contextmanager
def _errors_to(terminal: TextIO) -> Iterator[None]:
    handlers: list[tuple[logging.Logger, logging.Handler]] = []
    shown = logging.StreamHandler(terminal)
    shown.setFormatter(logging.Formatter("%(levelname)s %(name)s: %(message)s"))
    shown.addFilter(_first_time_error)
    root = logging.getLogger()
    if not root.handlers:  # a handler of ours turns off logging's last resort, which wrote to stderr
        handlers.append((root, logging.StreamHandler(sys.stderr)))
    handlers += [(logging.getLogger(name), shown) for name in _LOGGERS]
    for logger, handler in handlers:
        logger.addHandler(handler)
    try:
        yield
    finally:
        for logger, handler in handlers:
            logger.removeHandler(handler)


def _first_time_error(record: logging.LogRecord) -> bool:
    # A filter and not a level, since NeMo sets the level of every handler it finds.
    if record.levelno < logging.ERROR or getattr(record, "shown_on_terminal", False):
        return False
    record.shown_on_terminal = True
    return True
