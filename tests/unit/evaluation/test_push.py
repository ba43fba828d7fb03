"""Exports and data are uploaded with a card that a hub reads; a hub on this machine takes them."""

import base64
import hashlib
import io
import json
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from types import SimpleNamespace
from typing import Any

import pytest
import yaml
from huggingface_hub import constants
from rich.console import Console

from nemo_reasoning.artifacts import write_json, write_manifest, write_text
from nemo_reasoning.config.model import PeftScheme, PeftSettings, Start
from nemo_reasoning.config.push import Pushed, PushSettings, validate
from nemo_reasoning.errors import ConfigError, ExportError
from nemo_reasoning.evaluation import push as module
from nemo_reasoning.evaluation.push import prepare_upload, push
from nemo_reasoning.evaluation.report.training import save_measurement
from nemo_reasoning.evaluation.samples import Evaluation, Sample
from nemo_reasoning.export.serve_commands import model_card
from nemo_reasoning.models.hub import BaseModel
from nemo_reasoning.reasoning.messages import Mode
from nemo_reasoning.training.checkpoints import Checkpoint, content_id

COUNTS = {"train": {"rows": 1200}, "validation": {"rows": 60}}
TOKEN = "hf_of_a_test"
COMMIT = "https://huggingface.co/me/demo/commit/1"
SETTINGS = PushSettings("run", "me/demo", Pushed.hf_peft, None, [], private=True, revision=None, dry_run=True)
PEFT = PeftSettings(PeftScheme.lora, 8, 16, 0.0, ["linear_qkv"], rslora=False, start_from=None, start=Start.adapter)


def trained_on(source: str, **peft: Any) -> Any:
    return SimpleNamespace(model=SimpleNamespace(source=source), peft=replace(PEFT, **peft))


