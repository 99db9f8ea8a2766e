"""The report of a benchmark: a part for each source and sampling, with all its models side by side."""

from pathlib import Path

import torch

from fieldcast.benchmark.run_benchmark import Benchmark
from fieldcast.benchmark.table import group_scores, printed_rows
from fieldcast.evaluation import run_tally, with_baselines
from fieldcast.models import Forecaster
from fieldcast.report.cases import choose_cases, ensembles_of, make_cases
from fieldcast.report.contents import ReportContents, ReportPart
from fieldcast.report.page import write_report
from fieldcast.report.run_report import read_environment
from fieldcast.run import Run


def report_benchmark(benchmark: Benchmark) -> Path:
    """Write report.html and its figures into the benchmark's folder, of the jobs that are finished.

    Scores are those over all seeds, maps those of each model's first seed.

    Returns:
        the path of report.html.
    """
    parts, histories = [], {}
    groups = dict.fromkeys((job["source"], job["sampling"]) for job in benchmark.jobs)
    several = len(groups) > 1
    settings: dict = {}
    environment: dict = {}
    for source, sampling in groups:
        name = ", ".join(part for part in (source, sampling) if part) or benchmark.folder.name
        runs_by_model: dict[str, list[Run]] = {}
        for job in benchmark.jobs:
            if (job["source"], job["sampling"], job["state"]) == (source, sampling, "finished"):
                runs_by_model.setdefault(job["model"], []).append(Run(benchmark.folder / job["job"]))
        if not runs_by_model:
            continue
        parts.append(_part(name, runs_by_model))
        for model, runs in runs_by_model.items():
            for run in runs:
                label = f"{model}, seed {run.config.seed}"
                histories[f"{name}: {label}" if several else label] = run.history()
                settings[run.folder.name] = run.config.resolved()
                environment = environment or read_environment(run)
    contents = ReportContents(
        title=f"Benchmark {benchmark.folder.name}",
        parts=parts,
        histories=histories,
        settings=settings,
        environment=environment,
        table=printed_rows(benchmark.rows),
    )
    return write_report(contents, benchmark.folder)


def _part(name: str, runs_by_model: dict[str, list[Run]]) -> ReportPart:
    """Scores of all models of a source and sampling, and cases that speak for and against the first of them."""
    shown = {model: runs[0] for model, runs in runs_by_model.items()}
    models: dict[str, Forecaster] = {model: run.model() for model, run in shown.items()}
    first, *_ = shown.values()
    _, splits = first.samples()
    baselines, _ = with_baselines(first, splits["train"], torch.device("cpu"))
    baselines.pop(first.model_name)
    scores = group_scores(runs_by_model)
    # Some can't take every sampling.
    baselines = {name: model for name, model in baselines.items() if name in scores.model.values}
    tally = run_tally(first)
    assert tally is not None
    choices = choose_cases(tally, first.model_name)
    precision = first.config.training.precision
    cases = make_cases(models | baselines, splits["test"], choices, precision, ensembles_of(shown))
    return ReportPart(name, scores, cases)
