"""A hub on this machine: the four requests that streaming a dataset makes, with a record of the bytes sent."""

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlparse

COMMIT = "0123456789abcdef0123456789abcdef01234567"
REPOSITORY = "nvidia/Llama-Nemotron-Post-Training-Dataset"


class Hub:
    """Serves the files below a folder as one dataset.

    Attributes:
        ranges: (file, first byte, last byte) of every range sent.
        broken: Ranges still to break off in the middle.
        gated: Whether the terms have to be accepted first.
        refused: Status that a path is answered with, by what it contains, and how often it still is.
    """

    def __init__(self, folder: Path) -> None:
        self.folder, self.ranges, self.broken, self.gated = folder, list[tuple[str, int, int]](), 0, False
        self.refused = dict[str, tuple[int, int]]()

    def refusal(self, path: str) -> int | None:
        """Return the status that a path is refused with, if it still is."""
        for part, (status, times) in self.refused.items():
            if part in path and times:
                self.refused[part] = (status, times - 1)
                return status
        return None

    def entries(self, below: str) -> list[dict[str, Any]]:
        """Return what the API says about the files in a folder of the dataset, or about one file."""
        path = self.folder / below
        files = [path] if path.is_file() else sorted(path.iterdir()) if path.is_dir() else []
        return [
            {
                "type": "file" if file.is_file() else "directory",
                "path": str(file.relative_to(self.folder)),
                "size": file.stat().st_size,
                "oid": "0" * 40,
            }
            for file in files
        ]


@contextmanager
def serving(folder: Path) -> Iterator[tuple[str, Hub]]:
    """Yield the address of a hub with the files below a folder, and the hub."""
    hub = Hub(folder)
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"hub": hub}))
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}", hub
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


class _Handler(BaseHTTPRequestHandler):
    hub: Hub
    protocol_version = "HTTP/1.1"

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        path = unquote(urlparse(self.path).path)
        api = f"/api/datasets/{REPOSITORY}"
        if status := self.hub.refusal(path):
            self._head(status, 0, ("X-Error-Message", "Invalid credentials in Authorization header"))
        elif self.hub.gated and (path.endswith("/auth-check") or "/resolve/" in path):
            self._head(403, 0, ("X-Error-Code", "GatedRepo"))
        elif path.startswith(f"{api}/tree/"):
            self._json(self.hub.entries(path.removeprefix(f"{api}/tree/").partition("/")[2]))
        elif path.startswith(f"{api}/revision/") and path.rpartition("/")[2] not in ("main", COMMIT):
            self._head(404, 0, ("X-Error-Code", "RevisionNotFound"))
        elif path == api or path.startswith(f"{api}/revision/"):
            self._json({"id": REPOSITORY, "sha": COMMIT, "siblings": [], "gated": "auto" if self.hub.gated else False})
        elif path.startswith(f"/datasets/{REPOSITORY}/resolve/{COMMIT}/"):
            self._file(path.partition(f"{COMMIT}/")[2])
        elif path.startswith("/api/"):
            self._head(401, 0, ("X-Error-Code", "RepoNotFound"))  # as the hub answers the unknown
        else:
            self.send_error(404)

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"])).decode()
        asked = (
            json.loads(body)["paths"] if body.startswith("{") else [unquote(body.partition("paths=")[2].split("&")[0])]
        )
        self._json([entry for path in asked for entry in self.hub.entries(path)])

    def _json(self, value: Any) -> None:
        content = json.dumps(value).encode()
        self._head(200, len(content))
        self._body(content)

    def _file(self, name: str) -> None:
        content, wanted = (self.hub.folder / name).read_bytes(), self.headers["Range"]
        if wanted is None:
            self._head(200, len(content))
            self._body(content)
            return
        first, last = (int(number) for number in wanted.removeprefix("bytes=").split("-"))
        last = min(last, len(content) - 1)
        self.hub.ranges.append((name, first, last))
        self._head(206, last - first + 1, ("Content-Range", f"bytes {first}-{last}/{len(content)}"))
        if self.hub.broken:
            self.hub.broken -= 1
            self._body(content[first : (first + last) // 2])
            self.close_connection = True
            return
        self._body(content[first : last + 1])

    def _head(self, status: int, length: int, *headers: tuple[str, str]) -> None:
        self.send_response(status)
        for name, value in (("Content-Length", str(length)), ("ETag", '"0"'), ("X-Repo-Commit", COMMIT), *headers):
            self.send_header(name, value)
        self.end_headers()

    def _body(self, content: bytes) -> None:
        if self.command != "HEAD":
            self.wfile.write(content)

    def log_message(self, *_: Any) -> None:
        """Say nothing."""
