"""``fieldcast explain``: labels, units and completeness of kernels of whole runs, of rivers and of maps."""

import json
import sys

import numpy as np
import pytest
import torch
import xarray as xr
from forecast_fixtures import shared_run  # noqa: F401
from river_fixtures import river_files, river_run  # noqa: F401

import fieldcast as fc
from fieldcast.cli import main
from fieldcast.errors import ConfigError, DataError
from fieldcast.explain import ExplainSettings, Place
from fieldcast.explain.kernel_file import load_kernels
from fieldcast.explain.targets import read_place
from fieldcast.training.loop import train

FEW = {"num_sequences": 6, "num_held_out": 6, "num_blocks": 3}


@pytest.fixture(scope="module")
def rivers(river_run):  # noqa: F811
    settings = ExplainSettings(**FEW, attribute=True, compare=True)
    return fc.explain(river_run, ["R2", "R0"], settings=settings, device="cpu")


def sequence(run, number):
    """A test sequence in physical units, newest last: by field (T, H, W) float64."""
    batch = run.samples()[1]["test"].batch([number])
    frames = run.normalizer.denormalise(batch.inputs)[0].double().numpy()
    return batch, dict(zip([variable["name"] for variable in run.best.state["variables"]], frames.swapaxes(0, 1)))


def test_local_kernels_are_complete_in_physical_units(river_run):  # noqa: F811
    at = np.datetime64(int(river_run.samples()[1]["test"].origin(3)), "ns")
    settings = ExplainSettings(**FEW, surrogate="local", at=str(at)[:19])
    kernels = fc.explain(river_run, "R1", settings=settings, device="cpu")
    batch, fields = sequence(river_run, 3)
    with torch.inference_mode():
        flow = river_run.target_normalizer.denormalise(
            river_run.model()(batch.inputs, batch.input_times, batch.target_times)
        )[0, :, 0, 1]
    assert kernels.output.values.tolist() == ["R1 +0", "R1 +1"]
    for lead, output in enumerate(kernels.output.values):
        total = float(kernels.offset.sel(output=output))
        for name, values in fields.items():
            total += float((kernels[f"kernel_{name}"].sel(output=output).values[::-1] * values).sum())
        assert total == pytest.approx(float(flow[lead]), rel=1e-4)
    assert kernels.kernel_rain.attrs["units"] == "m3/s per mm"
    np.testing.assert_array_equal(kernels.lag, np.arange(4) * np.timedelta64(86400 * 10**9, "ns"))


def test_a_kernel_is_what_a_small_change_does(river_run):  # noqa: F811
    at = np.datetime64(int(river_run.samples()[1]["test"].origin(0)), "ns")
    kernels = fc.explain(
        river_run, "R1", settings=ExplainSettings(**FEW, surrogate="local", at=str(at)[:19]), device="cpu"
    )
    batch, _ = sequence(river_run, 0)
    model = river_run.model().double()

    def flow(step):
        frames = river_run.normalizer.denormalise(batch.inputs.double())
        frames[0, -2, 0, 1, 2] += step  # the rain of yesterday at one pixel
        times = batch.input_times.double(), batch.target_times.double()
        with torch.inference_mode():
            forecast = model(river_run.normalizer.normalise(frames), *times).double()
        return float(river_run.target_normalizer.denormalise(forecast)[0, 0, 0, 1])

    slope = (flow(1e-3) - flow(-1e-3)) / 2e-3
    found = float(kernels.kernel_rain.sel(output="R1 +0").isel(lag=1, latitude=1, longitude=2))
    assert found == pytest.approx(slope, rel=1e-3, abs=1e-7)


def test_labels_of_rivers(rivers):
    assert rivers.output.values.tolist() == ["R2 +0", "R2 +1", "R0 +0", "R0 +1"]
    assert rivers.title.values.tolist() == ["River R2", "River R2", "River R0", "River R0"]
    assert rivers.lead_time.values.astype("timedelta64[h]").astype(int).tolist() == [0, 24, 0, 24]
    assert rivers.kernel_rain.dims == ("output", "lag", "latitude", "longitude")
    assert set(rivers.surrogate.values) >= {"reference", "average", "best sequence", "optimal", "least squares"}
    assert rivers.attrs["surrogate"] == "average" and np.isfinite(rivers.kernel_error_rain).all()
    assert np.isfinite(rivers.r2.sel(surrogate="average", against="network")).all()


def test_attributions_share_axes_and_units(rivers):
    for kind in ("contribution", "integrated_gradients", "occlusion"):
        shares = rivers[f"{kind}_rain"]
        assert shares.dims == rivers.kernel_rain.dims and shares.attrs["units"] == "m3/s"


