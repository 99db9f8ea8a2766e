"""The report of a run, gathered from its folder."""

import json
from pathlib import Path
from typing import Any

import torch

from fieldcast.evaluation import evaluate, load_scores, run_tally, with_baselines
from fieldcast.report.cases import choose_cases, ensembles_of, make_cases
from fieldcast.report.contents import ReportContents, ReportPart
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
    choices, precision = choose_cases(tally, run.model_name), run.config.training.precision
    cases = make_cases(models, splits[split], choices, precision, ensembles_of({run.model_name: run}))
    contents = ReportContents(
        title=f"{run.config.name}: {run.model_name} on {run.config.source.key}",
        parts=[ReportPart(run.config.name, scores, cases)],
        histories={run.model_name: run.history()},
        settings=run.config.resolved(),
        environment=read_environment(run),
        table=[],
    )
    return write_report(contents, run.folder)


def read_environment(run: Run) -> dict[str, Any]:
    """What a run was trained on, as its folder says."""
    path = run.folder / "environment.json"
    return json.loads(path.read_text()) if path.is_file() else {}
