"""A model hub on this machine: the few requests `huggingface_hub` makes for a download."""

import hashlib
import json
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread

COMMIT = "0123456789abcdef0123456789abcdef01234567"
_INFO = re.compile(r"/api/models/(.+?)(?:/revision/(.+))?")
_FILE = re.compile(rf"/(.+)/resolve/{COMMIT}/(.+)")


@dataclass
class Repository:
    """What the hub holds under a name: files, branches, and whether a licence has to be accepted first."""

    files: Mapping[str, bytes]
    gated: bool = False
    branches: tuple[str, ...] = ("main",)


@contextmanager
def fake_hub(repositories: Mapping[str, Repository]) -> Iterator[str]:
    """Serve the repositories for the length of the block; yields the hub's address."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            if match := _INFO.fullmatch(self.path):
                self._info(repositories.get(match[1]), match[1], match[2] or "main")
            elif match := _FILE.fullmatch(self.path):
                self._file(repositories[match[1]], match[2])
            else:
                self._answer(404)

        do_HEAD = do_GET

        def _info(self, repository: Repository | None, name: str, branch: str) -> None:
            if repository is None:
                self._answer(401, {"X-Error-Code": "RepoNotFound"})  # as the hub answers the unknown
            elif branch not in (*repository.branches, COMMIT):
                self._answer(404, {"X-Error-Code": "RevisionNotFound"})
            else:
                siblings = [{"rfilename": file} for file in repository.files]
                self._answer(200, {}, json.dumps({"id": name, "sha": COMMIT, "siblings": siblings}).encode())

        def _file(self, repository: Repository, name: str) -> None:
            if repository.gated:
                self._answer(403, {"X-Error-Code": "GatedRepo"})
                return
            content = repository.files[name]
            self._answer(200, {"ETag": f'"{hashlib.sha1(content).hexdigest()}"', "X-Repo-Commit": COMMIT}, content)

        def _answer(self, status: int, headers: Mapping[str, str] | None = None, body: bytes = b"") -> None:
            self.send_response(status)
            for name, value in (headers or {}).items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            if self.command == "GET":
                self.wfile.write(body)

        def log_message(self, *args: object) -> None:
            """Keep quiet."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
