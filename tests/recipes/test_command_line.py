"""What a command says of itself, and of overrides that it cannot use."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from hydra import compose, initialize_config_module
from launch import ROOT, environment, run_anew
from omegaconf import OmegaConf

from nemo_reasoning import cli
from nemo_reasoning.cli import one_line_errors
from nemo_reasoning.config import RECIPES
from nemo_reasoning.config.overrides import groups_of, problems_of
from nemo_reasoning.hardware import register_resolvers


@pytest.fixture(autouse=True)
def hydra() -> Iterator[None]:
    register_resolvers()
    with initialize_config_module("nemo_reasoning.conf", version_base="1.3"):
        yield


def test_all_that_is_wrong_is_said_at_once() -> None:
    overrides = (
        *("model=llama3_8bb", "trainer.seq_lenght=8", "seq_length=99", "peft=lorra", "data.subsets=[1]", "two words"),
        *("optim.lr=fast", "trainer.epochs=-1", "trainer.global_batch_size=-3", "+trainer.sedd=3"),
    )
    problems = problems_of(RECIPES["sft"], overrides)
    expected = {
        "model=llama3_8bb": "llama3_8b?",
        "trainer.seq_lenght": "trainer.seq_length?",
        "seq_length": "trainer.seq_length?",
        "peft=lorra": "lora?",
        "data.subsets=[1]": "--help",
        "two words": "key=value",
        "optim.lr=fast": "a number",
        "trainer.epochs=-1.0": "above 0",
        "trainer.global_batch_size=-3": "above 0",
        "trainer.sedd": "trainer.seed?",
    }
    assert len(problems) == len(expected)
    for key, remedy in expected.items():
        assert [problem for problem in problems if problem.startswith(f"{key}:") and remedy in problem], (key, problems)


@pytest.mark.parametrize(
    ("name", "override", "remedy"),
    [
        ("evaluate", "benchmark=[gpqa_diamand,mmlu]", "gpqa_diamond?"),
        ("evaluate", "benchmark=nothing_like_it", "choose one of aime24,"),
        ("evaluate", "+benchmark.builtin.cuont=3", "benchmark.builtin.count?"),
        ("serve", "engine=vlm", "vllm?"),
        ("serve", "limits.waitin=3", "limits.waiting?"),
        ("serve", "model=llama3_8b", "--help"),  # a group of other commands
        ("doctor", "timeout=3", "timeout_seconds?"),
        ("sft", "~trainr.seed", "trainer.seed?"),
        ("sft", "optim.lrr=1e-4,2e-4", "optim.lr?"),
        ("sft", "model=llama3_8b,llama3_88b", "llama3_8b?"),
        ("export", "format=[merged]", "formats?"),
        ("prepare", "data=jsonl.yaml", "give data.paths="),
        ("generate", "scaling=voting", "vote"),
    ],
)
def test_the_nearest_name_is_told(name: str, override: str, remedy: str) -> None:
    assert any(remedy in problem for problem in problems_of(RECIPES[name], [override]))


@pytest.mark.parametrize("name", RECIPES)
def test_what_is_right_is_not_blamed(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    run_folder = tmp_path / "outputs" / "demo"
    run_folder.mkdir(parents=True)
    (run_folder / "config.yaml").write_text(OmegaConf.to_yaml(compose("sft_lora"), resolve=True), encoding="utf-8")
    named = [] if name in ("sft", "prepare", "doctor") else ["checkpoint=outputs/demo"]
    named += ["repo=me/demo"] if name == "push" else []
    assert problems_of(RECIPES[name], named) == []


def test_ctrl_c_is_a_line_and_no_traceback(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as left, one_line_errors("nemo-reasoning evaluate"):
        raise KeyboardInterrupt
    assert left.value.code == 130
    assert capsys.readouterr().err == "\nnemo-reasoning evaluate: stopped by Ctrl-C; run it again to go on\n"


def test_a_value_is_not_blamed_for_what_another_one_causes() -> None:
    # With the default of 16 in place of "many", 3 would be the wrong micro-batch.
    problems = problems_of(RECIPES["sft"], ["trainer.global_batch_size=many", "trainer.micro_batch_size=3"])
    assert [problem.partition("=")[0] for problem in problems] == ["trainer.global_batch_size"]


@pytest.mark.parametrize("given", ["trainer.", "+trainer."])
@pytest.mark.parametrize("name", ["use_distributed_optimizer", "use_transformer_engine_op_fuser"])
def test_what_nemo_has_and_this_package_not_is_refused_with_the_reason(given: str, name: str) -> None:
    (problem,) = problems_of(RECIPES["sft"], [f"{given}{name}=true"])

    assert problem.startswith(f"trainer.{name}: there is no such setting")
    assert "; it is not offered: " in problem


def test_problems_are_found_before_torch_is_imported() -> None:
    script = (
        "import sys\n"
        "from nemo_reasoning.cli import run\n"
        "from nemo_reasoning.config import RECIPES\n"
        "for name in RECIPES:\n"
        "    sys.argv = [name, '+nothing=1']\n"
        "    try:\n"
        "        run(name)\n"
        "    except SystemExit as end:\n"
        "        assert 'nothing: there is no such setting' in str(end.code), (name, end.code)\n"
        "    else:\n"
        "        raise AssertionError(name)\n"
        "print(*sorted({name.split('.')[0] for name in sys.modules} & {'torch', 'nemo', 'megatron', 'transformers'}))"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, env=environment(), capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout.split()) == (0, []), done.stderr


@pytest.mark.parametrize("name", RECIPES)
def test_the_help_of_a_command_fits_a_screen_before_its_settings(name: str) -> None:
    text = run_anew(RECIPES[name].root, "--help").replace(f"{ROOT}/", "")
    summary, _, settings = text.partition("Settings, each with its default:")
    lines = summary.splitlines()

    assert settings.strip()
    assert len(lines) <= 30
    assert max(map(len, lines)) <= 120
    listed = {line.split("=")[0].strip() for line in lines if " or " in line and line.startswith("  ")}
    assert listed == set(groups_of(RECIPES[name])) - {"trainer", "thinking"}  # which offer one choice only
    assert not [word for word in summary.replace(",", " ").split() if word.startswith("_")]


def test_a_folder_that_is_gone_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "gone").mkdir()
    monkeypatch.chdir(tmp_path / "gone")
    (tmp_path / "gone").rmdir()
    with pytest.raises(SystemExit, match="folder you are in was removed"):
        cli.run("export")