@dataclass
class Run:
    """What is uploaded of a run."""

    path: Path
    settings: Any = field(default_factory=lambda: trained_on("some/base"))

    def __post_init__(self) -> None:
        self.data, self.export_dir = self.path / "data", self.path / "export"

    def selected(self) -> tuple[Checkpoint, str]:
        return Checkpoint(self.path / "checkpoints" / "step=4", 4, None), "the last"


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Return a finished run, exported, its rows prepared."""
    found = Run(tmp_path)
    for name in ("hf_peft", "merged"):
        served: Any = {"template": "{{ messages }}", "commands": {"vllm": "vllm serve ."}}
        card = model_card(name, base=BaseModel("some/base", Path("/hub/base"), "0123"), peft=PEFT, **served)
        write_text(found.export_dir / name / "README.md", card)
        (found.export_dir / name / "adapter_model.safetensors").write_bytes(b"weights" * 100)
        write_json(found.export_dir / name / "adapter_config.json", {"r": 8})
    found.data.mkdir()
    for split in ("training", "validation"):
        (found.data / f"{split}.jsonl").write_text('{"messages": []}\n')
    write_manifest(found.data, stage="prepare", inputs={}, settings={}, counts=COUNTS, produced=[])
    monkeypatch.setattr(module.Run, "open", lambda path: found)
    monkeypatch.setattr(module, "holds_export", lambda run, name: (run.export_dir / name).is_dir())
    return found


def head(card: str) -> Any:
    return yaml.safe_load(card.split("---\n")[1])


def test_the_card_says_what_is_known_and_nothing_else(run: Run) -> None:
    upload = prepare_upload(SETTINGS)
    assert (upload.repo_type, sorted(upload.files)) == ("model", ["adapter_config.json", "adapter_model.safetensors"])
    assert head(upload.card)["base_model"] == "some/base"
    assert not {"license", "datasets", "model-index"} & head(upload.card).keys()

    chosen = replace(SETTINGS, license="llama3.1", datasets=["some/rows"], what=Pushed.merged)
    found = head(prepare_upload(chosen).card)
    assert (found["license"], found["datasets"]) == ("llama3.1", ["some/rows"])
    assert "vllm serve ." in prepare_upload(chosen).card


def sample(mode: Mode, number: int, *, correct: bool) -> Sample:
    texts = dict.fromkeys(("family", "prompt", "expected", "extracted", "reasoning", "answer", "text"), "x")
    flags = {"correct": correct, "well_formed": True, "truncated": False, "refused": False}
    counts = {"budget": None, "index": 0, "completion_tokens": 1, "reasoning_tokens": 0, "seconds": 0.1}
    return Sample(question=str(number), mode=mode, **texts, **flags, **counts)  # type: ignore[arg-type]


def test_measurements_of_these_weights_go_into_the_model_index(run: Run) -> None:
    asked = [sample("on", number, correct=number > 0) for number in range(3)] + [sample("off", 0, correct=False)]
    of = {"weights": content_id(run.selected()[0])}
    save_measurement(run.path, "trained", Evaluation(tuple(asked)), of=of, seconds=1.0)
    (index,) = head(prepare_upload(SETTINGS).card)["model-index"]
    values = {result["dataset"]["name"]: result["metrics"][0]["value"] for result in index["results"]}
    name = "held-out built-in problems, thinking"
    assert values == {f"{name} on": 0.6667, f"{name} off": 0.0}
    save_measurement(run.path, "trained", Evaluation(tuple(asked)), of={"weights": "of an earlier step"}, seconds=1.0)
    assert "model-index" not in head((upload := prepare_upload(SETTINGS)).card)
    assert "not known to be of the best checkpoint" in upload.note


def test_data_are_a_dataset_with_splits(run: Run) -> None:
    upload = prepare_upload(replace(SETTINGS, what=Pushed.data, license="cc-by-4.0"))
    assert (upload.repo_type, sorted(upload.files)) == (
        "dataset",
        ["manifest.json", "training.jsonl", "validation.jsonl"],
    )
    files = head(upload.card)["configs"][0]["data_files"]
    assert files == [
        {"split": "train", "path": "training.jsonl"},
        {"split": "validation", "path": "validation.jsonl"},
    ]
    assert "1,200 training and 60 validation rows" in upload.card
    (run.data / "training.jsonl").unlink()
    with pytest.raises(ExportError, match="has no training.jsonl; prepare it"):
        prepare_upload(replace(SETTINGS, what=Pushed.data))


def test_data_are_published_without_places_of_this_machine(run: Run) -> None:
    rows, settings = {f"{run.path}/rows.jsonl": {"bytes": 1}}, {"paths": [f"{run.path}/rows.jsonl"]}
    write_manifest(run.data, stage="prepare", inputs=rows, settings=settings, counts=COUNTS, produced=[])
    sent = prepare_upload(replace(SETTINGS, what=Pushed.data)).files["manifest.json"]
    assert isinstance(sent, bytes)
    assert str(run.path) not in sent.decode()
    assert json.loads(sent)["inputs"] == {"rows.jsonl": {"bytes": 1}}


def test_what_nobody_could_use_is_refused(run: Run) -> None:
    merged = {"start_from": "first", "start": Start.merged}
    for settings in (trained_on(str(run.path)), trained_on("/gone/base"), trained_on("some/base", **merged)):
        run.settings = settings
        with pytest.raises(ExportError, match="which nobody finds on a hub.*what=merged"):
            prepare_upload(SETTINGS)
    (run.export_dir / "merged").rename(run.export_dir / "gone")
    with pytest.raises(ExportError, match=r"the best checkpoint as merged; export it first: .*\[merged\]"):
        prepare_upload(replace(SETTINGS, what=Pushed.merged))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"repo": "demo"}, "repo=demo: give owner/name"),
        ({"license": "Apache 2"}, "license=Apache 2: give a hub's spelling"),
        ({"datasets": ["some/rows", "rows"]}, "datasets=rows: give hub ids"),
    ],
)
def test_settings_a_hub_would_refuse(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        validate(replace(SETTINGS, **changes))


@dataclass
class Hub:
    """A hub: what it was asked, and what it holds."""

    address: str = ""
    asked: list[str] = field(default_factory=list)
    refusals: dict[str, tuple[int, Any]] = field(default_factory=dict)  # by a part of the path
    files: dict[str, bytes] = field(default_factory=dict)
    stored: dict[str, bytes] = field(default_factory=dict)
    private: bool = False


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    """Serve the requests of an upload: create, preupload, large files, commit."""
    found = Hub()

    class Handler(BaseHTTPRequestHandler):
        def _body(self) -> bytes:
            return self.rfile.read(int(self.headers.get("Content-Length", 0)))

        def do_POST(self) -> None:
            body = self._body()
            found.asked.append(self.path)
            if self.headers.get("authorization") != f"Bearer {TOKEN}":
                self._answer({"error": "no"}, status=401)
            elif part := next((part for part in found.refusals if part in self.path), None):
                status, answer = found.refusals[part]
                self._answer(answer, status=status)
            elif self.path == "/api/repos/create":
                found.private = json.loads(body)["private"]
                self._answer({"url": f"{found.address}/me/demo"})
            elif "/preupload/" in self.path:
                files = json.loads(body)["files"]
                modes = {True: "lfs", False: "regular"}
                large = {file["path"]: file["path"].endswith(".safetensors") for file in files}
                self._answer(
                    {"files": [{"path": p, "uploadMode": modes[x], "shouldIgnore": False} for p, x in large.items()]}
                )
            elif self.path.endswith("/objects/batch"):
                objects = json.loads(body)["objects"]
                actions = {"upload": {"href": f"{found.address}/store"}}
                self._answer({"objects": [{**one, "actions": actions} for one in objects]})
            else:
                self._commit([json.loads(line) for line in body.splitlines()])

        def _commit(self, lines: list[Any]) -> None:
            for line in lines[1:]:
                value = line["value"]
                large = line["key"] == "lfsFile"
                content = found.stored[value["oid"]] if large else base64.b64decode(value["content"])
                found.files[value["path"]] = content
            self._answer({"success": True, "commitOid": "1" * 40, "commitUrl": COMMIT})

        def do_PUT(self) -> None:
            body = self._body()
            found.stored[hashlib.sha256(body).hexdigest()] = body
            self._answer({})

        def do_GET(self) -> None:
            self._answer({"id": "me/demo", "sha": "1" * 40, "siblings": []})

        def _answer(self, content: Any, *, status: int = 200) -> None:
            body = json.dumps(content).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *args: object) -> None:
            """Keep quiet."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        found.address = f"http://127.0.0.1:{server.server_port}"
        monkeypatch.setenv("NO_PROXY", "127.0.0.1")
        monkeypatch.setenv("HF_TOKEN", TOKEN)
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
        monkeypatch.setattr(module, "HfApi", lambda: __import__("huggingface_hub").HfApi(endpoint=found.address))
        from huggingface_hub import configure_http_backend

        configure_http_backend()  # forgets the sessions opened before
        yield found
        server.shutdown()
    configure_http_backend()


