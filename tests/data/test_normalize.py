"""Normalisers: there and back, fitted to the training split alone, and what they refuse."""

import numpy as np
import pytest
import torch
from conftest import radar_dataset
from hypothesis import given
from hypothesis import strategies as st

from fieldcast.data.dataset import make_samples
from fieldcast.data.netcdf import NetCDFConfig, open_frames
from fieldcast.data.normalize import Normalizer, NormalizerSettings, fit_normalizer
from fieldcast.data.source import Variable
from fieldcast.data.splits import SplitSettings
from fieldcast.data.windows import WindowSettings
from fieldcast.errors import ConfigError, DataError
from fieldcast.settings import read_settings

RATE = Variable("rain", "mm/h")


def fit(values, name="scale", variable=RATE):
    frames = np.asarray(values, np.float32).reshape(1, 1, 1, -1)
    return fit_normalizer(NormalizerSettings(transform=name), (variable,), [frames]).transforms[0]


def test_published_reflectivities():
    transform = fit([0, 0.1, 1, 10, 100], "dbz")
    rates = torch.tensor([0.1, 1, 10, 100], dtype=torch.float64)
    expected = torch.tensor([7.0103, 23.0103, 39.0103, 55.0103], dtype=torch.float64)
    assert torch.allclose(transform._transform(rates), expected, atol=1e-4)
    assert (transform.low, transform.high) == pytest.approx((7.0103, 55.0103), abs=1e-4)
    assert torch.allclose(transform.forward(rates), (expected - 7.0103) / 48, atol=1e-5)
    assert float(transform.inverse(torch.tensor(1.0))) == pytest.approx(100, rel=1e-5)


rates = st.lists(st.floats(0, 200, width=32), min_size=2, max_size=20).map(lambda values: [*values, 0.0, 150.0])


@given(rates)
@pytest.mark.parametrize("name", ["identity", "scale", "log-rate"])
def test_round_trip(name, values):
    transform = fit(values, name)
    physical = torch.tensor(values, dtype=torch.float32)
    assert torch.allclose(transform.inverse(transform.forward(physical)), physical, rtol=1e-4, atol=1e-4)


@given(rates, st.floats(50, 500), st.floats(1.2, 2))
def test_round_trip_of_reflectivity(values, a, b):
    settings = NormalizerSettings(transform="dbz", reflectivity=(a, b))
    frames = np.asarray(values, np.float32).reshape(1, 1, 1, -1)
    transform = fit_normalizer(settings, (RATE,), [frames]).transforms[0]
    physical = torch.tensor(values, dtype=torch.float32)
    back = transform.inverse(transform.forward(physical))
    assert torch.allclose(back[physical > 0.101], physical[physical > 0.101], rtol=1e-4)
    assert (back[physical <= 0.1] == 0).all()


@given(st.lists(st.floats(-1000, 1000, width=32), min_size=2, max_size=20).filter(lambda values: np.ptp(values) > 1e-2))
def test_scale_reaches_from_0_to_1(values):
    normalised = fit(values).forward(torch.tensor(values, dtype=torch.float32))
    assert float(normalised.min()) == pytest.approx(0, abs=1e-5)
    assert float(normalised.max()) == pytest.approx(1, abs=1e-5)


@pytest.mark.parametrize("name", ["identity", "scale", "log-rate", "dbz"])
def test_nan_stays_and_counts_for_nothing(name):
    with np.errstate(all="raise"):
        transform = fit([0, np.nan, 5, np.nan], name)
    assert transform == fit([0, 5], name)
    assert torch.isnan(transform.forward(torch.tensor([np.nan]))).all()


@pytest.mark.parametrize("name", ["log-rate", "dbz"])
def test_forecasts_below_zero_are_no_rain(name):
    assert fit([0, 5], name).inverse(torch.tensor([-0.5, 0.0])).tolist() == [0, 0]


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("name", ["scale", "log-rate", "dbz"])
def test_all_missing(name):
    with pytest.raises(DataError, match="variable 'rain' is missing everywhere in the training split"):
        fit([np.nan] * 3, name)


@pytest.mark.parametrize(
    ("values", "name", "message"),
    [
        (
            [3, 3, np.nan],
            "scale",
            r"variable 'rain' is constant \(3 mm/h\) in the training split: it can't",
        ),
        ([0, 0], "log-rate", r"constant \(0 mm/h\)"),
        ([0, 0], "dbz", r"constant \(0 mm/h\)"),
        ([0, 0.05], "dbz", r"reaches from 0 to 0\.05 mm/h .* dbz can't tell apart"),
        ([-0.5, 3], "log-rate", r"has values below zero \(-0\.5\), which log-rate can't take: use scale"),
        ([-999, 3], "log-rate", r"has values below zero \(-999\)"),
        ([-999, 3], "dbz", r"has values below zero \(-999\)"),
    ],
)
def test_refused(values, name, message):
    with pytest.raises(DataError, match=message):
        fit(values, name)


def test_reflectivity_wants_a_rate():
    with pytest.raises(DataError, match=r'dbz takes a rain rate in mm/h, \'rain\' is in \'mm\': set units = "mm/h"'):
        fit([0, 5], "dbz", Variable("rain", "mm"))


def test_one_transform_for_each_variable():
    frames = np.stack([np.arange(4.0), np.arange(4.0) * 100]).astype(np.float32).reshape(1, 2, 1, 4)
    settings = NormalizerSettings(transform=("log-rate", "scale"))
    normalizer = fit_normalizer(settings, (RATE, Variable("t", "K")), [frames])
    normalised = normalizer.normalise(torch.from_numpy(frames))
    assert normalised.amax((0, 2, 3)).tolist() == pytest.approx([1, 1])
    assert torch.allclose(normalizer.denormalise(normalised), torch.from_numpy(frames), rtol=1e-5, atol=1e-5)
    assert normalizer.data_range().flatten().tolist() == pytest.approx([3, 300])
    assert Normalizer.from_plain(normalizer.to_plain()) == normalizer
    with pytest.raises(DataError, match=r"source\.transform has 2 names for 1 variables"):
        fit_normalizer(settings, (RATE,), [frames[:, :1]])


def test_unknown_transform():
    with pytest.raises(ConfigError, match=r"'source\.transform' = 'log': .*'log-rate'"):
        read_settings(NormalizerSettings, {"transform": "log"}, "source")


def fitted(dataset, **windows):
    source = open_frames(dataset, NetCDFConfig(paths="unused", variables=("rain",)))
    splits = SplitSettings(train=0.5, validation=0.25, test=0.25)
    settings = WindowSettings(num_inputs=2, num_targets=2, **windows)
    return make_samples(source, settings, splits, NormalizerSettings())["train"].normalizer


def test_only_training_is_seen():
    dataset, other = radar_dataset(60), radar_dataset(60)
    other["rain"][30:] = 1000.0
    assert fitted(dataset) == fitted(other)
    other["rain"][29, 0, 0] = 1000.0
    assert fitted(other).transforms[0].high == 1000


def test_only_frames_of_samples_are_seen():
    dataset = radar_dataset(60)
    dataset["rain"][5] = 1000.0
    assert fitted(dataset).transforms[0].high == 1000
    assert fitted(dataset, stride="30 min").transforms[0].high < 1000
