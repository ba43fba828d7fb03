"""What stages hand to each other appears whole or not at all."""

import json
import os
import signal
import subprocess
import sys
from importlib import metadata
from pathlib import Path
from select import select
from typing import Any

import pytest

from nemo_reasoning import __version__
from nemo_reasoning.artifacts import (
    MANIFEST,
    atomic_path,
    cached_folder,
    file_sha256,
    fingerprint,
    installed_versions,
    portable,
    read_manifest,
    write_json,
    write_manifest,
    write_text,
)
from nemo_reasoning.errors import CheckpointError

# Builds a folder out of two files; says when half of it stands, and then waits for a line on its input.
BUILDER = """
import sys
from pathlib import Path
from nemo_reasoning.artifacts import cached_folder

def build(folder):
    (folder / "first").write_text("1")
    print("half", flush=True)
    sys.stdin.readline()
    (folder / "second").write_text("2")

print("start", flush=True)
cached_folder(Path(sys.argv[1]), build)
print("there", flush=True)
"""


def names(folder: Path) -> list[str]:
    """Return what is in a folder, lock files aside."""
    return sorted(path.name for path in folder.iterdir() if path.suffix != ".lock")


def start_builder(folder: Path) -> "subprocess.Popen[str]":
    """Start a process that builds `folder`."""
    return subprocess.Popen(
        [sys.executable, "-c", BUILDER, str(folder)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )


def line(process: "subprocess.Popen[str]") -> str:
    """Return the next line a process prints, waiting for it."""
    assert process.stdout is not None
    return process.stdout.readline().strip()


def proceed(process: "subprocess.Popen[str]") -> None:
    """Send the line a builder waits for."""
    assert process.stdin is not None
    process.stdin.write("go\n")
    process.stdin.flush()


def write_both(folder: Path) -> None:
    """Fill a folder at once."""
    (folder / "first").write_text("1")
    (folder / "second").write_text("2")


def test_a_file_is_replaced_whole(tmp_path: Path) -> None:
    path = tmp_path / "new" / "file.txt"
    write_text(path, "old")
    with atomic_path(path) as temporary:
        temporary.write_text("now")
        assert (temporary.parent, path.read_text()) == (path.parent, "old")

    assert path.read_text() == "now"
    assert path.stat().st_mode & 0o777 == 0o644
    assert names(path.parent) == ["file.txt"]


def fail_to_write(path: Path) -> None:
    """Write half of a file, then fail."""
    with atomic_path(path) as temporary:
        temporary.write_text("half")
        raise OSError("disk full")


@pytest.mark.parametrize("before", [["file.txt"], []])
def test_a_failed_write_leaves_what_was_there(tmp_path: Path, before: list[str]) -> None:
    for name in before:
        write_text(tmp_path / name, "old")
    with pytest.raises(OSError, match="disk full"):
        fail_to_write(tmp_path / "file.txt")

    assert [(path.name, path.read_text()) for path in tmp_path.iterdir()] == [(name, "old") for name in before]


def test_a_value_json_cannot_hold_leaves_the_old_file(tmp_path: Path) -> None:
    write_json(tmp_path / "value.json", {"é": 1})
    with pytest.raises(TypeError):
        write_json(tmp_path / "value.json", {"path": tmp_path})

    assert (tmp_path / "value.json").read_text(encoding="utf-8") == '{\n  "é": 1\n}\n'


def test_a_folder_is_built_once(tmp_path: Path) -> None:
    calls: list[Path] = []

    def build(folder: Path) -> None:
        calls.append(folder)
        assert not (tmp_path / "new" / "model").exists()
        write_both(folder)

    for _ in range(2):
        assert cached_folder(tmp_path / "new" / "model", build) == tmp_path / "new" / "model"

    assert len(calls) == 1
    assert names(tmp_path / "new" / "model") == ["first", "second"]
    assert (tmp_path / "new" / "model").stat().st_mode & 0o777 == 0o755


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_a_failed_build_leaves_nothing(tmp_path: Path, error: type[BaseException]) -> None:
    def build(folder: Path) -> None:
        write_both(folder)
        raise error

    with pytest.raises(error):
        cached_folder(tmp_path / "model", build)

    assert names(tmp_path) == []


def test_two_processes_build_once(tmp_path: Path) -> None:
    folder = tmp_path / "model"
    with start_builder(folder) as first:
        assert (line(first), line(first)) == ("start", "half")
        with start_builder(folder) as second:
            assert line(second) == "start"
            assert not select([second.stdout], [], [], 0.3)[0]  # long enough to build, if nothing stopped it
            proceed(first)
            assert (line(first), line(second)) == ("there", "there")

    assert (names(tmp_path), names(folder)) == (["model"], ["first", "second"])


def test_a_kill_in_the_middle_is_cleaned_up_by_the_next_builder(tmp_path: Path) -> None:
    with start_builder(tmp_path / "model[1]") as process:
        assert (line(process), line(process)) == ("start", "half")
        os.kill(process.pid, signal.SIGKILL)
    (leftover,) = names(tmp_path)
    assert leftover.startswith(".model[1].partial-")

    (tmp_path / ".model.partial-of-another-folder").mkdir()
    cached_folder(tmp_path / "model[1]", write_both)

    assert names(tmp_path) == [".model.partial-of-another-folder", "model[1]"]
    assert names(tmp_path / "model[1]") == ["first", "second"]


def test_hashes_are_those_of_the_standard(tmp_path: Path) -> None:
    (tmp_path / "abc").write_bytes(b"abc")

    # FIPS 180-2, appendix B.1
    assert file_sha256(tmp_path / "abc") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"


def test_a_fingerprint_depends_on_the_values_alone() -> None:
    value = {"b": [1, 2.5, None], "a": "é"}

    assert fingerprint(value) == fingerprint({"a": "é", "b": [1, 2.5, None]})
    assert len({fingerprint(other) for other in (value, {**value, "a": "e"}, {**value, "b": [2.5, 1, None]})}) == 3
    assert len(fingerprint(value)) == 16


def some_manifest(folder: Path) -> dict[str, Any]:
    """Write a manifest that lists two files."""
    (folder / "deep").mkdir()
    produced = [folder / "rows.jsonl", folder / "deep" / "abc"]
    for path in produced:
        path.write_bytes(b"abc")
    return write_manifest(
        folder, stage="prepare", inputs={"seed": 7}, settings={"rows": 2}, counts={"read": 2}, produced=produced
    )


def test_a_manifest_is_read_as_it_was_written(tmp_path: Path) -> None:
    written = some_manifest(tmp_path)

    assert read_manifest(tmp_path) == written == json.loads((tmp_path / MANIFEST).read_text())
    assert written["files"]["deep/abc"] == {"bytes": 3, "sha256": file_sha256(tmp_path / "deep" / "abc")}
    assert list(written["files"]) == ["rows.jsonl", "deep/abc"]
    assert (written["stage"], written["inputs"], written["settings"]) == ("prepare", {"seed": 7}, {"rows": 2})
    assert (written["counts"], written["versions"]) == ({"read": 2}, installed_versions())


def test_no_manifest_means_the_stage_did_not_finish(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"has no manifest\.json: its stage did not finish; run it again"):
        read_manifest(tmp_path)


@pytest.mark.parametrize("content", [b'{"stage": "prep', b"\xff\xfe"])
def test_a_broken_manifest_is_named(tmp_path: Path, content: bytes) -> None:
    (tmp_path / MANIFEST).write_bytes(content)

    with pytest.raises(CheckpointError, match=rf"{MANIFEST} is not valid JSON .*; delete {tmp_path} and run"):
        read_manifest(tmp_path)


def test_versions_are_those_installed() -> None:
    found = installed_versions()

    assert found["nemo-reasoning"] == __version__
    assert found["torch"] == metadata.version("torch")
    assert {"nemo_toolkit", "megatron-core", "lightning", "transformers", "tokenizers", "peft"} <= set(found)
    assert set(installed_versions(["rich", "no-such-distribution"])) == {"nemo-reasoning", "rich"}


def test_what_is_published_names_no_place_of_this_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write_text(tmp_path / "drafts" / "own.jsonl", "")
    own = f"{tmp_path}/private/rows.jsonl"
    places = [own, "~/other/rows.jsonl", "../up/more.jsonl", "drafts/own.jsonl", "drafts/*.jsonl", f"file://{own}"]
    names = ["rows.jsonl", "rows.jsonl", "more.jsonl", "own.jsonl", "*.jsonl", "rows.jsonl"]
    kept = {"root": "nvidia/Some-Dataset", "layout": ["SFT/math/*.jsonl", "hf://datasets/some/rows/a.jsonl"], "rows": 3}
    assert portable({"paths": places, **kept}) == {"paths": names, **kept}
    assert portable(dict.fromkeys(places[:3], 1)) == {"rows.jsonl": 1, "rows.jsonl (2)": 1, "more.jsonl": 1}
