"""Ask two replicas of the service behind one address, while one is killed and one is stopped, and both are replaced.

    python benchmarks/replicas.py            # 500 requests, half of them streams; needs haproxy
    python benchmarks/replicas.py --quick    # 60

Counts what was answered and what was lost. The last line is a JSON object.
"""

import argparse
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import openai
from rich.console import Console
from rich.table import Table

from nemo_reasoning.models.hub import PACKAGED_MODEL

ROOT = Path(__file__).resolve().parents[1]
CLIENTS, MODEL = 8, "sums"


class Replica:
    """A service of its own on a port that stays the same from process to process."""

    def __init__(self, log: Path) -> None:
        """Choose a port and start."""
        self.port, self._log = free_port(), log
        self.start()

    def start(self) -> None:
        """Start a process; the one before must be gone."""
        command = [
            sys.executable,
            str(ROOT / "recipes" / "serve.py"),
            f"checkpoint={PACKAGED_MODEL}",
            "template=chatml",
            f"name={MODEL}",
        ]
        with self._log.open("ab") as log:
            self.process = subprocess.Popen([*command, f"port={self.port}"], stdout=log, stderr=log)

    def wait(self) -> None:
        """Wait until it takes requests."""
        wait_for(f"http://127.0.0.1:{self.port}/ready", self.process)

    def replace(self, how: signal.Signals) -> float:
        """End it with a signal, start another in its place, and return the seconds until that takes requests."""
        began = time.monotonic()
        self.process.send_signal(how)
        self.process.wait()
        self.start()
        self.wait()
        return time.monotonic() - began


def main() -> None:
    """Run it and print a table and a JSON object."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="60 requests")
    count = 60 if parser.parse_args().quick else 500
    if shutil.which("haproxy") is None:
        sys.exit("haproxy is not installed; on Debian: apt-get install haproxy")
    with tempfile.TemporaryDirectory() as name:
        replicas = [Replica(Path(name) / f"{number}.log") for number in range(2)]
        listen, balancer = free_port(), None
        try:
            for replica in replicas:
                replica.wait()
            balancer = balance(replicas, listen)
            wait_for(f"http://127.0.0.1:{listen}/ready", balancer)
            report(*ask_while_replaced(f"http://127.0.0.1:{listen}/v1", count, replicas))
        finally:
            for process in (*(replica.process for replica in replicas), balancer):
                if process is not None:
                    process.kill()
                    process.wait()


def balance(replicas: list[Replica], port: int) -> "subprocess.Popen[bytes]":
    """Start the load balancer."""
    one, two = (f"127.0.0.1:{replica.port}" for replica in replicas)
    addresses = {"LISTEN": f"127.0.0.1:{port}", "REPLICA_ONE": one, "REPLICA_TWO": two}
    return subprocess.Popen(
        ["haproxy", "-db", "-f", str(ROOT / "docker" / "haproxy.cfg")], env={**os.environ, **addresses}
    )


def ask_while_replaced(url: str, count: int, replicas: list[Replica]) -> tuple[Counter[str], dict[str, float]]:
    """Ask from several clients; after a third of the answers one replica is killed, after two thirds one is stopped."""
    seen: Counter[str] = Counter()
    taken: dict[str, float] = {}
    third, two_thirds = threading.Event(), threading.Event()

    def one(number: int) -> None:
        seen[ask(url, number, stream=number % 2 == 1)] += 1
        done = seen.total()
        (third.set if done >= count / 3 else lambda: None)()
        (two_thirds.set if done >= count * 2 / 3 else lambda: None)()

    def replace() -> None:
        third.wait()
        taken["killed"] = replicas[0].replace(signal.SIGKILL)
        two_thirds.wait()
        taken["stopped"] = replicas[1].replace(signal.SIGTERM)

    replacing = threading.Thread(target=replace)
    replacing.start()
    began = time.monotonic()
    with ThreadPoolExecutor(CLIENTS) as pool:
        list(pool.map(one, range(count)))
    taken["all"] = time.monotonic() - began
    replacing.join()
    return seen, taken


def ask(url: str, number: int, *, stream: bool) -> str:
    """Return what became of a request."""
    kind = "stream" if stream else "whole answer"
    messages = [{"role": "user", "content": f"What is {number} + {number + 1}?"}]
    options = {"max_tokens": 12, "extra_body": {"chat_template_kwargs": {"enable_thinking": False}}}
    with openai.OpenAI(base_url=url, api_key="none", max_retries=0, timeout=120) as client:
        begun = False
        try:
            if not stream:
                answer = client.chat.completions.create(model=MODEL, messages=messages, **options)
                return f"{kind}: {'answered' if answer.choices[0].message.content else 'empty'}"
            ended = None
            for event in client.chat.completions.create(model=MODEL, messages=messages, stream=True, **options):
                begun = begun or bool(event.choices)
                ended = event.choices[0].finish_reason if event.choices else ended
        except (openai.APIError, httpx.HTTPError) as error:
            status = getattr(error, "status_code", type(error).__name__)
            return f"{kind}: {'cut after its first words' if begun else f'lost ({status})'}"
        return f"{kind}: {'answered' if ended else 'cut after its first words'}"


def free_port() -> int:
    """Return a port that nothing listens to."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port: int = found.getsockname()[1]
        return port


def wait_for(url: str, process: "subprocess.Popen[bytes]") -> None:
    """Wait until an address answers with 200."""
    while process.poll() is None:
        try:
            if httpx.get(url, timeout=5).is_success:
                return
        except httpx.HTTPError:
            pass
        time.sleep(0.1)
    sys.exit(f"{process.args} ended with {process.returncode}")


def report(seen: Counter[str], taken: dict[str, float]) -> None:
    """Print what became of the requests."""
    table = Table("what became of a request", "requests")
    for kind, number in sorted(seen.items()):
        table.add_row(kind, str(number))
    Console().print(table)
    print(json.dumps({"seen": seen, "seconds": {name: round(seconds, 1) for name, seconds in taken.items()}}))


if __name__ == "__main__":
    main()
