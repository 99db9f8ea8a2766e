"""The table of scores as xarray, with intervals and differences to the baselines; and as rows to print.

Shapes: U stretches, S lead times, R resamples; D further dimensions of a score.
"""

import math
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
import xarray as xr
from torch import Tensor

from fieldcast.data.source import NANOSECONDS
from fieldcast.evaluation.intervals import Resampling, make_resampling
from fieldcast.evaluation.spaces import UNIT, Space, left_out
from fieldcast.evaluation.tally import Tally
from fieldcast.evaluation_settings import EvaluationSettings
from fieldcast.lead_times import lead_labels
from fieldcast.metrics import DIMENSIONS, METRICS, Metric, Yardstick
from fieldcast.metrics.conventions import CONVENTIONS, restate
from fieldcast.models import MODELS
from fieldcast.settings import look_up

SHOWN_BY_LEAD_TIME = ("mse", "mae", "ssim")
STATION_SCORES = ("nse", "kge")
BOUNDS = ["low", "high"]
ROUNDED = "lead time, rounded to the cadence"
# Where zero or one is best, a difference of scores does not say which is nearer.
COMPARED = ("smaller", "larger")
OUTCOMES = {1: "win", 0: "open", -1: "loss"}


def make_table(tally: Tally, settings: EvaluationSettings, seeds: dict[str, list[str]] | None = None) -> xr.Dataset:
    """Scores of every model of a tally.

    Args:
        tally: the sums.
        settings: of intervals.
        seeds: by the name that the table shall have, the models of the tally that differ in their seed only. Their
            score is the mean of theirs, and ``NAME_spread``, ``NAME_overall_spread`` its standard deviation
            over them (of N - 1); None: each model stands for itself.

    Returns:
        for each metric ``NAME`` (space, model, *D, lead_time) and ``NAME_overall`` (space, model, *D), pooled over lead
        times in sums; ``NAME_difference`` and ``NAME_overall_difference`` (space, baseline, model, ...), the model's
        score minus the baseline's, where the smaller or the larger is better; for each of the four its ``..._interval``
        (bound, ...). NaN where a space
        doesn't have a metric, or a score is not defined.
    """
    resampling = make_resampling(tally, settings)
    seeds = seeds or {model: [model] for model in tally.models}
    models, baselines = list(seeds), [name for name in seeds if is_baseline(name)]
    lead_time = (np.array(tally.seconds) * NANOSECONDS).round().astype("timedelta64[ns]")
    coordinates = {
        "space": [space.name for space in tally.spaces],
        "model": models,
        "baseline": baselines,
        "bound": BOUNDS,
        "lead_time": ("lead_time", lead_time, {"long_name": ROUNDED if tally.rounded else "lead time"}),
        **_coordinates(tally.spaces),
    }
    sizes = {name: len(values[1] if isinstance(values, tuple) else values) for name, values in coordinates.items()}
    variables: dict[str, Any] = {}
    for name, metric in METRICS.items():
        if any(name in space.metrics() for space in tally.spaces):
            for by_lead in (True, False):
                variables |= _score_variables(tally, metric, by_lead, resampling, seeds, sizes)
    table = xr.Dataset(variables, coordinates)
    table.attrs = {
        "confidence": settings.confidence,
        "num_blocks": resampling.num_blocks,
        "block_length": resampling.length,
        "num_resamples": settings.num_resamples,
        "event": settings.event,
        "left_out": "; ".join(f"{name} needs {what}" for name, what in left_out(tally.spaces).items()),
    }
    return table


def is_baseline(model: str) -> bool:
    """Whether a name in a table is that of a forecaster that needs no training."""
    return model in MODELS and not MODELS[model].forecaster.trained


def _coordinates(spaces: list[Space]) -> dict[str, tuple]:
    """The further dimensions that scores have, from the first space that has any."""
    found = {}
    for name, (description, values) in DIMENSIONS.items():
        used = any(name in metric.dimensions for space in spaces for metric in space.metrics().values())
        along = next((values(space.yardstick) for space in spaces if values(space.yardstick)), [])
        if used and along:
            found[name] = (name, along, {"long_name": description})
    return found


