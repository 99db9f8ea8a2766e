"""The table of a benchmark: a row for each source, sampling and model, over its seeds, and one for each baseline."""

import csv
import io
import json
import statistics
from collections.abc import Callable, Iterator
from pathlib import Path
from textwrap import shorten
from typing import Any

import numpy as np
import xarray as xr

from fieldcast.benchmark.measure import MEASURES
from fieldcast.benchmark.plan import Job
from fieldcast.evaluation import UNIT, Tally, load_scores, make_table, merge, plain_numbers, rename, run_tally
from fieldcast.files import write_atomic
from fieldcast.metrics import METRICS
from fieldcast.metrics.conventions import CONVENTIONS, restate
from fieldcast.run import Run, write_json
from fieldcast.settings import look_up

MAIN_SCORES = ("mse", "mae", "ssim", "csi")
# How what was measured in each job becomes one number for all seeds.
OVER_SEEDS: dict[str, Callable[[list[Any]], Any]] = {
    "parameters": max,
    "multiply_adds": max,
    "step_seconds": statistics.median,
    "forecast_seconds": statistics.median,
    "peak_memory_bytes": max,
    "cuda_peak_memory_bytes": max,
    "training_seconds": statistics.fmean,
}


def group_scores(runs_by_model: dict[str, list[Run]]) -> xr.Dataset:
    """Scores of the models that were tested on the same samples, and of the baselines.

    Args:
        runs_by_model: the scored runs of each model, one for each seed, by the name it has in the table.

    Returns:
        the table that ``make_table`` describes, with the mean over seeds, their spread, and intervals that are
        paired: every model and baseline is scored on the same blocks. A baseline has seeds too, since a source may
        draw from them.

    Raises:
        DataError: where the runs were not scored on the same samples.
    """
    tallies: list[Tally] = []
    seeds: dict[str, list[str]] = {name: [] for name in runs_by_model}
    for name, runs in runs_by_model.items():
        for run in runs:
            tally = run_tally(run)
            assert tally is not None, f"{run.folder} is not scored"
            labels = {model: name if model == run.model_name else model for model in tally.models}
            known = {f"{label}, seed {run.config.seed}": label for label in labels.values()}
            new = {unique: label for unique, label in known.items() if unique not in seeds.get(label, [])}
            tallies.append(rename(tally, dict(zip(labels, known, strict=True))))
            for unique, label in new.items():
                seeds.setdefault(label, []).append(unique)
    first = next(run for runs in runs_by_model.values() for run in runs)
    joint = make_table(merge(tallies), first.config.evaluation, seeds)
    own = load_scores(first)
    assert own is not None
    # Seed and step are those of one run alone.
    shared = {name: value for name, value in own.attrs.items() if name not in (*joint.attrs, "seed", "step")}
    return joint.assign_attrs(shared)


def table_rows(root: Path, jobs: tuple[Job, ...], states: dict[str, dict[str, Any]]) -> list[dict[str, Any]]:
    """Rows of plain types: what the row is of, seeds, scores, costs.

    Args:
        root: the benchmark's folder.
        jobs: of the benchmark.
        states: of every job by its name: "state" and "reason".

    Returns:
        for each row ``source``, ``sampling``, ``model``, ``baseline``; ``seeds`` wanted, ``done`` and ``failed`` (seed
        -> reason); ``space`` and ``scores`` (name -> mean, spread, low, high, units); ``unit``, what ``restated_rows``
        takes; and a baseline's row nothing else, a model's what ``measure`` measures.
    """
    rows: list[dict[str, Any]] = []
    for group in dict.fromkeys(job.group for job in jobs):
        of_group = [job for job in jobs if job.group == group]
        by_model: dict[str, list[Run]] = {}
        for job in of_group:
            if states[job.name]["state"] == "finished":
                by_model.setdefault(job.label, []).append(Run(root / job.name))
        scores = group_scores(by_model) if by_model else None
        for model in dict.fromkeys(job.label for job in of_group):
            alike = [job for job in of_group if job.label == model]
            rows.append(
                _row_head(alike[0], len(alike), len(by_model.get(model, ())))
                | {"failed": _failures(alike, states)}
                | _score_cells(scores, model)
                | {"unit": _unit_cells(scores, model)}
                | _costs(by_model.get(model, []))
            )
        others = [str(name) for name in scores.model.values if name not in by_model] if scores is not None else []
        for name in others:
            head = {"source": group[0], "sampling": group[1], "model": name, "baseline": True}
            rows.append({**head, **_score_cells(scores, name), "unit": _unit_cells(scores, name)})
    return rows


