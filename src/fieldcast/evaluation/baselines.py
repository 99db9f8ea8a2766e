"""The forecasters that a run is compared with, and those that can't take its samples."""

from dataclasses import replace

import torch

from fieldcast.data import Samples
from fieldcast.data.dataset import frames_and_times, spread
from fieldcast.evaluation.sample_times import SampleTimes, lie_between
from fieldcast.models import Forecaster, build
from fieldcast.models.baselines.climatology import Climatology
from fieldcast.models.baselines.optical_flow import has_optical_flow
from fieldcast.run import Run

# A table without them says nothing.
ALWAYS = ("persistence",)
ALWAYS_BETWEEN = ("persistence", "linear-interpolation")
DRAWS_FOR_A_MEAN = 500


def with_baselines(run: Run, train: Samples, device: torch.device) -> tuple[dict[str, Forecaster], list[str]]:
    """The run's forecaster and the baselines it is compared with, by the names that tables have.

    Persistence is always among them, linear interpolation where the run forecasts times between its inputs.

    Returns:
        the models, and why a baseline is not among them.
    """
    num_channels = len(run.best.state["variables"])
    models: dict[str, Forecaster] = {run.model_name: run.model(device)}
    absent = []
    always = ALWAYS_BETWEEN if lie_between(train) else ALWAYS
    for key in dict.fromkeys((*always, *run.config.evaluation.baselines)):
        if key == "optical-flow" and not has_optical_flow():
            absent.append("optical-flow needs the extra 'nowcast'")
        elif key not in models:
            model = build(key, num_channels=num_channels)
            if isinstance(model, Climatology):
                model.fit(frames_and_times(_enough(train)), train.source, train.normalizer)
            models[key] = model.to(device)
    return models, absent


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
