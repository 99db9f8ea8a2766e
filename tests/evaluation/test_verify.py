"""Forecasts from anywhere: labelled arrays in, the same scores out, in chunks or not, for ensembles and rivers."""

import dask
import numpy as np
import pytest
import scores as oracle
import xarray as xr

from fieldcast.errors import DataError
from fieldcast.evaluation import verify
from fieldcast.evaluation_settings import EvaluationSettings

SETTINGS = EvaluationSettings(block_length="1 h", num_resamples=100)
MEMBERS, STARTS, LEADS, ROWS, COLUMNS = 4, 8, 3, 18, 16
START = np.datetime64("2018-05-10T00:00", "ns")


def observations(random, shape=(ROWS, COLUMNS), dims=("y", "x")):
    times = START + np.arange(14 * 2) * np.timedelta64(30, "m")
    rain = 8 * random.random((len(times), *shape)) ** 2
    rain[random.random(rain.shape) < 0.05] = np.nan
    return xr.DataArray(rain, {"time": times}, ("time", *dims), attrs={"units": "mm/h"})


def forecasts(random, truth, members=None):
    """What will be observed, with noise."""
    init_time = START + np.arange(STARTS) * np.timedelta64(60, "m")
    lead_time = np.array([30, 60, 90]) * np.timedelta64(1, "m")
    starts = xr.DataArray(init_time, {"init_time": init_time}, ("init_time",))
    leads = xr.DataArray(lead_time.astype("timedelta64[ns]"), {"lead_time": lead_time}, ("lead_time",))
    right = truth.sel(time=starts + leads).drop_vars("time").fillna(0)
    shape = (members, *right.shape) if members else right.shape
    noise = xr.DataArray(random.normal(0, 1, shape), dims=(("number",) if members else ()) + right.dims)
    return (right + noise).clip(min=0).assign_attrs(units="mm/h")


@pytest.fixture
def random():
    return np.random.default_rng(0)


def matched(truth, forecast):
    return truth.sel(time=forecast.init_time + forecast.lead_time).drop_vars("time")


def test_scores_are_those_of_the_scores_package(random):
    truth = observations(random)
    forecast = forecasts(random, truth)
    table = verify({"net": forecast}, truth, SETTINGS)
    right = matched(truth, forecast)
    for name, function in (("mse", oracle.continuous.mse), ("mae", oracle.continuous.mae)):
        wanted = function(forecast, right, preserve_dims=["lead_time"])
        came = table[name].sel(space="physical", model="net")
        np.testing.assert_allclose(came, wanted, rtol=1e-12)
    assert table.csi.sel(model="net", threshold=2.0).notnull().all()
    assert table.attrs["num_samples"] == STARTS


def test_an_ensemble_has_the_scores_of_its_mean_and_of_its_members(random):
    truth = observations(random)
    ensemble = forecasts(random, truth, MEMBERS)
    table = verify({"members": ensemble, "mean": ensemble.mean("number", keep_attrs=True)}, truth, SETTINGS)
    np.testing.assert_allclose(table.mse.sel(model="members"), table.mse.sel(model="mean"), rtol=1e-12)
    wanted = oracle.probability.crps_for_ensemble(
        ensemble, matched(truth, ensemble), "number", method="fair", preserve_dims=["lead_time"]
    )
    came = table["crps-fair"].sel(space="physical", model="members")
    np.testing.assert_allclose(came, wanted, rtol=1e-10)
    assert table.crps.sel(model="mean").isnull().all()
    assert table["rank-histogram"].sizes["rank"] == MEMBERS + 1
    np.testing.assert_allclose(table["rank-histogram_overall"].sel(model="members").sum("rank"), 1)


@pytest.mark.parametrize("chunks", [1, 3, 8])
def test_chunks_give_the_scores_of_the_whole(random, chunks):
    truth = observations(random)
    ensemble = forecasts(random, truth, MEMBERS)
    whole = verify({"net": ensemble}, truth, SETTINGS)
    with dask.config.set(scheduler="threads", num_workers=2):
        parts = verify({"net": ensemble.chunk(init_time=chunks)}, truth.chunk(time=5), SETTINGS, whole_range(truth))
    xr.testing.assert_allclose(parts, whole, rtol=1e-12)


def whole_range(truth):
    return float(truth.max() - truth.min())


def test_rivers_have_their_own_scores(random):
    names = ["Rhine", "Elbe", "Oder"]
    truth = observations(random, (3,), ("station",)).assign_coords(station=names)
    forecast = forecasts(random, truth)
    table = verify({"net": forecast}, truth, SETTINGS)
    wanted = oracle.continuous.nse(forecast, matched(truth, forecast), preserve_dims=["station", "lead_time"])
    came = table.nse.sel(space="physical", model="net").sel(station=names)
    np.testing.assert_allclose(came, wanted.transpose("station", "lead_time"), rtol=1e-10)
    assert "ssim" not in table
    assert table.rmse.notnull().all()


def test_a_valid_time_without_a_frame_is_missing(random):
    truth = observations(random)
    forecast = forecasts(random, truth)
    gone = truth.sel(time=truth.time != START + np.timedelta64(30, "m"))
    masked = truth.where(truth.time != START + np.timedelta64(30, "m"))
    xr.testing.assert_allclose(
        verify({"net": forecast}, gone, SETTINGS, 8.0), verify({"net": forecast}, masked, SETTINGS, 8.0)
    )


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda forecast: forecast.assign_attrs(units="dBZ"), "in dBZ, what was observed in mm/h"),
        (lambda forecast: forecast.isel(x=slice(3)), "has 3 along x, not 16"),
        (lambda forecast: forecast.rename(lead_time="step"), "init_time and lead_time are needed"),
        (lambda forecast: forecast.rename(y="row"), "lies on"),
        (lambda forecast: forecast.isel(init_time=slice(2)), "other values of init_time"),
    ],
)
def test_what_does_not_fit_is_named(random, change, message):
    truth = observations(random)
    forecast = forecasts(random, truth)
    with pytest.raises(DataError, match=message):
        verify({"first": forecast, "second": change(forecast)}, truth, SETTINGS)


def test_another_place_is_refused(random):
    truth = observations(random).assign_coords(x=np.arange(COLUMNS) * 1.0)
    forecast = forecasts(random, truth).assign_coords(x=np.arange(COLUMNS) + 0.5)
    with pytest.raises(DataError, match="lies elsewhere along x"):
        verify({"net": forecast}, truth, SETTINGS)
    with pytest.raises(DataError, match="no forecast"):
        verify({}, truth, SETTINGS)
