"""Made-up contents of a report that have everything a report can show, with markup in their names.

Shapes: A spaces, M models, S lead times.
"""

import numpy as np
import xarray as xr

from fieldcast.report import Case, ReportContents, ReportPart

HOSTILE = "<script>alert('$x_1$ & \"y\"')</script>"
BASELINES = ("persistence", "climatology", "optical-flow")
TRAINED = ("trajgru", f"convgru {HOSTILE}")
MODELS = (*TRAINED, *BASELINES)
ERRORS = dict(zip(MODELS, (1.0, 1.25, 2.0, 2.4, 1.05), strict=True))
NUM_LEADS = 12
NUM_INPUTS = 6
SPACES = ("physical", "unit")
HALF_WIDTH = 0.12  # of an interval, as a share of the error
THRESHOLDS = (0.5, 2.0, 10.0, 100.0)
FURTHER = {
    "threshold": np.array(THRESHOLDS),
    "scale": np.array([1.0, 3.0, 9.0, 17.0, 33.0]),
    "wavenumber": np.arange(33) / 64,
    "probability": np.linspace(0, 1, 11),
    "rank": np.arange(11.0),
}
# name -> orientation, units of a field in mm/h, share of the error, value without error
PLAIN = {
    "mse": ("smaller", "(mm/h)^2", 1.0, 0.0),
    "mae": ("smaller", "mm/h", 0.4, 0.0),
    "rmse": ("smaller", "mm/h", 0.8, 0.0),
    "bias": ("zero", "mm/h", -0.1, 0.0),
    "psnr": ("larger", "dB", -3.0, 40.0),
    "correlation": ("larger", "1", -0.12, 1.0),
    "ssim": ("larger", "1", -0.1, 1.0),
    "gdl": ("smaller", "mm/h", 0.3, 0.0),
    "sal-structure": ("zero", "1", 0.2, 0.0),
    "sal-location": ("smaller", "1", 0.05, 0.0),
    "spread": ("none", "mm/h", 0.2, 0.0),
}
EVENTS = {
    "pod": ("larger", -0.12, 0.95),
    "far": ("smaller", 0.12, 0.05),
    "csi": ("larger", -0.14, 0.9),
    "frequency-bias": ("one", 0.1, 1.0),
}


def minutes(values) -> np.ndarray:
    return np.array(values, dtype="timedelta64[m]").astype("timedelta64[ns]")


def errors(models=MODELS) -> np.ndarray:
    """Errors (M, S) that grow with lead time; climatology's is the same at all of them."""
    growth = np.sqrt(np.arange(1, NUM_LEADS + 1) / 4)
    return np.stack(
        [np.full(NUM_LEADS, ERRORS[m]) if m == "climatology" else ERRORS.get(m, 1.0) * growth for m in models]
    )


class Builder:
    """Adds metrics with their overall values, differences and intervals to a data set."""

    def __init__(self, models=MODELS, intervals=True) -> None:
        self.models = list(models)
        self.baselines = [model for model in models if model in BASELINES]
        self.intervals = intervals
        leads = ("lead_time", minutes(np.arange(1, NUM_LEADS + 1) * 5), {"long_name": "lead time"})
        coordinates = {"space": list(SPACES), "model": self.models, "baseline": self.baselines, "lead_time": leads}
        self.scores = xr.Dataset(coords={**coordinates, "bound": ["low", "high"]})

    def add(self, name: str, values: np.ndarray, attributes: dict, further=(), half: np.ndarray | float = 0.0) -> None:
        """A metric (A, M, *D, S), its values half as wide as the intervals around them."""
        for dimension in further:
            self.scores.coords[dimension] = FURTHER[dimension]
        units = {f"units_{space}": attributes.get("units", "1") if space == "physical" else "1" for space in SPACES}
        known = {"family": "pixels", "convention": "mean over valid pixels", **attributes, **units}
        known.pop("units", None)
        half = np.broadcast_to(half, values.shape)
        for suffix, kept, about in (("", (*further, "lead_time"), values), ("_overall", further, values.mean(-1))):
            around = half if suffix == "" else half.mean(-1)
            self._add(f"{name}{suffix}", ("space", "model", *kept), about, around, known)
            rows = [self.models.index(baseline) for baseline in self.baselines]
            difference = about[:, None] - about[:, rows, None]
            wide = np.broadcast_to(around[:, None], difference.shape) * 0.9
            self._add(f"{name}{suffix}_difference", ("space", "baseline", "model", *kept), difference, wide, {})

    def _add(self, name: str, dimensions: tuple, values: np.ndarray, half: np.ndarray, attributes: dict) -> None:
        self.scores[name] = (dimensions, values, attributes)
        if self.intervals:
            bounds = np.stack([values - half, values + half])
            self.scores[f"{name}_interval"] = (("bound", *dimensions), bounds)