def _score_variables(
    tally: Tally,
    metric: Metric,
    by_lead: bool,
    resampling: Resampling,
    seeds: dict[str, list[str]],
    sizes: dict[str, int],
) -> dict[str, Any]:
    """The score with its interval, and its difference to each baseline with that one's."""
    models = list(seeds)
    baselines = [name for name in models if is_baseline(name)]
    further = (*metric.dimensions, "lead_time") if by_lead else metric.dimensions
    shape = tuple(sizes[name] for name in further)
    scores = np.full((len(tally.spaces), len(models), *shape), np.nan)
    spreads, intervals = scores.copy(), np.full((2, *scores.shape), np.nan)
    differences = np.full((len(tally.spaces), len(baselines), len(models), *shape), np.nan)
    difference_intervals = np.full((2, *differences.shape), np.nan)
    for row, space in enumerate(tally.spaces):
        found = dict(_scores(tally, metric, space, by_lead, resampling, seeds))
        for model, (score, resampled, spread) in found.items():
            column = models.index(model)
            scores[row, column] = score
            spreads[row, column] = spread
            intervals[:, row, column] = resampling.interval(resampled)
            for line, baseline in enumerate(baselines):
                if baseline in found and metric.orientation in COMPARED:
                    reference, resampled_reference, _ = found[baseline]
                    differences[row, line, column] = score - reference
                    difference_intervals[:, row, line, column] = resampling.interval(resampled - resampled_reference)
    name = metric.name if by_lead else f"{metric.name}_overall"
    variables = {
        name: (("space", "model", *further), scores, _attributes(metric, tally.spaces)),
        f"{name}_interval": (("bound", "space", "model", *further), intervals),
    }
    if any(len(names) > 1 for names in seeds.values()):
        variables[f"{name}_spread"] = (("space", "model", *further), spreads)
    if metric.orientation in COMPARED:
        variables[f"{name}_difference"] = (("space", "baseline", "model", *further), differences)
        variables[f"{name}_difference_interval"] = (
            ("bound", "space", "baseline", "model", *further),
            difference_intervals,
        )
    return variables


def _attributes(metric: Metric, spaces: list[Space]) -> dict[str, str]:
    return {
        "long_name": metric.long_name,
        "family": metric.family,
        "convention": metric.convention,
        "orientation": metric.orientation,
        # Units in a space say that the space has the metric, even where no score is defined.
        **{
            f"units_{space.name}": units_of(metric, space.yardstick)
            for space in spaces
            if metric.name in space.metrics()
        },
    }


def _scores(
    tally: Tally,
    metric: Metric,
    space: Space,
    by_lead: bool,
    resampling: Resampling,
    seeds: dict[str, list[str]],
) -> Iterator[tuple[str, tuple[Tensor, Tensor, Tensor]]]:
    """Each model's score (...), those of the resamples (R, ...), and the spread (...) over its seeds."""
    if metric.name not in space.metrics():
        return
    for model, names in seeds.items():
        keys = [(space.name, name, metric.sums.__name__) for name in names]
        if any(key not in tally.sums for key in keys):  # an ensemble's metric, and this model is none
            continue
        parts = [tally.sums[key] if by_lead else tally.sums[key].sum(-1) for key in keys]
        scores = torch.stack([metric.score(sums.sum(0), space.yardstick) for sums in parts])
        resampled = torch.stack([metric.score(resampling.sums(sums), space.yardstick) for sums in parts]).mean(0)
        spread = scores.std(0) if len(parts) > 1 else torch.full_like(scores[0], torch.nan)
        yield model, (scores.mean(0), resampled, spread)


def units_of(metric: Metric, yardstick: Yardstick) -> str:
    """Units of a metric of a field."""
    plain = yardstick.units == "1" and "{units}" in metric.units
    return "1" if plain else metric.units.format(units=yardstick.units)


