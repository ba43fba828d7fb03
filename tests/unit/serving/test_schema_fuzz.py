"""schemathesis asks whatever the application's own schema allows, and what it does not."""

from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from live import MODEL, Live
from schemathesis.checks import not_a_server_error
from schemathesis.generation import GenerationMode
from schemathesis.specs.openapi.checks import content_type_conformance, status_code_conformance

CHECKS: list[Any] = [not_a_server_error, status_code_conformance, content_type_conformance]
FACTS = ["/v1/models", "/v1/models/{name}", "/health", "/ready", "/metrics"]
ANSWERS = ["/v1/chat/completions", "/v1/completions"]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("path", "mode"),
    [
        *[(path, GenerationMode.POSITIVE) for path in [*ANSWERS, *FACTS]],
        *[(path, GenerationMode.NEGATIVE) for path in ANSWERS],  # there is nothing to do wrong in the others
    ],
)
def test_no_request_breaks_the_service(live: Live, path: str, mode: GenerationMode) -> None:
    schema = schemathesis.openapi.from_url(f"{live.url}/openapi.json")
    [operation] = [found.ok() for found in schema.get_all_operations() if found.ok().path == path]
    statuses = set()

    @settings(max_examples=100, deadline=None, suppress_health_check=list(HealthCheck), database=None)
    @given(case=operation.as_strategy(mode))
    def ask(case: schemathesis.Case) -> None:
        if isinstance(case.body, dict) and isinstance(case.body.get("model"), str):
            case.body["model"] = MODEL  # one that exists, so that the engine sees the request too
        if isinstance(case.body, dict) and case.body.get("stream") is True:
            case.body["stream"] = False  # schemathesis reads streams with urllib3 2 only
        statuses.add(case.call_and_validate(checks=CHECKS, timeout=60).status_code)

    ask()
    assert max(statuses) < 500
    assert (statuses & {200, 404}) or mode is GenerationMode.NEGATIVE
