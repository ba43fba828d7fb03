"""What docker/ starts can be started, and what it shows is served."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from nemo_reasoning.cli import compose_settings
from nemo_reasoning.serving.app import _add_facts
from nemo_reasoning.serving.metrics import Metrics

DOCKER = Path(__file__).resolve().parents[2] / "docker"
COMMANDS = {"recipes/sft_lora.py": "sft", "recipes/serve.py": "serve"}
FILES = ("serve.yaml", "kubernetes/train.yaml", "kubernetes/serve.yaml")


def values(node: Any, key: str) -> Iterator[Any]:
    """Yield what stands under a key, at any depth."""
    if isinstance(node, dict):
        if key in node:
            yield node[key]
        node = list(node.values())
    for child in node if isinstance(node, list) else []:
        yield from values(child, key)


def documents(name: str) -> list[Any]:
    return list(yaml.safe_load_all((DOCKER / name).read_text(encoding="utf-8")))


@pytest.mark.parametrize("name", FILES)
def test_commands_have_settings_that_are_taken(name: str) -> None:
    commands = [command for command in values(documents(name), "command") if command[0] == "python"]
    for _, recipe, *given in commands:
        overrides = [re.sub(r"\$\{\w+:-(.*?)\}", r"\1", override) for override in given]
        compose_settings(COMMANDS[recipe], *overrides)
    assert commands


def test_every_expression_of_the_board_names_what_the_service_serves() -> None:
    metrics = Metrics(running=lambda: 0, waiting=lambda: 0)
    metrics.requests.labels("/", 200).inc()
    for by_model in (metrics.unfinished, metrics.first_token, metrics.duration):
        by_model.labels("m")
    metrics.tokens.labels("m", "prompt")
    served = set(re.findall(r"^(nemo_reasoning_\w+)", metrics.render().decode(), re.MULTILINE))
    board = json.loads((DOCKER / "grafana" / "boards" / "service.json").read_text(encoding="utf-8"))
    asked = {name for text in values(board, "expr") for name in re.findall(r"nemo_reasoning_\w+", text)}
    assert asked <= served
    stems = {re.sub(r"_(total|created|bucket|count|sum)$", "", name) for name in served}
    assert {re.sub(r"_(total|bucket|count)$", "", name) for name in asked} == stems  # nothing is left unseen


def test_the_parts_fit_each_other() -> None:
    [compose], [scraped] = documents("serve.yaml"), documents("prometheus.yaml")
    service = compose["services"]["service"]
    [job] = scraped["scrape_configs"]
    assert job["static_configs"] == [{"targets": ["service:8000"]}]
    assert "port=8000" in service["command"]
    for path in [job["authorization"]["credentials_file"], *re.findall(r"/run/secrets/\w+", str(compose["services"]))]:
        assert Path(path).name in compose["secrets"]
    assert "docker/secrets/" in (DOCKER.parent / ".gitignore").read_text().split()
    probed = {probe["path"] for probe in values(documents("kubernetes/serve.yaml"), "httpGet")}
    assert probed == {"/ready", "/health"} <= set(re.findall(r'@app.get\("(/\w+)"', _source()))


def _source() -> str:
    return Path(_add_facts.__code__.co_filename).read_text(encoding="utf-8")
