"""Let Prometheus read a running service as docker/serve.yaml has it, and ask it for everything that the board shows.

    python benchmarks/board.py            # needs prometheus; on Debian: apt-get install prometheus
    python benchmarks/board.py --quick    # fewer requests

Neither Docker nor Grafana is needed: the configuration is docker/prometheus.yaml with other addresses. The last line is
a JSON object.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import httpx
import yaml
from replicas import MODEL, ROOT, free_port, wait_for
from rich.console import Console
from rich.table import Table

from nemo_reasoning.models.hub import PACKAGED_MODEL

KEY = "a-key-of-prometheus"
SCRAPE_SECONDS = 1


def main() -> None:
    """Run it and print a table and a JSON object."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="4 requests instead of 20")
    count = 4 if parser.parse_args().quick else 20
    if shutil.which("prometheus") is None:
        sys.exit("prometheus is not installed; on Debian: apt-get install prometheus")
    with tempfile.TemporaryDirectory() as name:
        folder, ports, started = Path(name), (free_port(), free_port()), list[subprocess.Popen[bytes]]()
        try:
            started.append(service(folder, ports[0]))
            wait_for(f"http://127.0.0.1:{ports[0]}/ready", started[0])
            started.append(prometheus(folder, *ports))
            wait_for(f"http://127.0.0.1:{ports[1]}/-/ready", started[1])
            wait_until_read(f"http://127.0.0.1:{ports[1]}/api/v1/query")
            ask(f"http://127.0.0.1:{ports[0]}/v1/chat/completions", count)
            report(f"http://127.0.0.1:{ports[1]}/api/v1/query", arguments=Path(f"/proc/{started[0].pid}/cmdline"))
        finally:
            for process in started:
                process.kill()
                process.wait()


def service(folder: Path, port: int) -> "subprocess.Popen[bytes]":
    """Start the service, with the key in a file."""
    (folder / "api_keys").write_text(f"{KEY}\n")
    settings = [f"checkpoint={PACKAGED_MODEL}", "template=chatml", f"name={MODEL}", f"port={port}"]
    command = [sys.executable, str(ROOT / "recipes" / "serve.py"), *settings, f"api_key_file={folder / 'api_keys'}"]
    return subprocess.Popen(command, stderr=subprocess.DEVNULL)


def prometheus(folder: Path, service_port: int, port: int) -> "subprocess.Popen[bytes]":
    """Start Prometheus with the configuration of docker/, which asks more often here."""
    config = yaml.safe_load((ROOT / "docker" / "prometheus.yaml").read_text(encoding="utf-8"))
    config["global"]["scrape_interval"] = f"{SCRAPE_SECONDS}s"
    [job] = config["scrape_configs"]
    job["authorization"]["credentials_file"] = str(folder / "api_keys")
    job["static_configs"] = [{"targets": [f"127.0.0.1:{service_port}"]}]
    (folder / "prometheus.yaml").write_text(yaml.safe_dump(config), encoding="utf-8")
    where = [f"--web.listen-address=127.0.0.1:{port}", f"--storage.tsdb.path={folder / 'data'}"]
    command = ["prometheus", f"--config.file={folder / 'prometheus.yaml'}", "--log.level=error", *where]
    return subprocess.Popen(command, env=os.environ)


def wait_until_read(url: str) -> None:
    """Wait until Prometheus has read the service: what was counted before that is no rate."""
    while not (found := httpx.get(url, params={"query": "up == 1"}).json()["data"]["result"]):
        time.sleep(SCRAPE_SECONDS)
    print(f"read: {found[0]['metric']['job']}", file=sys.stderr)


def ask(url: str, count: int) -> None:
    """Ask some questions, with a pause that lets Prometheus see the numbers grow; one has no key."""
    body = {"model": MODEL, "messages": [{"role": "user", "content": "What is 2 + 2?"}], "max_tokens": 8}
    headers = {"Authorization": f"Bearer {KEY}"}
    assert httpx.post(url, json=body).status_code == 401
    for _ in range(count):
        httpx.post(url, json=body, headers=headers, timeout=60).raise_for_status()
        time.sleep(SCRAPE_SECONDS)
    time.sleep(2 * SCRAPE_SECONDS)


def report(url: str, *, arguments: Path) -> None:
    """Ask for every expression of the board, and print what it shows."""
    board = json.loads((ROOT / "docker" / "grafana" / "boards" / "service.json").read_text(encoding="utf-8"))
    table, shown, empty = Table("panel", "series", "last value"), 0, list[str]()
    for panel in board["panels"]:
        for target in panel["targets"]:
            query = target["expr"].replace("$__rate_interval", "1m")
            answer = httpx.get(url, params={"query": query}).raise_for_status().json()
            for series in answer["data"]["result"]:
                named = ", ".join(series["metric"].values()) or target["legendFormat"]
                table.add_row(panel["title"], named, series["value"][1][:8])
            shown += bool(answer["data"]["result"])
            empty += [] if answer["data"]["result"] else [panel["title"]]
    up = httpx.get(url, params={"query": "up"}).json()["data"]["result"]
    Console().print(table)
    hidden = KEY not in arguments.read_text()
    print(json.dumps({"up": [one["value"][1] for one in up], "shown": shown, "empty": empty, "key_hidden": hidden}))


if __name__ == "__main__":
    main()