def _row_head(job: Job, seeds: int, done: int) -> dict[str, Any]:
    head = {"source": job.source, "sampling": job.sampling, "model": job.label, "baseline": False}
    return {**head, "seeds": seeds, "done": done}


def _failures(jobs: list[Job], states: dict[str, dict[str, Any]]) -> dict[str, str]:
    return {str(job.seed): states[job.name]["reason"] for job in jobs if states[job.name]["state"] == "failed"}


def _score_cells(scores: xr.Dataset | None, model: str) -> dict[str, Any]:
    """The main scores of a model, in its variable's units or, where there are several variables, of all normalised."""
    if scores is None or model not in scores.model.values:
        return {"space": None, "scores": {}}
    physical = [str(space) for space in scores.space.values if space != UNIT]
    space = physical[0] if len(physical) == 1 else UNIT
    chosen = scores.sel(model=model, space=space)
    cells: dict[str, Any] = {}
    for name in MAIN_SCORES:
        if f"{name}_overall" not in chosen:
            continue
        units = chosen[f"{name}_overall"].attrs.get(f"units_{space}", "")
        for label, place in _places(chosen[f"{name}_overall"], name):
            mean = float(chosen[f"{name}_overall"].sel(place))
            low, high = chosen[f"{name}_overall_interval"].sel(place).values.tolist()
            # Where no model has a second seed, a table may have no spread at all.
            spread = float(chosen[f"{name}_overall_spread"].sel(place)) if f"{name}_overall_spread" in chosen else None
            cells[label] = {"mean": mean, "spread": spread, "low": low, "high": high, "units": units}
    return {"space": space, "scores": plain_numbers(cells)}


def _unit_cells(scores: xr.Dataset | None, model: str) -> dict[str, Any]:
    """Scores in [0, 1] that some convention restates, and what it has to know of their frames."""
    if scores is None or model not in scores.model.values:
        return {}
    at = {"space": UNIT, "model": model}
    cells: dict[str, Any] = {}
    for name in dict.fromkeys(name for restatements in CONVENTIONS.values() for name in restatements):
        if name in scores and f"units_{UNIT}" in scores[name].attrs and not METRICS[name].dimensions:
            parts = {"mean": f"{name}_overall", "spread": f"{name}_overall_spread"}
            cells[name] = {part: float(scores[key].sel(at)) for part, key in parts.items() if key in scores}
    frames = {"num_pixels": int(scores.attrs["frame_pixels"]), "num_frames": int(scores.attrs["num_targets"])}
    return plain_numbers({**frames, "scores": cells})


def _places(score: xr.DataArray, name: str) -> Iterator[tuple[str, dict[str, float]]]:
    """Every value of a score with its place along the dimensions that are left: ("csi 0.5", {"threshold": 0.5})."""
    for place in np.ndindex(*score.shape):
        values = {str(dim): float(score[dim][index]) for dim, index in zip(score.dims, place, strict=True)}
        yield " ".join([name, *(f"{value:g}" for value in values.values())]), values


def _costs(runs: list[Run]) -> dict[str, Any]:
    measured = [json.loads((run.folder / MEASURES).read_text()) for run in runs]
    costs = {}
    for name, over_seeds in OVER_SEEDS.items():
        values = [row[name] for row in measured if row[name] is not None]
        costs[name] = over_seeds(values) if values else None
    return costs


def restated_rows(rows: list[dict[str, Any]], convention: str) -> list[dict[str, Any]]:
    """Rows in the words and scale of a convention, such as the thesis' tables: models, then baselines.

    Returns:
        for each row ``source``, ``sampling``, ``model``, ``baseline``, ``seeds`` wanted and ``done``, and of each score
        of the convention, by its label, the ``mean`` over seeds and their ``spread``, None where there is none.

    Raises:
        ConfigError: for an unknown convention.
    """
    restatements = look_up(CONVENTIONS, convention, "convention")
    restated = []
    for row in rows:
        sizes = row["unit"].get("num_pixels", 1), row["unit"].get("num_frames", 1)
        cells = {}
        for name, restatement in restatements.items():
            found = row["unit"].get("scores", {}).get(name, {})
            values = {part: found.get(part) for part in ("mean", "spread")}
            cells[restatement.label] = {
                part: None if value is None else restate(name, value, convention, *sizes)[0]
                for part, value in values.items()
            }
        head = {key: row.get(key) for key in ("source", "sampling", "model", "baseline", "seeds", "done")}
        restated.append({**head, "scores": cells})
    return restated


