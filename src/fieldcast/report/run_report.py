"""The report of a run, gathered from its folder."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from fieldcast.evaluation import evaluate, load_scores, run_tally, with_baselines
from fieldcast.explain.kernel_file import load_kernels
from fieldcast.report.cases import choose_cases, ensembles_of, make_cases
from fieldcast.report.contents import ReportContents, ReportPart
from fieldcast.report.flows import hydrographs
from fieldcast.report.page import write_report
from fieldcast.run import Run


def report(run: Run, split: str = "test") -> Path:
    """Write report.html and its figures into the run, from its scores (taken where missing or stale) and some cases.

    Returns:
        the path of report.html.
    """
    scores, tally = load_scores(run), run_tally(run)
    step = run.best.state["progress"]["step"]
    if scores is None or tally is None or (scores.attrs["split"], scores.attrs["step"]) != (split, step):
        scores, tally = evaluate(run, split), run_tally(run)
    assert tally is not None
    _, splits = run.samples()
    models, _ = with_baselines(run, splits["train"], torch.device("cpu"))
    models = {name: model for name, model in models.items() if name in tally.models}
    samples = splits[split]
    part, precision = ReportPart(run.config.name, scores), run.config.training.precision
    if run.stations:
        part = replace(part, hydrographs=hydrographs(models, samples, precision))
    else:
        choices = choose_cases(tally, run.model_name)
        cases = make_cases(models, samples, choices, precision, ensembles_of({run.model_name: run}))
        part = replace(part, cases=cases)
    contents = ReportContents(
        title=f"{run.config.name}: {run.model_name} on {run.config.source.key}",
        parts=[part],
        histories={run.model_name: run.history()},
        settings=run.config.resolved(),
        environment=read_environment(run),
        kernels=load_kernels(run),
    )
    return write_report(contents, run.folder)


def read_environment(run: Run) -> dict[str, Any]:
    """What a run was trained on, as its folder says."""
    path = run.folder / "environment.json"
    return json.loads(path.read_text()) if path.is_file() else {}
