"""A run that forecasts flow at stations: samples, scores, forecasts and report, against plain loops over its files."""

from dataclasses import replace

import numpy as np
import pytest
import torch
import xarray as xr
from river_fixtures import NUM_STATIONS, river_files, river_run, river_values  # noqa: F401

import fieldcast as fc
from fieldcast.config import read_config
from fieldcast.errors import ConfigError, DataError
from fieldcast.evaluation import evaluate, station_rows
from fieldcast.report.flows import hydrographs
from fieldcast.report.run_report import report
from fieldcast.training.loop import resume, train

DAY = 86_400 * 10**9


@pytest.fixture(scope="module")
def flow(river_files):  # noqa: F811
    with xr.open_dataset(river_files[1], engine="h5netcdf") as stored:
        return stored.load()


def test_targets_are_the_flow_at_their_times_and_gaps_stay_gaps(river_run, flow):  # noqa: F811
    _, splits = river_run.samples()
    for split, samples in splits.items():
        for number in range(0, len(samples), 7):
            batch, truth = samples.batch_and_truth([number])
            times = np.datetime64(int(batch.origin), "ns") + np.arange(2) * np.timedelta64(1, "D")
            expected = flow.flow.sel(time=times).values
            np.testing.assert_array_equal(truth[0, :, 0].numpy(), expected)
            np.testing.assert_array_equal(batch.valid[0, :, 0].numpy(), np.isfinite(expected))
            assert batch.target_times.tolist() == [[0, 1]] and batch.targets.shape == (1, 2, 1, NUM_STATIONS), split
    gap = splits["train"].source.sequences("train", None)[0].read_flow(np.array([21]))
    assert np.isnan(gap[0, 0, 0]) and np.isfinite(gap[0, 0, 1:]).all()


def test_no_weather_or_flow_is_shared_by_two_splits(river_run):  # noqa: F811
    _, splits = river_run.samples()
    spans = {name: [samples.times(0).min(), samples.times(len(samples) - 1).max()] for name, samples in splits.items()}
    assert spans["train"][1] < spans["validation"][0] and spans["validation"][1] < spans["test"][0]


def test_flow_is_normalised_by_the_training_split_alone(river_run, flow):  # noqa: F811
    _, splits = river_run.samples()
    samples = splits["train"]
    seen = {int(time) for number in range(len(samples)) for time in samples.times(number)[4:]}
    values = flow.flow.sel(time=np.array(sorted(seen), "datetime64[ns]")).values.astype(np.float64)
    logs = np.log(values + 0.01 * np.nanmean(values, axis=0))
    normalised = samples.target_normalizer.normalise(torch.from_numpy(values))
    np.testing.assert_allclose(normalised, (logs - np.nanmean(logs, 0)) / np.nanstd(logs, 0), rtol=0, atol=1e-5)


def test_scores_of_a_plain_loop(river_run, flow):  # noqa: F811
    scores = evaluate(river_run, device="cpu")
    _, splits = river_run.samples()
    samples, model = splits["test"], river_run.model()
    pairs = []
    for number in range(len(samples)):
        batch, truth = samples.batch_and_truth([number])
        with torch.inference_mode():
            own = model(batch.inputs, batch.input_times, batch.target_times)
        times = np.datetime64(int(batch.origin), "ns") + np.array([-1, 0]) * np.timedelta64(1, "D")
        yesterday = flow.flow.sel(time=times[:1]).values.repeat(2, axis=0)
        pairs.append((river_run.target_normalizer.denormalise(own)[0, :, 0].numpy(), yesterday, truth[0, :, 0].numpy()))
    own, yesterday, truth = (np.stack(part).astype(np.float64) for part in zip(*pairs, strict=True))
    for name, predicted in (("runoff-convlstm", own), ("persistence", yesterday)):
        table = scores.sel(space="physical", model=name)
        assert float(table.mse_overall) == pytest.approx(np.mean((predicted - truth) ** 2), rel=1e-5)
        for lead in range(2):
            ss = ((truth[:, lead] - truth[:, lead].mean(0)) ** 2).sum(0)
            nse = 1 - ((predicted[:, lead] - truth[:, lead]) ** 2).sum(0) / ss
            np.testing.assert_allclose(table.nse.isel(lead_time=lead), nse, rtol=1e-4, atol=1e-4)
    assert scores.station.values.tolist() == ["R0", "R1", "R2", "R3"]
    assert {"climatology", "ridge-regression"} <= set(scores.model.values)
    # Rain of today and yesterday makes the flow: the linear model has to find some of it.
    today = scores.mse.sel(space="physical").isel(lead_time=0)
    assert float(today.sel(model="ridge-regression")) < 0.9 * float(today.sel(model="climatology"))
    assert np.isfinite(scores.nse_overall_interval.sel(space="physical", model="persistence")).all()
    assert "optical-flow forecasts maps" in scores.attrs["left_out"]
    rows = {(row["metric"], row["model"]): row for row in station_rows(scores)}
    row = rows["Nash-Sutcliffe efficiency", "runoff-convlstm"]
    efficiencies = scores.nse_overall.sel(space="physical", model="runoff-convlstm").values
    assert row["median"] == pytest.approx(np.median(efficiencies)) and row["undefined"] == 0
    low, high = scores.nse_overall_difference_interval.sel(
        space="physical", model="runoff-convlstm", baseline="persistence"
    ).values
    assert row["wins, losses against persistence"] == f"{(low > 0).sum()}, {(high < 0).sum()}"