def test_a_dry_run_sends_nothing(run: Run, hub: Hub) -> None:
    text = io.StringIO()
    push(SETTINGS, Console(file=text, width=200))
    assert hub.asked == []
    assert "adapter_model.safetensors  700 bytes" in text.getvalue()
    assert "base_model: some/base" in text.getvalue()
    assert "nothing was sent; dry_run=false" in text.getvalue()


def test_everything_is_uploaded_in_one_commit(run: Run, hub: Hub) -> None:
    text = io.StringIO()
    push(replace(SETTINGS, dry_run=False, license="apache-2.0"), Console(file=text, width=200))
    folder = run.export_dir / "hf_peft"
    assert {name: content for name, content in hub.files.items() if name != "README.md"} == {
        path.name: path.read_bytes() for path in folder.iterdir() if path.name != "README.md"
    }
    assert head(hub.files["README.md"].decode())["license"] == "apache-2.0"
    assert hub.private
    assert sum("/commit/" in path for path in hub.asked) == 1
    assert f"uploaded: {COMMIT}" in text.getvalue()


def test_a_hub_that_refuses_is_quoted(run: Run, hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_wrong")
    with pytest.raises(ExportError, match=r"does not let you write to me/demo \(401\); set HF_TOKEN"):
        push(replace(SETTINGS, dry_run=False), Console(file=io.StringIO()))
    assert not hub.files


INVALID = '"license" must be one of [apache-2.0, mit]'


@pytest.mark.parametrize(
    ("part", "refusal", "message"),
    [
        (
            "validate-yaml",
            (400, {"errors": [{"message": INVALID}]}),
            r'"license" must be one of .*; correct the setting',
        ),
        ("/commit/", (422, {"error": "too many tags"}), "too many tags.*; correct the setting"),
        ("/preupload/", (404, {"error": "Invalid rev id: old"}), "revision=old is no branch of me/demo: create it"),
        ("/commit/", (500, {"error": "a moment"}), "a moment.*; run the same command again"),
    ],
)
def test_each_refusal_has_its_remedy(run: Run, hub: Hub, part: str, refusal: tuple[int, Any], message: str) -> None:
    hub.refusals[part] = refusal
    with pytest.raises(ExportError, match=message):
        push(replace(SETTINGS, license="apache2", revision="old", dry_run=False), Console(file=io.StringIO()))
