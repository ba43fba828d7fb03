"""What recipes/evaluate.py does: ask every model every benchmark, then report."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from rich.console import Console

from nemo_reasoning.artifacts import installed_versions, write_json, write_text
from nemo_reasoning.config import settings_to_dict
from nemo_reasoning.config.adapter import is_run
from nemo_reasoning.config.evaluate import BenchmarkLayout, EvaluateSettings, ProtocolName, validate
from nemo_reasoning.errors import ConfigError
from nemo_reasoning.evaluation.benchmarks.load import Benchmark, load_benchmark
from nemo_reasoning.evaluation.candidates import Candidate, candidates
from nemo_reasoning.evaluation.contamination import contaminated, training_turns
from nemo_reasoning.evaluation.report.tables import benchmark_table
from nemo_reasoning.evaluation.results import BenchmarkResult
from nemo_reasoning.evaluation.runner import claim, collect_samples, sample_requests
from nemo_reasoning.evaluation.samples import Evaluation, SampleLog, limits_not_kept
from nemo_reasoning.inference.engine import Engine
from nemo_reasoning.reasoning.messages import Mode
from nemo_reasoning.reasoning.sampling import Sampling

STARTED, REPORT = "started.txt", "report.json"
_DATE = "%Y-%m-%dT%H-%M-%S.%f"  # as lm-eval names its files


def evaluate_models(settings: EvaluateSettings, console: Console) -> Path:
    """Measure models on benchmarks, and write report.json, report.html, plots/ and lm_eval/.

    Run it again to continue: no question that was answered is asked again.

    Args:
        settings: What to measure; see conf/evaluate.yaml.
        console: Where progress and the table go.

    Returns:
        The folder with all of it.

    Raises:
        ConfigError: The settings contradict each other.
    """
    validate(settings)
    found = candidates(settings)
    own = {name: one for name, one in settings.benchmark.items() if one.layout is not BenchmarkLayout.lm_eval}
    as_nvidia = settings.protocol.name is ProtocolName.nvidia
    benchmarks = {
        name: load_benchmark(name, one, seed=settings.seed, limit=settings.limit, as_nvidia=as_nvidia)
        for name, one in own.items()
    }
    folder = _folder(settings)
    evaluations: dict[str, dict[str, Evaluation]] = {name: {} for name in settings.benchmark}
    for candidate in found:
        with opened_once(candidate.load) as engine:
            for name in settings.benchmark:
                evaluations[name][candidate.name] = (
                    _ask(candidate, engine, benchmarks[name], settings, folder=folder, console=console)
                    if name in benchmarks
                    else _ask_harness(candidate, engine, name, settings, folder=folder)
                )
    measurements = [
        BenchmarkResult(
            benchmark=name,
            evaluations=evaluations[name],
            contaminated=_contaminated(settings, benchmarks[name]) if name in benchmarks else None,
            seed=settings.seed,
        )
        for name in settings.benchmark
    ]
    write_reports(measurements, folder, settings=settings, origins={n: b.origin for n, b in benchmarks.items()})
    console.print(benchmark_table(measurements))
    console.print(f"report: {folder / 'report.html'}")
    return folder


@contextmanager
def opened_once(load: Callable[[], Engine]) -> Iterator[Callable[[], Engine]]:
    """Yield what loads a model when it is first called, and returns it from then on; close it in the end.

    Its memory is free for what comes next.
    """
    engines: list[Engine] = []

    def engine() -> Engine:
        if not engines:
            engines.append(load())
        return engines[0]

    try:
        yield engine
    finally:
        for one in engines:
            one.close()
        if engines:
            from nemo_reasoning.inference.load import release_memory

            engines.clear()
            release_memory()


def _name(settings: EvaluateSettings) -> str:
    return Path(settings.checkpoint or settings.model_name or "").resolve().name


def _folder(settings: EvaluateSettings) -> Path:
    if settings.output_dir is not None:
        return Path(settings.output_dir)
    run = settings.checkpoint is not None and is_run(settings.checkpoint)
    return Path(settings.checkpoint or "") / "benchmarks" if run else Path("outputs/evaluation") / _name(settings)


def _modes(settings: EvaluateSettings) -> list[Mode]:
    return [mode.value for mode in settings.reasoning]


def _budgets(settings: EvaluateSettings) -> Sequence[int | None]:
    return [None] if settings.budget is None else settings.budget


def _ask(
    candidate: Candidate,
    engine: Callable[[], Engine],
    benchmark: Benchmark,
    settings: EvaluateSettings,
    *,
    folder: Path,
    console: Console,
) -> Evaluation:
    template = settings.benchmark[benchmark.name].prompt
    requests = sample_requests(
        benchmark,
        protocol=settings.protocol.name,
        template=template,
        modes=_modes(settings),
        budgets=_budgets(settings),
        samples=settings.samples,
    )
    label = f"{benchmark.name}, {candidate.name}"
    step = max(1, len(requests) // 20)
    found = collect_samples(
        engine,
        requests,
        protocol=settings.protocol,
        seed=settings.seed,
        log=folder / candidate.name / f"{benchmark.name}.jsonl",
        identity={"model": candidate.identity, **_identity(settings, benchmark)},
        progress=lambda done: (
            console.print(f"{label}: {done} of {len(requests)} answers")
            if done % step == 0 or done == len(requests)
            else None
        ),
    )
    for note in limits_not_kept(found.samples, settings.protocol.max_tokens):
        console.print(f"{label}: {note}", markup=False)
    return found


def _identity(settings: EvaluateSettings, benchmark: Benchmark) -> dict[str, Any]:
    """Return what answers depend on besides the model; modes, budgets, samples and limit only add to them."""
    return {
        "protocol": settings_to_dict(settings.protocol),
        "seed": settings.seed,
        "prompt": settings.benchmark[benchmark.name].prompt,
        "few_shot": settings.benchmark[benchmark.name].few_shot,
        "shuffle": settings.benchmark[benchmark.name].shuffle,
        "origin": benchmark.origin,
    }


def _ask_harness(
    candidate: Candidate, engine: Callable[[], Engine], name: str, settings: EvaluateSettings, *, folder: Path
) -> Evaluation:
    from nemo_reasoning.evaluation.lm_eval import run_task

    task = settings.benchmark[name].source
    if task is None:
        raise ConfigError(f"benchmark.{name}.source=null: give the name of a task of lm-eval")
    path = folder / candidate.name / f"{name}.jsonl"
    protocol, seed, limit = settings.protocol, settings.seed, settings.limit
    shared = {"protocol": settings_to_dict(protocol), "seed": seed, "limit": limit, "task": task}
    claim(path, {"model": candidate.identity, **shared})
    log = SampleLog(path)
    asked = [(mode, budget) for mode in _modes(settings) for budget in (_budgets(settings) if mode == "on" else [None])]
    for mode, budget in asked:
        if not any((sample.mode, sample.budget) == (mode, budget) for sample in log.samples.values()):
            found = run_task(engine(), task=task, mode=mode, budget=budget, protocol=protocol, seed=seed, limit=limit)
            log.append(found)
    return Evaluation(tuple(sample for sample in log.samples.values() if (sample.mode, sample.budget) in asked))


def _contaminated(settings: EvaluateSettings, benchmark: Benchmark) -> list[str] | None:
    if settings.checkpoint is None or not is_run(settings.checkpoint):
        return None
    return contaminated(benchmark.questions, training_turns(Path(settings.checkpoint)))


def write_reports(
    measurements: Sequence[BenchmarkResult], folder: Path, *, settings: EvaluateSettings, origins: dict[str, Any]
) -> None:
    """Write report.json, report.html with its plots, and the files of lm-eval."""
    from nemo_reasoning.evaluation.lm_eval import write_lm_eval
    from nemo_reasoning.evaluation.report.benchmarks import render_benchmarks
    from nemo_reasoning.evaluation.report.figures import draw_benchmark_figures

    plain = settings_to_dict(settings)
    report = {"settings": plain, "versions": installed_versions(), "origins": origins}
    report["benchmarks"] = {found.benchmark: found.to_dict() for found in measurements}
    write_json(folder / REPORT, report)
    charts = draw_benchmark_figures(measurements, folder / "plots")
    page = render_benchmarks(
        measurements,
        name=_name(settings),
        method=_method(settings),
        charts=charts,
        max_tokens=settings.protocol.max_tokens,
    )
    write_text(folder / "report.html", page)
    write_lm_eval(measurements, folder / "lm_eval", date=_started(folder), settings=plain)


def _method(settings: EvaluateSettings) -> dict[str, str]:
    protocol = settings.protocol
    return {
        "Protocol": protocol.name.value,
        "Most tokens of an answer": f"{protocol.max_tokens:,}",
        "Sampling, thinking on": _sampling(protocol.thinking_on),
        "Sampling, thinking off": _sampling(protocol.thinking_off),
        "Samples of a question": str(settings.samples),
        "Seed": str(settings.seed),
    }


def _sampling(sampling: Sampling) -> str:
    if sampling.temperature == 0:
        return "greedy"
    return f"temperature {sampling.temperature}, top_p {sampling.top_p}"


def _started(folder: Path) -> str:
    """Return when the evaluation in a folder began, so that a continued one writes the same files."""
    path = folder / STARTED
    if not path.is_file():
        write_text(path, datetime.now(UTC).strftime(_DATE))
    return path.read_text(encoding="utf-8")