def test_a_pixel_and_a_region_of_a_map(shared_run):  # noqa: F811
    settings = ExplainSettings(**FEW)
    pixel = fc.explain(shared_run, place=Place((3, 4), (5, 6)), settings=settings, device="cpu")
    assert pixel.attrs["surrogate"] == "local" and pixel.sizes["output"] == 1
    name = shared_run.best.state["variables"][0]["name"]
    fields = sequence(shared_run, 0)[1]
    region = fc.explain(shared_run, place=Place((2, 5), (4, 8)), minutes=[5, 15], settings=settings, device="cpu")
    assert region.sizes["output"] == 2 and np.isfinite(region[f"kernel_{name}"]).all()
    assert pixel[f"kernel_{name}"].shape[1:] == fields[name].shape
    row, column = pixel[f"kernel_{name}"].dims[-2:]
    assert float(pixel[f"output_{row}"][0]) == pixel[row].values[3] if row in pixel.coords else 3
    assert float(pixel[f"output_{column}"][0]) == pixel[column].values[5] if column in pixel.coords else 5


@pytest.mark.parametrize(
    ("station", "place", "said"),
    [
        ("R9", None, "unknown station 'R9'"),
        ("R1", Place((0, 1), (0, 1)), "name a station, not a pixel"),
    ],
)
def test_wrong_rivers_are_refused(river_run, station, place, said):  # noqa: F811
    with pytest.raises(ConfigError, match=said):
        fc.explain(river_run, station, place, device="cpu")


@pytest.mark.parametrize(
    ("station", "place", "said"),
    [
        (None, None, "name a pixel or a region"),
        ("R1", None, "name a pixel or a region"),
        (None, Place((0, 99), (0, 1)), "the map has rows"),
        (None, Place((0, 1), (0, 1), "snow"), "variable 'snow'"),
    ],
)
def test_wrong_places_are_refused(shared_run, station, place, said):  # noqa: F811
    with pytest.raises(ConfigError, match=said):
        fc.explain(shared_run, station, place, device="cpu")


def test_a_time_without_a_sequence_is_refused(river_run):  # noqa: F811
    with pytest.raises(ConfigError, match="the nearest ends"):
        fc.explain(river_run, "R1", settings=ExplainSettings(at="2031-01-01"), device="cpu")


@pytest.mark.parametrize(
    ("pixel", "region", "expected"),
    [("3,4", None, ((3, 4), (4, 5))), (None, "1:3, 2:9", ((1, 3), (2, 9))), (None, None, None)],
)
def test_places_in_words(pixel, region, expected):
    place = read_place(pixel, region, None)
    assert place is None if expected is None else (place.rows, place.columns) == expected


@pytest.mark.parametrize(("pixel", "region"), [("3", None), ("a,b", None), (None, "1:2"), ("1,2", "1:2,3:4")])
def test_other_words_for_places_are_refused(pixel, region):
    with pytest.raises(ConfigError):
        read_place(pixel, region, None)


def test_the_command_writes_a_file_and_a_page(river_run, tmp_path, monkeypatch, capsys):  # noqa: F811
    path = tmp_path / "kernels.nc"
    words = ["explain", str(river_run.folder), "--station", "R1", "--sequences", "6", "-o", str(path), "--json"]
    monkeypatch.setattr(sys, "argv", ["fieldcast", *words, "--device", "cpu"])
    main()
    said = capsys.readouterr()
    rows = json.loads(said.out)
    assert {row["output"] for row in rows} == {"R1 +0", "R1 +1"} and "multiply-adds" in said.err
    with xr.open_dataset(path, engine="h5netcdf", decode_timedelta=True) as stored:
        assert stored.lag.dtype.kind == "m" and stored.attrs["surrogate"] == "average"
    assert "<html" in path.with_suffix(".html").read_text()
    assert load_kernels(river_run) is None
    with pytest.raises(SystemExit) as left:
        main()
    assert left.value.code == 2 and "--overwrite" in capsys.readouterr().err


def test_at_times_of_its_own_a_forecast_is_explained_alone(tiny_config, tmp_path):
    sampling = {"input_interval": [1, 4], "target_interval": [5, 7]}
    config = tiny_config("radar", "trajgru-attention-ode", sampling=sampling, **{"training.num_steps": 2})
    run = train(config, tmp_path / "run", device="cpu")
    place, few = Place((3, 5), (2, 4)), ExplainSettings(num_sequences=4, num_held_out=4)
    kernels = fc.explain(run, place=place, settings=few, device="cpu")
    batch, fields = sequence(run, 0)
    lags = (-batch.input_times[0].flip(0) * 300).round().numpy().astype("timedelta64[s]")
    np.testing.assert_array_equal(kernels.lag.values.astype("timedelta64[s]"), lags)
    assert np.isfinite(kernels.kernel_rain).all() and fields["rain"].shape == kernels.kernel_rain.shape[1:]
    with pytest.raises(DataError, match='take surrogate = "local"'):
        fc.explain(run, place=place, settings=few.model_copy(update={"surrogate": "average"}), device="cpu")