def make_scores(models=MODELS, intervals=True) -> xr.Dataset:
    """Scores of every family, in two spaces."""
    builder = Builder(models, intervals)
    error = np.stack([errors(models), 0.01 * errors(models)])
    for name, (orientation, units, share, best) in PLAIN.items():
        attributes = {"long_name": f"long {name}", "orientation": orientation, "units": units}
        builder.add(name, best + share * error, attributes, half=HALF_WIDTH * abs(share) * error)
    _add_events(builder, error)
    _add_spectra(builder, error)
    _add_ensemble(builder)
    builder.scores.attrs = {
        "split": "test",
        "num_samples": 120,
        "data_range": "physical: 50 mm/h, unit: 1",
        "unit_space": "normalised by log-rate",
        "precision": "float32",
        "step": 400,
        "confidence": 0.95,
        "num_blocks": 12,
        "block_length": "2 h",
        "num_resamples": 1000,
        "left_out": "crps needs an ensemble",
        "event": "at-or-above",
    }
    return builder.scores


def _add_events(builder: Builder, error: np.ndarray) -> None:
    error = error.copy()
    error[1] = np.nan
    harder = np.array([0.7, 1.0, 1.6, np.nan])[:, None]  # nothing reaches the highest threshold
    for name, (orientation, share, best) in EVENTS.items():
        values = best + share * error[:, :, None] * harder
        attributes = {"long_name": f"long {name}", "orientation": orientation, "family": "events"}
        builder.add(name, values, attributes, ("threshold",), np.abs(0.1 * share * error[:, :, None] * harder))
    counts = np.broadcast_to(np.array([52_344.0, 8_120.0, 415.0, 0.0])[:, None], (2, len(builder.models), 4, NUM_LEADS))
    counts = np.where(np.isnan(error[:, :, None]), np.nan, counts)
    attributes = {"long_name": "number of observed events", "orientation": "none", "family": "events"}
    builder.add("num-events", counts, attributes, ("threshold",))
    wider = np.sqrt(FURTHER["scale"])[:, None]
    values = np.clip(1 - 0.3 * (error[:, :, None] * harder)[..., None, :] / wider, 0, 1)
    attributes = {"long_name": "fractions skill score", "orientation": "larger", "family": "events"}
    builder.add("fss", values, attributes, ("threshold", "scale"), 0.05)


def _add_spectra(builder: Builder, error: np.ndarray) -> None:
    waves = FURTHER["wavenumber"][:, None]
    observed = 1e-3 * np.maximum(waves, 1 / 128) ** -2.4
    smooth = np.where(np.isin(builder.models, ["persistence", "optical-flow"]), 0.0, 1.0)[:, None, None]
    ratio = np.exp(-8 * smooth * waves * error[:, :, None] / error.max())
    shape = (2, len(builder.models), len(waves), NUM_LEADS)
    named = {"orientation": "none", "units": "(mm/h)^2", "family": "structure"}
    builder.add("spectrum", observed * ratio, {"long_name": "power of the forecast", **named}, ("wavenumber",))
    whole = np.broadcast_to(observed, shape)
    builder.add("spectrum-observed", whole, {"long_name": "power of the observations", **named}, ("wavenumber",))
    named = {"orientation": "one", "family": "structure"}
    builder.add("spectrum-ratio", ratio, {"long_name": "power relative to observed", **named}, ("wavenumber",), 0.05)


