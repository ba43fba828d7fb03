"""Settings that cannot ask or serve a model are refused before it is loaded."""

import pytest
from composing import composed

from nemo_reasoning.config import load_settings
from nemo_reasoning.config.inference import GenerateSettings, ServeSettings, validate_generate, validate_serve
from nemo_reasoning.errors import ConfigError


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["budget=3", "effort=low"], "budget=3 and effort=low"),
        (["prompt=a", "input=b"], "prompt and input"),
        (["output=b"], "output=b: only"),
        (["scaling=vote"], "scaling=vote: a chat"),
        (["budget=-1"], "budget=-1: must be 0 or above"),
        (["temperature=-0.5"], "temperature=-0.5"),
        (["top_p=0"], "top_p=0.0: must be above 0"),
        (["n=0", "max_new_tokens=0"], "max_new_tokens=0.*\n- n=0"),
        (["engine.batch_size=0"], "engine.batch_size=0"),
        (["thinking.efforts.low=-1"], "thinking.efforts.low=-1"),
    ],
)
def test_what_cannot_be_asked_is_refused(overrides: list[str], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        validate_generate(load_settings(composed("checkpoint=x", *overrides, root="generate"), GenerateSettings))


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("port=99999", "port=99999: must lie between 0 and 65535"),
        ("limits.heartbeat_seconds=0", "limits.heartbeat_seconds=0.0: must be above 0"),
        ("limits.max_new_tokens=0", "limits.max_new_tokens=0"),
        ("limits.waiting=-1", "limits.waiting=-1: must be 0 or above"),
        ("engine.cache_gb=0", "engine.cache_gb=0.0"),
        ("engine.tensor_parallel_size=0", "engine.tensor_parallel_size=0: must be above 0"),
        ("engine.tensor_parallel_size=2", "=2: engine=hf has one device; choose engine=vllm, or 1"),
        ("engine.vllm_args=['--tensor-parallel-size=2']", "holds --tensor-parallel-size; set engine.tensor_par"),
        ("engine.vllm_args=['-tp','2']", "holds -tp; set engine.tensor_parallel_size"),
    ],
)
def test_what_cannot_be_served_is_refused(override: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        validate_serve(load_settings(composed("checkpoint=x", override, root="serve"), ServeSettings))


def test_the_defaults_pass() -> None:
    validate_generate(load_settings(composed("checkpoint=x", root="generate"), GenerateSettings))
    validate_serve(load_settings(composed("checkpoint=x", root="serve"), ServeSettings))


def test_adapters_are_named_as_the_pages_do() -> None:
    assert composed("adapters={a: outputs/a}", root="serve").adapters == {"a": "outputs/a"}
    assert composed("adapters={outputs/a: 0.5}", root="export").adapters == {"outputs/a": 0.5}