def test_a_forecast_is_labelled_by_station(river_run, river_files):  # noqa: F811
    result = fc.forecast(river_run, river_files[0], minutes=[0, 1440], device="cpu")
    assert result.flow.dims == ("init_time", "lead_time", "station") and result.flow.attrs["units"] == "m3/s"
    assert result.station.values.tolist() == ["R0", "R1", "R2", "R3"] and result.latitude.dims == ("station",)
    assert result.title.values[0] == "River R0"
    with xr.open_dataset(river_files[0], engine="h5netcdf") as weather:
        last = np.stack([weather[name].values[-4:] for name in ("rain", "warmth")], axis=1)[None]
    inputs = river_run.normalizer.normalise(torch.from_numpy(last))
    with torch.inference_mode():
        own = river_run.model()(inputs, torch.arange(-3.0, 1)[None], torch.tensor([[0.0, 1.0]]))
    expected = river_run.target_normalizer.denormalise(own)[0, :, 0]
    np.testing.assert_allclose(result.flow.values[0], expected, rtol=1e-5)


def test_a_forecast_at_another_lead_time_is_refused(river_run, river_files):  # noqa: F811
    with pytest.raises(DataError, match="lead"), pytest.warns(UserWarning, match="beyond"):
        fc.forecast(river_run, river_files[0], minutes=[2880], device="cpu")


def test_hydrographs_are_forecasts_at_their_times_with_gaps_between(river_run, flow):  # noqa: F811
    samples = river_run.samples()[1]["train"]
    few = replace(samples, starts=[samples.starts[number] for number in (0, 1, 30)])
    found = hydrographs({"own": river_run.model()}, few).flow
    assert found.dims == ("model", "lead_time", "time", "station")
    assert found.model.values.tolist() == ["observed", "own"]
    origins = np.array([samples.origin(number) for number in (0, 1, 30)], "datetime64[ns]")
    days = np.timedelta64(1, "D")
    shown = np.unique([*origins, *(origins + days), origins[1] + 2 * days])
    np.testing.assert_array_equal(found.time.values, shown)
    assert found.sel(time=origins[1] + 2 * days).isnull().all()
    batch = samples.batch([30])
    with torch.inference_mode():
        own = river_run.model()(batch.inputs, batch.input_times, batch.target_times)
    expected = river_run.target_normalizer.denormalise(own)[0, 1, 0]
    row = found.isel(lead_time=1).sel(time=origins[2] + days)
    np.testing.assert_allclose(row.sel(model="own"), expected, rtol=1e-5)
    np.testing.assert_array_equal(row.sel(model="observed"), flow.flow.sel(time=origins[2] + days))


def test_the_report_has_hydrographs_and_no_maps(river_run):  # noqa: F811
    page = report(river_run).read_text()
    assert "Hydrographs" in page and "Cases to look at" not in page


def test_a_stopped_run_goes_on_to_the_same_bits(river_files, tmp_path):  # noqa: F811
    whole = train(read_config(river_values(river_files)), tmp_path / "whole", device="cpu")
    values = river_values(river_files)
    values["training"]["num_steps"] = 3
    train(read_config(values), tmp_path / "part", device="cpu")
    config = (tmp_path / "part" / "config.json").read_text().replace('"num_steps": 3', '"num_steps": 6')
    (tmp_path / "part" / "config.json").write_text(config)
    part = resume(tmp_path / "part", device="cpu")
    for name, weight in whole.best.model.items():
        assert torch.equal(weight, part.best.model[name]), name


@pytest.mark.parametrize(
    ("table", "change", "said"),
    [
        ("model", {"key": "convgru"}, "forecasts maps"),
        ("model", {"key": "runoff-convlstm", "num_stations": 3}, "the source has 4"),
        ("source", {"catchment_radius": None}, "catchment_radius"),
        ("windows", {"crop": 4}, "crop"),
    ],
)
def test_what_does_not_go_with_rivers_is_refused(river_files, tmp_path, table, change, said):  # noqa: F811
    values = river_values(river_files)
    values[table] = change if change.get("key") == "convgru" else {**values[table], **change}
    values[table] = {key: value for key, value in values[table].items() if value is not None}
    with pytest.raises((ConfigError, DataError), match=said):
        train(read_config(values), tmp_path / "run", device="cpu")


def test_a_model_of_rivers_wants_rivers(tiny_values, tmp_path):
    values = tiny_values()
    values["model"] = {"key": "runoff-convlstm"}
    with pytest.raises(ConfigError, match="forecasts flow at stations, the source 'moving-mnist' has maps"):
        train(read_config(values), tmp_path / "run", device="cpu")


def test_lead_time_zero_of_maps_is_refused(tiny_values, tmp_path):
    with pytest.raises(DataError, match="first_lead = 0"):
        train(read_config(tiny_values(**{"windows.first_lead": 0})), tmp_path / "run", device="cpu")


def test_a_first_lead_time_beyond_the_first_step(tiny_config, radar_file):
    config = tiny_config("radar", **{"windows.first_lead": 2, "windows.num_targets": 2})
    source = config.source.open(0)
    samples = fc.data.make_samples(source, config.windows, config.splits, config.source.normalizer)["train"]
    assert samples.batch([0]).target_times.tolist() == [[2, 3]]
