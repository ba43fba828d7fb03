"""The doctor says of this very machine whether it can train."""

import json
import subprocess
from typing import Any

import pytest
from launch import ROOT, command, environment


def examine(*overrides: str) -> tuple[int, str]:
    """Return exit code and standard output of the doctor."""
    done = subprocess.run(
        command("doctor", *overrides), cwd=ROOT, env=environment(), capture_output=True, text=True, check=False
    )
    assert not done.stderr, done.stderr
    return done.returncode, done.stdout


def answer(*overrides: str) -> tuple[int, dict[str, Any]]:
    """Return exit code and answer of the doctor."""
    code, text = examine(*overrides, "output=json")
    return code, json.loads(text)


@pytest.mark.smoke
def test_the_demonstration_trains_here() -> None:
    code, text = examine("experiment=demo", "hardware=cpu")

    assert code == 0, text
    assert "Training can start, on the CPU." in text


def test_a_model_for_which_this_machine_is_too_small() -> None:
    code, said = answer(
        "model=llama3_70b",
        "hardware=gpu_80gb",
        "trainer.devices=16",
        "trainer.tensor_model_parallel_size=1",
        "trainer.pipeline_model_parallel_size=1",
    )
    checks = {check["name"]: check for check in said["checks"]}

    assert (code, said["ok"]) == (1, False)
    assert said["plan"].startswith("llama3_70b, peft=lora, 4,096 tokens")
    assert "GPUs" in checks["GPU"]["remedy"]
    assert "What fits: " in checks["plan"]["remedy"]
    assert checks["base model"]["verdict"] == "fail"  # tests have no network


def test_the_answer_has_a_fixed_shape() -> None:
    code, said = answer("hardware=cpu")

    assert set(said) == {"ok", "plan", "speed", "checks"}
    assert said["ok"] is (code == 0)
    for check in said["checks"]:
        assert set(check) == {"name", "found", "needed", "verdict", "remedy"}
        assert all(isinstance(value, str) for value in check.values())
        assert check["verdict"] in {"ok", "warn", "fail"}
        assert bool(check["remedy"]) == (check["verdict"] != "ok")


def test_settings_of_the_wrong_name_or_type_are_refused() -> None:
    done = subprocess.run(
        command("doctor", "output=xml"), cwd=ROOT, env=environment(), capture_output=True, text=True, check=False
    )

    assert done.returncode == 1
    assert "output=xml" in done.stderr
    assert "table, json" in done.stderr
