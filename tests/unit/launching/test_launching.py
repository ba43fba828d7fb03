"""What is started elsewhere: the exact script, and what is refused before it is."""

import stat
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from composing import asked_settings
from omegaconf import OmegaConf

from nemo_reasoning.config.launch import seconds_of
from nemo_reasoning.config.train import validate
from nemo_reasoning.errors import BackendError, ConfigError, StorageError
from nemo_reasoning.launching import slurm
from nemo_reasoning.launching.command import Command
from nemo_reasoning.launching.torchrun import torchrun_command

GOLDEN = Path(__file__).parent
CALLED = Command(Path("/code/recipes/sft_lora.py"), None, (), (), finds_hardware=False, folder=Path("/code"))
ON_DISK = (
    *("model=llama3_8b", "hardware=gpu_80gb", "trainer.devices=8", "launch=slurm", "launch.nodes=2"),
    *("launch.time=48:00:00", "output_dir=/disk/me/8b", "cache_dir=/disk/me/cache", "dry_run=true", "name='8b, long'"),
)
CONTAINER = (
    *("launch.container=/images/nemo.sqsh", "launch.mounts=[/lustre/me:/disk/me,/code]", "launch.secrets=[HF_TOKEN]"),
    *("launch.env={NCCL_DEBUG: WARN, http_proxy: 'http://proxy:80/ a'}", "launch.sbatch={qos: high, exclusive: true}"),
    *("launch.partition=train", "launch.account=llm"),
)
SCRIPTS = {"slurm_disk.sh": ON_DISK, "slurm_container.sh": ON_DISK + CONTAINER}


def called(overrides: tuple[str, ...], **changes: object) -> Command:
    return replace(CALLED, overrides=overrides, **changes)  # type: ignore[arg-type]


@pytest.mark.parametrize("golden", SCRIPTS)
def test_the_script_is_exactly_this(golden: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_nobodymayseethistoken00")
    settings = asked_settings(*SCRIPTS[golden])
    validate(settings)

    script = slurm.job_script(settings, called(SCRIPTS[golden])).replace(sys.executable, "/venv/bin/python")

    assert script == (GOLDEN / golden).read_text(encoding="utf-8")
    assert "nobodymayseethis" not in script
    subprocess.run(["bash", "-n"], input=script, text=True, check=True)


def test_of_an_image_without_the_code_its_own_package_runs() -> None:
    settings = asked_settings(*ON_DISK, *CONTAINER, "launch.mounts=[/disk]", "launch.secrets=[]")
    script = slurm.job_script(settings, called(ON_DISK))
    assert " nemo-reasoning sft model=llama3_8b " in script
    assert "--container-workdir" not in script


@pytest.mark.parametrize(("auto", "asked"), [(True, True), (False, False)])
def test_gpus_are_asked_for_where_the_nodes_decide(auto: bool, asked: bool) -> None:
    settings = asked_settings("launch=slurm", "hardware=cpu")
    assert ("--gpus-per-node=1" in slurm.job_script(settings, called((), finds_hardware=auto))) == asked


def test_torchrun_gets_the_command_without_launching() -> None:
    overrides = ("launch=torchrun", "launch.nodes=2", "launch.node_rank=1", "launch.address=10.0.0.1", "name='a b'")
    words = torchrun_command(asked_settings(*overrides, "hardware=cpu", "trainer.devices=4"), called(overrides))
    assert words[1:3] == ["-m", "nemo_reasoning.launching.torchrun"]
    meeting = ["--rdzv-backend", "static", "--rdzv-endpoint", "10.0.0.1:29500", "--rdzv-id", "nemo-reasoning"]
    assert words[3:9] == meeting
    assert words[9:-3] == ["--nnodes", "2", "--nproc-per-node", "4", "--node-rank", "1", "--tee", "3"]
    assert words[-3:] == ["/code/recipes/sft_lora.py", "name='a b'", "trainer.num_nodes=2"]


def test_an_experiment_that_chooses_a_launch_starts_no_job_within_the_job() -> None:
    told = called(("experiment=mine", "launch.nodes=2", "+launch.env.A=b", "cache_dir=/x")).told({"cache_dir": "/a, b"})
    assert told == ["experiment=mine", "launch=local", 'cache_dir="/a, b"']


@pytest.mark.parametrize(
    ("time", "seconds"),
    [("48:00:00", 172800), ("1:30", 90), ("2-00", 172800), ("1-02:03", 93780), ("1-02:03:04", 93784)]
    + [(wrong, None) for wrong in ("", "90", "2d", "48h", "1:2:3:4", "-1:00", "0:00", "infinite", "1-", "1:00\n2:00")],
)
def test_a_limit_is_read_as_slurm_reads_it(time: str, seconds: int | None) -> None:
    assert seconds_of(time) == seconds


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        ("launch.nodes=0", "launch.nodes=0: must be above 0"),
        ("launch.grace=0", "launch.grace=0: must be above 0"),
        ("launch.time=90", "launch.time=90: give hours:minutes:seconds"),
        ("launch.time=2:00", "launch.time=2:00 is no longer than launch.grace=120"),
        ("trainer.num_nodes=3", "trainer.num_nodes=3 with launch.nodes=1: they are the same"),
        ("restart=true", "restart=true with launch=slurm"),
        ("launch.secrets=[NEVER_SET_HERE]", "NEVER_SET_HERE is not set in this shell"),
        ("launch.secrets=['A=b']", "no name of a variable (not shown)"),
        ("launch.env={MY_API_KEY: x}", "launch.secrets=[MY_API_KEY]"),
        ("launch.env={a-b: x}", "'a-b' is no name of a variable"),
        ("launch.sbatch={ntasks-per-node: 3}", "ntasks-per-node follows from trainer.devices"),
        ("launch.sbatch={Qos: x}", "'Qos' is no option of sbatch"),
        ("launch.container=''", "launch.container=: give an image, or null"),
        ("launch.mounts=[/disk]", "launch.mounts without launch.container"),
        ("launch=local|launch.time=1:00", "launch.time is heard with launch=slurm alone"),
        ("launch=torchrun|launch.secrets=[PATH]", "launch.secrets is heard with launch=slurm alone"),
        ("launch.port=3", "launch.port is heard with launch=torchrun alone"),
        ("launch=torchrun|launch.nodes=2", "give launch.address="),
        ("launch=torchrun|launch.node_rank=1", "launch.node_rank=1 with launch.nodes=1"),
        ("launch=torchrun|launch.port=0", "launch.port=0: must be 1 to 65535"),
        ("launch=local|launch.nodes=2|trainer.num_nodes=3", "they are the same"),
    ],
)
def test_what_cannot_be_started_is_refused(overrides: str, said: str) -> None:
    given = ["launch=slurm"] * ("launch=" not in overrides) + overrides.split("|")
    with pytest.raises(ConfigError) as refused:
        validate(asked_settings(*given, "trainer.micro_batch_size=1", "trainer.global_batch_size=12"))
    assert said in str(refused.value)