def metrics_of(scores: xr.Dataset) -> list[str]:
    """Names of the metrics that a table has."""
    return [name for name in METRICS if name in scores]


def wins(scores: xr.Dataset, name: str) -> xr.DataArray:
    """Where a difference (such as ``mse_overall_difference``) is a win, 1, a loss, -1, or can't be told, 0.

    A win is one whose whole interval lies on the good side of zero.
    """
    metric = name.removesuffix("_difference").removesuffix("_overall")
    low, high = (scores[f"{name}_interval"].sel(bound=bound) for bound in BOUNDS)
    sign = -1 if scores[metric].attrs["orientation"] == "smaller" else 1
    return sign * ((low > 0).astype(int) - (high < 0).astype(int))


def scores_document(scores: xr.Dataset) -> dict:
    """Scores as plain types: metric, space, model -> overall and by lead time in seconds, with their intervals."""
    seconds = (scores.lead_time / np.timedelta64(1, "s")).values.tolist()
    further = [name for name in DIMENSIONS if name in scores.coords]
    return {
        # Out of a file come numpy's numbers.
        "attributes": {
            k: value.item() if isinstance(value, np.generic) else value for k, value in scores.attrs.items()
        },
        "lead_time_seconds": seconds,
        **{name: scores[name].values.tolist() for name in further},
        "scores": {name: _entries(scores, name) for name in metrics_of(scores)},
    }


def _entries(scores: xr.Dataset, name: str) -> dict[str, dict[str, Any]]:
    """Space -> model -> a metric's values, by their place: a selection of labels takes long, thousands of times."""
    parts = {
        "overall": scores[f"{name}_overall"].values,
        "overall_interval": np.moveaxis(scores[f"{name}_overall_interval"].values, 0, 2),
        "by_lead_time": scores[name].values,
        "by_lead_time_interval": np.moveaxis(scores[f"{name}_interval"].values, 0, 2),
    }
    dimensions = [str(dimension) for dimension in scores[name].dims[2:]]
    return {
        str(space): {
            str(model): {"dimensions": dimensions}
            | {part: values[row, column].tolist() for part, values in parts.items()}
            for column, model in enumerate(scores.model.values)
        }
        for row, space in enumerate(scores.space.values)
        if f"units_{space}" in scores[name].attrs
    }


def plain_numbers(document: Any) -> Any:
    """A document of plain types with None for what is not finite: JSON has no NaN and no infinity."""
    if isinstance(document, dict):
        return {key: plain_numbers(value) for key, value in document.items()}
    if isinstance(document, list):
        return [plain_numbers(value) for value in document]
    return None if isinstance(document, float) and not math.isfinite(document) else document


def score_rows(scores: xr.Dataset, convention: str = "fieldcast") -> list[dict]:
    """Overall scores as rows for a table, in the words and scale of a convention.

    "fieldcast" has every metric of one value in every space, and those of events at each threshold; the others
    have theirs, in [0, 1].
    """
    restatements = look_up(CONVENTIONS, convention, "convention")
    names = [name for name in restatements if name in scores]
    spaces = [str(space) for space in scores.space.values] if convention == "fieldcast" else [UNIT]
    rows = []
    for space in spaces:
        for name in names:
            along = set(scores[f"{name}_overall"].dims) - {"space", "model"}
            if along <= {"threshold"} and f"units_{space}" in scores[name].attrs:
                levels = scores["threshold"].values.tolist() if along else [None]
                rows += [_row(scores, name, space, convention, level) for level in levels]
    return rows


