"""What the scores allow to be claimed about the trained models.

Shapes: S lead times.
"""

from typing import NamedTuple

import numpy as np
import xarray as xr

from fieldcast.evaluation import COMPARED, wins
from fieldcast.lead_times import lead_labels
from fieldcast.report.contents import MAIN_METRIC, PHYSICAL, ReportPart
from fieldcast.report.wording import interval_label, listed, neighbours_joined, number_label

MAIN_STATION_METRIC = "nse"
CLAIMS = {"better": "beats", "open": "is not shown to beat", "worse": "is worse than"}
AT_LEADS = {"better": "better", "open": "not shown to differ", "worse": "worse", "unknown": "not to be said"}


class Verdict(NamedTuple):
    """One sentence about a model, and a line for each baseline it was compared with."""

    claim: str
    comparisons: list[str]


def outcomes(part: ReportPart, name: str, space: str, baseline: str, model: str) -> np.ndarray:
    """Whether a model's score differs from a baseline's: "better", "worse", "open" or "unknown", an array of texts.

    Args:
        part: the scores.
        name: the metric, or its ``_overall``.
        space: where it was taken.
        baseline: what the model is compared with.
        model: the model.

    Returns:
        in the shape of the score of one model. "better" or "worse" where the interval of the difference excludes
        zero, "open" where it holds zero, "unknown" without an interval or where differences have no sign to go by.
    """
    shape = part.scores[name].sel(space=space, model=model).shape
    bounds = part.interval(f"{name}_difference", space)
    signed = part.orientation(name) in COMPARED
    if bounds is None or not signed or baseline not in bounds.baseline.values or baseline == model:
        return np.full(shape, "unknown", dtype="<U7")
    at = {"baseline": baseline, "model": model}
    won = wins(part.scores, f"{name}_difference").sel({"space": space, **at}).values
    found = np.where(won > 0, "better", np.where(won < 0, "worse", "open"))
    return np.where(np.isfinite(bounds.sel(at).transpose("bound", ...).values).all(0), found, "unknown")


def verdicts(part: ReportPart) -> list[Verdict]:
    """What can be claimed about each trained model, in each physical space."""
    scored = [name for name in part.plain_metrics if part.is_score(name)]
    name = MAIN_METRIC if MAIN_METRIC in scored else next(iter(scored), None)
    of_stations = [metric for metric in part.metrics_along("station") if part.is_score(metric)]
    if name is None and not of_stations:
        return [Verdict("No scores.", [])]
    if not part.trained:
        return [Verdict("Only baselines were scored.", [])]
    pairs = [(space, model) for space in part.shown_spaces for model in part.trained]
    if name is None:
        name = MAIN_STATION_METRIC if MAIN_STATION_METRIC in of_stations else of_stations[0]
        return [_station_verdict(part, name, space, model) for space, model in pairs]
    return [_verdict(part, name, space, model) for space, model in pairs]


def _station_verdict(part: ReportPart, name: str, space: str, model: str) -> Verdict:
    """The median over stations, and at how many of them the model is better or worse than each baseline."""
    scores = part.scores[f"{name}_overall"].sel(space=space)
    comparisons = []
    for rival in part.baselines:
        found = outcomes(part, f"{name}_overall", space, rival, model)
        counts = [f"{AT_LEADS[kind]} at {(found == kind).sum()}" for kind in AT_LEADS if (found == kind).any()]
        line = (
            f"Against {rival}, median {_station_median(scores.sel(model=rival))}: {', '.join(counts)} of {found.size}"
        )
        comparisons.append(f"{line} stations.")
    claim = f"{model}: {part.title(name)} {_station_median(scores.sel(model=model))}"
    return Verdict(f"{claim} in the median of {scores.sizes['station']} stations.", comparisons)


def _station_median(scores: xr.DataArray) -> str:
    """The median of the stations that have a score, in words."""
    known = scores.values[np.isfinite(scores.values)]
    return number_label(float(np.median(known)), 3) if known.size else "undefined"


