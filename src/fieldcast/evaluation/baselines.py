"""The forecasters that a run is compared with, and those that can't take its samples."""

from dataclasses import replace

import torch

from fieldcast.data import Samples
from fieldcast.data.dataset import frames_and_times, spread
from fieldcast.data.source import StationSource
from fieldcast.evaluation.sample_times import SampleTimes, lie_between
from fieldcast.models import MODELS, Forecaster, ModelSettings, build
from fieldcast.models.baselines.climatology import Climatology
from fieldcast.models.baselines.flow import FlowClimatology, FlowPersistence
from fieldcast.models.baselines.optical_flow import has_optical_flow
from fieldcast.models.baselines.ridge_regression import RidgeRegression
from fieldcast.run import Run

# A table without them says nothing.
ALWAYS = ("persistence",)
ALWAYS_BETWEEN = ("persistence", "linear-interpolation")
# No table of rivers says anything without a linear model.
ALWAYS_OF_STATIONS = ("persistence", "climatology", "ridge-regression")
# What goes by these names where flow at stations is forecast.
OF_STATIONS: dict[str, type[FlowPersistence | FlowClimatology]] = {
    "persistence": FlowPersistence,
    "climatology": FlowClimatology,
}
DRAWS_FOR_A_MEAN = 500


def with_baselines(run: Run, train: Samples, device: torch.device) -> tuple[dict[str, Forecaster], list[str]]:
    """The run's forecaster and the baselines it is compared with, by the names that tables have.

    Persistence is always among them, linear interpolation where the run forecasts times between its inputs, and all
    that there are where it forecasts flow at stations.

    Returns:
        the models, and why a baseline is not among them.
    """
    num_channels = len(run.best.state["variables"])
    models: dict[str, Forecaster] = {run.model_name: run.model(device)}
    absent = []
    of_stations = isinstance(train.source, StationSource)
    always = ALWAYS_OF_STATIONS if of_stations else ALWAYS_BETWEEN if lie_between(train) else ALWAYS
    for key in dict.fromkeys((*always, *run.config.evaluation.baselines)):
        for_stations = MODELS[key].forecaster.forecasts_stations
        if not (for_stations or key in OF_STATIONS) if of_stations else for_stations:
            absent.append(f"{key} forecasts {'maps' if of_stations else 'flow at stations'}")
        elif key == "optical-flow" and not has_optical_flow():
            absent.append("optical-flow needs the extra 'nowcast'")
        elif key not in models:
            models[key] = _fitted(key, num_channels, train).to(device)
    return models, absent


def _fitted(key: str, num_channels: int, train: Samples) -> Forecaster:
    """A baseline that has seen the training split, where it is one that has to."""
    if isinstance(train.source, StationSource):
        kind = OF_STATIONS.get(key)
        baseline = kind(ModelSettings(), num_channels) if kind else build(key, num_channels=num_channels)
        assert isinstance(baseline, FlowPersistence | FlowClimatology | RidgeRegression)
        baseline.fit(train)
        return baseline
    model = build(key, num_channels=num_channels)
    if isinstance(model, Climatology):
        model.fit(frames_and_times(_enough(train)), train.source, train.normalizer)
    return model


def leave_out(models: dict[str, Forecaster], times: SampleTimes) -> tuple[dict[str, Forecaster], list[str]]:
    """The models without those baselines that can't take samples at these times, and why they can't."""
    reasons = {name: times.inability(model) for name, model in models.items() if not model.trained}
    able = {name: model for name, model in models.items() if reasons.get(name) is None}
    return able, [f"{name} {reason}" for name, reason in reasons.items() if reason is not None]


def _enough(train: Samples) -> Samples:
    """All samples of an archive; of a generator, which has no end of them, enough for a mean."""
    if train.source.kind != "generator":
        return train
    return replace(train, starts=[train.starts[number] for number in spread(len(train), DRAWS_FOR_A_MEAN)])