def _add_ensemble(builder: Builder) -> None:
    """Only the first model is an ensemble: it is too sure of itself."""
    only = np.full((2, len(builder.models), 1, 1), np.nan)
    only[0, 0] = 1.0
    over_leads = np.ones(NUM_LEADS)
    probability = FURTHER["probability"][:, None]
    named = {"orientation": "none", "family": "ensembles"}
    frequency = only[:, :, None] * (0.15 + 0.65 * probability) * over_leads
    frequency = np.broadcast_to(frequency, (2, len(builder.models), 4, 11, NUM_LEADS))
    along = ("threshold", "probability")
    builder.add("reliability", frequency, {"long_name": "observed frequency of probabilities", **named}, along, 0.05)
    share = np.broadcast_to(only[:, :, None] * np.exp(-4 * probability) * over_leads, frequency.shape)
    builder.add("sharpness", share, {"long_name": "frequency of probabilities", **named}, along)
    ranks = only * (1 + 0.05 * (FURTHER["rank"][:, None] - 5) ** 2) * over_leads
    builder.add("rank-histogram", ranks, {"long_name": "rank histogram", **named}, ("rank",))


def make_frames(name="rain_rate", units="mm/h", models=MODELS, size=(48, 64), seed=0) -> xr.DataArray:
    """Cells of rain that move to the right; models lag behind them, and are missing for inputs."""
    random = np.random.default_rng(seed)
    leads = np.arange(1 - NUM_INPUTS, NUM_LEADS + 1) * 5
    y, x = np.mgrid[: size[0], : size[1]]
    cells = [(random.uniform(2, 60), *random.uniform(0, 1, 2) * size, random.uniform(2, 9)) for _ in range(9)]
    frames = np.stack(
        [
            sum(p * np.exp(-(((x - b - lead / 4) ** 2) + (y - a) ** 2) / (2 * w**2)) for p, a, b, w in cells)
            for lead in leads
        ]
    )
    frames[:, :4, :4] = np.nan
    lagging = [np.roll(frames, 2 * number, axis=2) for number in range(1, len(models) + 1)]
    values = np.stack([frames, *lagging])
    values[1:, leads <= 0] = np.nan
    start = np.datetime64("2018-05-19T23:00", "ns")
    coordinates = {
        "panel": ["observed", *models],
        "lead_time": minutes(leads),
        "valid_time": ("lead_time", start + minutes(leads)),
        "is_input": ("lead_time", leads <= 0),
        "y": ("y", np.arange(size[0]) * 1000.0, {"standard_name": "projection_y_coordinate"}),
    }
    attributes = {"units": units, "long_name": name.replace("_", " ")}
    return xr.DataArray(values, coordinates, ("panel", "lead_time", "y", "x"), name, attributes)


def make_case(heading="Best against persistence: MSE 0.31 against 0.92", **frames) -> Case:
    return Case(heading, make_frames(**frames))


def make_history(factor=1.0) -> list[dict]:
    steps = np.arange(1, 401)
    loss = factor * (2 / steps**0.5 + 0.1 * np.sin(steps) ** 2 / steps**0.3)
    rows = [
        {"step": float(step), "train_loss": float(value), "learning_rate": 1e-3 * (1 - step / 500), "seconds": 1.0}
        for step, value in zip(steps, loss, strict=True)
    ]
    return [{**row, "validation_loss": row["train_loss"] * 1.1 if row["step"] % 50 == 0 else None} for row in rows]


def make_part(name="radar", **changes) -> ReportPart:
    cases = [
        make_case(),
        make_case(f"Worst against persistence: MSE 4.1 against 2.2 {HOSTILE}", seed=1),
        make_case("Most rain of the split: mean 3.2 mm/h", seed=2),
        make_case("Typical: MSE 0.5, the median of 120 samples", seed=3),
    ]
    return ReportPart(**{"name": name, "scores": make_scores(), "cases": cases, **changes})


def make_contents(**changes) -> ReportContents:
    """Contents that have everything, or that with changes."""
    pieces = {
        "title": "radar-trajgru: trajgru on netcdf",
        "parts": [make_part()],
        "histories": {TRAINED[0]: make_history(), TRAINED[1]: make_history(1.2)},
        "settings": {"name": "radar", "seed": 7, "model": {"key": "trajgru", "widths": [16, 24]}, HOSTILE: [HOSTILE]},
        "environment": {"fieldcast": "0.1", "device": "cpu", "torch": "2.13"},
        "table": [
            {"model": "trajgru", "parameters": 1_234_567, "mse": 0.31, "seconds per step": 0.21, "note": HOSTILE},
            {"model": "persistence", "parameters": 0, "mse": 0.92, "seconds per step": None},
        ],
    }
    return ReportContents(**{**pieces, **changes})