def _verdict(part: ReportPart, name: str, space: str, model: str) -> Verdict:
    subject = f"{space.removeprefix(PHYSICAL).strip()}: " if len(part.shown_spaces) > 1 else ""
    rivals = part.baselines
    if not rivals:
        value = _value(part, name, space, model)
        return Verdict(f"{subject}{model} was compared with no baseline: {part.title(name)} {value}.", [])
    found = {rival: str(outcomes(part, f"{name}_overall", space, rival, model)) for rival in rivals}
    claims = [
        f"{claim} {listed(those)}"
        for outcome, claim in CLAIMS.items()
        if (those := [rival for rival, of_rival in found.items() if of_rival == outcome])
    ]
    unknown = [rival for rival, of_rival in found.items() if of_rival == "unknown"]
    sentence = f"{model} {'; it '.join(claims)}." if claims else ""
    if unknown:
        sentence += f" Nothing can be claimed about {model} against {listed(unknown)}: {_why_unknown(part)}."
    return Verdict(subject + sentence.strip(), [_comparison(part, name, space, model, rival) for rival in rivals])


def _why_unknown(part: ReportPart) -> str:
    blocks = part.scores.attrs.get("num_blocks")
    return "the differences have no interval" + (f" ({blocks} independent blocks)" if blocks is not None else "")


def _comparison(part: ReportPart, name: str, space: str, model: str, rival: str) -> str:
    """One line: both scores, their difference with its interval, and the lead times of each outcome."""
    line = (
        f"Against {rival}: {part.title(name)} {_value(part, name, space, model)} and "
        f"{_value(part, name, space, rival)} over all lead times"
    )
    difference = f"{name}_overall_difference"
    bounds = part.interval(difference, space)
    if bounds is not None and rival in bounds.baseline.values and np.isfinite(_bounds_of(bounds, rival, model)).all():
        value = float(part.scores[difference].sel(space=space, baseline=rival, model=model))
        line += f"; difference {number_label(value, 3)} ({interval_label(*_bounds_of(bounds, rival, model))})"
    at_leads = _at_leads(part, name, space, rival, model)
    return f"{line}. {at_leads}." if at_leads else f"{line}."


def _bounds_of(bounds: xr.DataArray, baseline: str, model: str) -> tuple[float, float]:
    low, high = bounds.sel(baseline=baseline, model=model).values
    return float(low), float(high)


def _value(part: ReportPart, name: str, space: str, model: str) -> str:
    units = str(part.scores[name].attrs.get(f"units_{space}", "1"))
    value = number_label(float(part.scores[f"{name}_overall"].sel(space=space, model=model)))
    return value if units in ("", "1") else f"{value} {units}"


def _at_leads(part: ReportPart, name: str, space: str, rival: str, model: str) -> str:
    """Word the outcome at each lead time, or nothing where none is known."""
    found = outcomes(part, name, space, rival, model)
    labels = lead_labels(part.scores.lead_time.values)
    kinds = [kind for kind in AT_LEADS if (found == kind).any()]
    if kinds == ["unknown"]:
        return ""
    if len(kinds) == 1:
        return f"{AT_LEADS[kinds[0]].capitalize()} at every lead time"
    words = "; ".join(f"{AT_LEADS[kind]} at {neighbours_joined(found == kind, labels)}" for kind in kinds)
    return words[0].upper() + words[1:]


def interval_note(part: ReportPart) -> str:
    """Say what the intervals are, or that there are none."""
    attributes = part.scores.attrs
    if not any(part.interval(name, space) is not None for name in part.metrics for space in part.spaces):
        return "There are no intervals, so none of the differences is shown to be more than chance."
    blocks = f"{attributes.get('num_blocks', 'some')} independent blocks"
    length = f" of {attributes['block_length']}" if "block_length" in attributes else ""
    resamples = f", {attributes['num_resamples']} resamples" if "num_resamples" in attributes else ""
    confidence = f"{100 * float(attributes.get('confidence', 0.95)):g} %"
    return (
        f"Intervals are {confidence} bootstrap intervals over {blocks}{length}{resamples}. A model beats another "
        "where the interval of the difference of their scores, taken on the same blocks, excludes zero."
    )