def test_places_that_a_container_lacks_are_named(tmp_path: Path) -> None:
    overrides = ("launch=slurm", "launch.container=/none/x.sqsh", f"output_dir={tmp_path}/a b")
    rows = tmp_path / "rows.jsonl"
    rows.touch()
    settings = asked_settings(*overrides, "data=jsonl", f"data.paths=[{rows},hub/name]", "cache_dir=/cache")
    found = slurm.place_problems(settings, CALLED)
    expected = [
        "launch.container=/none/x.sqsh",
        "output_dir: ",
        "cache_dir: /cache ",
        f"data.paths: {rows} ",
        "output_dir=",
    ]
    assert [line[: len(start)] for line, start in zip(found, expected, strict=True)] == expected
    mounted = asked_settings(
        *overrides, f"launch.mounts=[{tmp_path}:/here]", "output_dir=/here/run", "cache_dir=/here/c"
    )
    assert slurm.place_problems(mounted, CALLED) == found[:1]
    assert slurm.run_folder(mounted) == tmp_path / "run"


def stand_in(folder: Path, name: str, lines: str) -> None:
    file = folder / name
    file.write_text(f"#!/bin/bash\n{lines}\n")
    file.chmod(file.stat().st_mode | stat.S_IXUSR)


def test_what_sbatch_says_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = asked_settings("launch=slurm", f"output_dir={tmp_path}/run", "launch.partition=gpus")
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(BackendError, match="this machine has no sbatch"):
        slurm.submit(settings, "script")
    assert not (tmp_path / "run").exists()
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    stand_in(tmp_path, "sinfo", "echo cpus; echo long")
    assert slurm.cluster_problems(settings.launch) == [
        "launch.partition=gpus: this cluster has no gpus; choose of cpus, long"
    ]
    stand_in(tmp_path, "sbatch", "echo 'sbatch: error: Invalid partition name specified' >&2; exit 1")
    with pytest.raises(BackendError) as refused:
        slurm.submit(settings, "script")
    assert str(refused.value).startswith(
        "sbatch refused the job: Invalid partition name specified. Correct launch.part"
    )
    with pytest.raises(StorageError, match="output_dir=/proc/x cannot be written to"):
        slurm.submit(asked_settings("launch=slurm", "output_dir=/proc/x"), "script")
    stand_in(tmp_path, "sbatch", 'echo "17;two"')
    assert slurm.submit(settings, "script").startswith("job 17 is in the queue")
    assert (tmp_path / "run" / "launch" / "job.sh").read_text() == "script"


def test_a_time_that_yaml_reads_as_a_number_is_refused() -> None:
    assert OmegaConf.create("time: 48:00:00").time == 172800
    assert seconds_of("172800") is None