def save_table(root: Path, rows: list[dict[str, Any]], name: str = "table") -> None:
    """Write table.json, and table.csv with a column for each number; or files of another name."""
    write_json(root / f"{name}.json", rows)
    flat = [_flatten(row) for row in rows]
    text = io.StringIO()
    writer = csv.DictWriter(text, list(dict.fromkeys(name for row in flat for name in row)), lineterminator="\n")
    writer.writeheader()
    writer.writerows(flat)
    write_atomic(root / f"{name}.csv", text.getvalue())


def _flatten(row: dict[str, Any]) -> dict[str, Any]:
    flat = {name: value for name, value in row.items() if name not in ("scores", "failed", "unit")}
    flat["failed"] = "; ".join(f"seed {seed}: {reason}" for seed, reason in row.get("failed", {}).items())
    for name, cell in row["scores"].items():
        flat |= {f"{name} {kind}": value for kind, value in cell.items()}
    return flat


def printed_rows(rows: list[dict[str, Any]]) -> list[dict[str, str]]:
    """Rows of a table to look at: every row has the same columns, numbers are rounded and have units.

    A score is its mean over seeds, ± their standard deviation, and [low, high] where there is an interval.
    """
    names = list(dict.fromkeys(name for row in rows for name in row["scores"]))
    headings = {name: _heading(name, rows) for name in names}
    places = [place for place in ("source", "sampling") if any(row[place] for row in rows)]
    any_failed = any(row.get("failed") for row in rows)
    printed = []
    for row in rows:
        cells = {place: str(row[place]) for place in places} | {"model": str(row["model"])}
        cells["seeds"] = "" if row["baseline"] else f"{row['done']}/{row['seeds']}"
        scores = {name: _score_text(row["scores"].get(name), heading) for name, heading in headings.items()}
        # Scores at thresholds are many: what a model costs comes before them.
        cells |= {headings[name]: text for name, text in scores.items() if name in MAIN_SCORES}
        cells |= {heading: _cost_text(row.get(name), scale) for heading, name, scale in COSTS}
        cells |= {headings[name]: text for name, text in scores.items() if name not in MAIN_SCORES}
        if any_failed:
            cells["failed"] = shorten(_flatten(row)["failed"], 100, placeholder=" ...")
        printed.append(cells)
    return printed


def _heading(name: str, rows: list[dict[str, Any]]) -> str:
    """A score's name, and its units where all rows have the same."""
    units = {row["scores"][name]["units"] for row in rows if name in row["scores"]}
    return f"{name}, {units.pop()}" if len(units) == 1 and not units & {"", "1"} else name


COSTS = (
    ("parameters", "parameters", 1.0),
    ("10^6 multiply-adds", "multiply_adds", 1e-6),
    ("step, ms", "step_seconds", 1e3),
    ("forecast, ms", "forecast_seconds", 1e3),
    ("peak, MB", "peak_memory_bytes", 1e-6),
    ("training, s", "training_seconds", 1.0),
)


def spread_text(spread: float) -> str:
    """A standard deviation with two digits, and as a plain number."""
    return f"{spread:.0f}" if spread >= 99.5 else f"{spread:.2g}"


def _score_text(cell: dict[str, Any] | None, heading: str) -> str:
    if cell is None or cell["mean"] is None:
        return ""
    text = f"{cell['mean']:.4g}"
    if cell["spread"]:
        text += f" ± {spread_text(cell['spread'])}"
    if cell["low"] is not None and cell["high"] is not None:
        text += f" [{cell['low']:.4g}, {cell['high']:.4g}]"
    units = cell["units"]
    return text if units in ("", "1") or heading.endswith(f", {units}") else f"{text} {units}"


def _cost_text(value: float | None, scale: float) -> str:
    if value is None:
        return ""
    scaled = value * scale
    return f"{scaled:,.0f}" if scaled >= 100 or scale == 1.0 else f"{scaled:.3g}"
