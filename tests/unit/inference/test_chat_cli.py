"""Lines typed and pasted into the terminal chat."""

from pathlib import Path

import pytest
from prompt_toolkit.input import create_pipe_input
from prompt_toolkit.output import DummyOutput

from nemo_reasoning.inference.chat_cli import prompt_session


@pytest.mark.parametrize(
    ("keys", "line"),
    [
        ("abd\x1b[D\x7fc\r", "acd"),  # one to the left, one deleted, one typed
        ("\x1b[200~one\r\n\r\ntwo\x1b[201~!\r", "one\n\ntwo!"),  # pasted paragraphs are one message
        ("one\x1b\rtwo\r", "one\ntwo"),  # Alt-Enter
        ("\x1b[A\r", "said before"),  # the arrow up
    ],
)
def test_lines_are_edited(tmp_path: Path, keys: str, line: str) -> None:
    with create_pipe_input() as pipe:
        pipe.send_text("said before\r")
        assert prompt_session(tmp_path / "history", input=pipe, output=DummyOutput()).prompt("> ") == "said before"
        pipe.send_text(keys)
        assert prompt_session(tmp_path / "history", input=pipe, output=DummyOutput()).prompt("> ") == line
    assert "said before" in (tmp_path / "history").read_text()
