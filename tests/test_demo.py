"""The demonstration, with a tiny network and few steps, leaves everything it promises."""

import importlib
import re

import numpy as np
import pytest
import xarray as xr

from fieldcast.config import read_config
from fieldcast.data.samples import radar_sample_path
from fieldcast.evaluation import load_scores

pytestmark = pytest.mark.whole

# The package has a function of the same name.
demo = importlib.import_module("fieldcast.demo")


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    values = demo.demo_settings()
    values["model"] |= {"widths": [4, 4, 4], "head_width": 4}
    values["windows"] |= {"crop": 32, "stride": "2 h"}
    values["training"] |= {"num_steps": 4, "batch_size": 2, "validation": {"every": 4, "num_samples": 1}}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(demo, "demo_settings", lambda: values)
        return demo.demo(tmp_path_factory.mktemp("demo") / "run", "cpu")


def test_its_settings_are_valid_and_its_splits_apart():
    config = read_config(demo.demo_settings())
    assert config.training.max_minutes <= 4
    assert config.splits.train[1] <= config.splits.validation[0]
    assert config.splits.validation[1] <= config.splits.test[0]
    with xr.open_dataset(radar_sample_path(), engine="h5netcdf") as sample:
        assert sample.sizes["time"] > 500
        assert "Deutscher Wetterdienst" in str(sample.attrs)
    assert radar_sample_path().stat().st_size < 3e6


def test_scores(run):
    scores = load_scores(run)
    assert scores.attrs["split"] == "test"
    assert list(scores.model.values) == ["convgru", "persistence", "climatology", "optical-flow"]
    assert scores.attrs["block_length"] == "90 min"
    assert (scores.lead_time.values / np.timedelta64(5, "m") == np.arange(1, 13)).all()
    assert np.isfinite(scores.mse).all()


def test_forecast(run):
    with xr.open_dataset(run.folder / "forecast.nc", engine="h5netcdf", decode_timedelta=True) as forecast:
        assert (forecast.lead_time.values / np.timedelta64(1, "m") == demo.MINUTES).all()
        assert forecast.init_time.values[0] == np.datetime64("2018-05-20T01:00")
        assert forecast.rainfall_amount.attrs["units"] == "mm/h"
        assert forecast.rainfall_amount.attrs["standard_name"] == "rainfall_rate"
        assert np.isfinite(forecast.rainfall_amount).all()


def test_report(run):
    page = (run.folder / "report.html").read_text()
    # A path or address would need the network, or the folder it was made in.
    assert not re.findall(r"""(?:src|href)\s*=\s*["']?(?:https?:)?//""", page)
    assert not re.findall(r"""\bsrc\s*=\s*["'](?!data:)""", page)
    assert "persistence" in page
    assert "mm/h" in page
    assert len(list(run.folder.rglob("*.png"))) >= 3


def test_a_second_demo_is_refused_before_it_starts(run):
    with pytest.raises(ValueError, match="holds a run already"):
        demo.demo(run.folder, "cpu")