def station_rows(scores: xr.Dataset) -> list[dict[str, Any]]:
    """Efficiencies of rivers as rows for a table, in physical units over all lead times: for each model the median over
    the stations, the tenth and the ninetieth percentile, and against how many stations of each baseline it wins.

    Empty where there are no stations.
    """
    if "station" not in scores.dims:
        return []
    space, rows = str(scores.space.values[0]), []
    for name in STATION_SCORES:
        overall = scores[f"{name}_overall"].sel(space=space)
        won = wins(scores, f"{name}_overall_difference").sel(space=space)
        for model in (str(model) for model in scores.model.values):
            values = overall.sel(model=model).values
            low, middle, high = np.nanpercentile(values, [10, 50, 90]) if np.isfinite(values).any() else [np.nan] * 3
            row = {"metric": METRICS[name].long_name, "model": model, "median": float(middle)}
            row |= {"10 %": float(low), "90 %": float(high), "undefined": int(np.isnan(values).sum())}
            for baseline in (str(one) for one in scores.baseline.values if not is_baseline(model)):
                outcomes = won.sel(model=model, baseline=baseline)
                row[f"wins, losses against {baseline}"] = f"{int((outcomes > 0).sum())}, {int((outcomes < 0).sum())}"
            rows.append(row)
    return rows


def _row(scores: xr.Dataset, name: str, space: str, convention: str, level: float | None) -> dict[str, Any]:
    at = {"space": space} if level is None else {"space": space, "threshold": level}
    pixels, frames = int(scores.attrs["frame_pixels"]), int(scores.attrs["num_targets"])
    label = METRICS[name].long_name if convention == "fieldcast" else restate(name, 0.0, convention, pixels, frames)[1]
    row: dict[str, Any] = {"space": space, "metric": label, "units": "", "convention": ""}
    if level is not None:
        row["metric"] += f", {'<' if scores.attrs['event'] == 'below' else '>='} {level:g}"
    if convention == "fieldcast":
        row |= {"units": scores[name].attrs[f"units_{space}"], "convention": METRICS[name].convention}
    overall, interval = (scores[f"{name}_overall{part}"].sel(at) for part in ("", "_interval"))
    for model in overall.model.values:
        found = [overall.sel(model=model), *interval.sel(model=model)]
        value, low, high = (restate(name, float(number), convention, pixels, frames)[0] for number in found)
        row[str(model)] = value
        if METRICS[name].orientation != "none":
            row[f"{model} interval"] = [low, high]
    return row


def difference_rows(scores: xr.Dataset, name: str = "mse") -> list[dict[str, Any]]:
    """Each trained model against each baseline over all lead times, in the first space: difference, interval, outcome.

    The outcome is "win", "loss", "open" where the interval holds zero, "unknown" without an interval.
    """
    space = str(scores.space.values[0])
    difference = f"{name}_overall_difference"
    values, interval, won = (
        scores[difference].sel(space=space),
        scores[f"{difference}_interval"].sel(space=space),
        wins(scores, difference).sel(space=space),
    )
    rows = []
    for model in (str(model) for model in scores.model.values if not is_baseline(str(model))):
        for baseline in (str(baseline) for baseline in scores.baseline.values):
            at = {"model": model, "baseline": baseline}
            low, high = interval.sel(at).values.tolist()
            outcome = OUTCOMES[int(won.sel(at))] if math.isfinite(low) and math.isfinite(high) else "unknown"
            row = {"model": model, "against": baseline, f"{name} difference": float(values.sel(at))}
            rows.append({**row, "interval": [low, high], "outcome": outcome})
    return rows


def lead_rows(scores: xr.Dataset, convention: str = "fieldcast") -> list[dict]:
    """Scores by lead time as rows for a table, in the first space of the convention; see ``score_rows``."""
    names = SHOWN_BY_LEAD_TIME if convention == "fieldcast" else tuple(look_up(CONVENTIONS, convention, "convention"))
    space = str(scores.space.values[0]) if convention == "fieldcast" else UNIT
    pixels, frames = int(scores.attrs["frame_pixels"]), int(scores.attrs["num_targets"])
    rows = []
    for number, label in enumerate(lead_labels(scores.lead_time.values)):
        row: dict[str, str | float] = {str(scores.lead_time.attrs["long_name"]): label}
        for name in (name for name in names if name in scores and scores[name].dims == ("space", "model", "lead_time")):
            for model in scores.model.values:
                value = float(scores[name].sel(space=space, model=model)[number])
                row[f"{name} {model}"] = restate(name, value, convention, pixels, frames)[0]
        rows.append(row)
    return rows
