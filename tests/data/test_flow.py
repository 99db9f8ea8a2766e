"""The normaliser of flow: against its equations in plain numpy, there and back, and every refusal."""

import json
import logging
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fieldcast.data.flow import FlowNormalizer, FlowNormalizerSettings, fit_flow_normalizer
from fieldcast.errors import ConfigError, DataError
from fieldcast.settings import read_settings

TRANSFORMS = ("identity", "log", "box-cox")


def fit(flow, names=None, **options):
    """Fit to flow (n, R), handed over in two pieces."""
    flow = np.asarray(flow, dtype=np.float32)[:, None]
    names = names or tuple(f"s{number}" for number in range(flow.shape[2]))
    pieces = (flow[: len(flow) // 2], flow[len(flow) // 2 :])
    return fit_flow_normalizer(FlowNormalizerSettings(**options), SimpleNamespace(names=names), pieces)


def rivers(num_days=200, seed=0):
    """A brook and a river, a thousand times apart, with gaps."""
    flow = np.random.default_rng(seed).gamma(0.7, (2.0, 2000.0), (num_days, 2)).astype(np.float32)
    flow[3:9, 0] = np.nan
    return flow


@pytest.mark.parametrize("transform", TRANSFORMS)
def test_the_equations(transform):
    flow = rivers().astype(np.float64)
    share, power = 0.02, 0.3
    found = fit(flow, flow_transform=transform, offset_share=share, box_cox_power=power)
    shifted = flow + share * np.nanmean(flow, axis=0)
    wanted = {"identity": flow, "log": np.log(shifted), "box-cox": (shifted**power - 1) / power}[transform]
    wanted = (wanted - np.nanmean(wanted, axis=0)) / np.nanstd(wanted, axis=0)
    normalised = found.normalise(torch.from_numpy(flow)[:, None])
    np.testing.assert_allclose(normalised[:, 0].numpy(), wanted, rtol=1e-6, atol=1e-6)
    assert found.name == transform


def test_one_scale_for_all_stations():
    flow = rivers().astype(np.float64)
    found = fit(flow, flow_transform="identity", flow_scale="common")
    normalised = found.normalise(torch.from_numpy(flow)[:, None])[:, 0].numpy()
    np.testing.assert_allclose(normalised, (flow - np.nanmean(flow)) / np.nanstd(flow), rtol=1e-6, atol=1e-6)
    still = fit(np.stack([flow[:, 1], np.full(len(flow), 3.0)], axis=1), flow_transform="identity", flow_scale="common")
    assert still.deviations[0] == still.deviations[1] > 100


@settings(max_examples=25, deadline=None)
@given(
    transform=st.sampled_from(TRANSFORMS),
    share=st.floats(1e-3, 1),
    power=st.floats(0.1, 1),
    seed=st.integers(0, 1000),
    flow=st.lists(st.floats(0, 1e4), min_size=2, max_size=12),
)
def test_there_and_back(transform, share, power, seed, flow):
    found = fit(rivers(seed=seed), flow_transform=transform, offset_share=share, box_cox_power=power)
    physical = torch.tensor(flow, dtype=torch.float64)[:, None, None].expand(-1, 1, 2)
    back = found.denormalise(found.normalise(physical))
    torch.testing.assert_close(back, physical, rtol=1e-6, atol=1e-6)


@settings(max_examples=25, deadline=None)
@given(transform=st.sampled_from(("log", "box-cox")), value=st.floats(-30, 30))
def test_no_forecast_below_zero_and_more_is_more(transform, value):
    found = fit(rivers(), flow_transform=transform)
    values = torch.tensor([[[value] * 2], [[value + 0.1] * 2]], dtype=torch.float64)
    flow = found.denormalise(values)
    assert (flow >= 0).all()
    assert (flow[1] >= flow[0]).all()


def test_any_leading_dimensions_missing_values_and_gradients():
    found = fit(rivers(), flow_transform="box-cox")
    flow = torch.rand(2, 3, 4, 1, 2, dtype=torch.float64) + 0.5
    flow[0, 0, 0, 0, 0] = torch.nan
    normalised = found.normalise(flow)
    assert normalised.shape == flow.shape
    assert torch.isnan(normalised).nonzero().tolist() == [[0, 0, 0, 0, 0]]
    assert torch.isnan(found.denormalise(normalised)).sum() == 1
    whole = flow[1].requires_grad_()
    assert torch.autograd.gradcheck(found.normalise, whole)
    assert torch.autograd.gradcheck(found.denormalise, found.normalise(whole).detach().requires_grad_())


def test_gradients_stay_finite_below_the_range():
    found = fit(rivers(), flow_transform="box-cox")
    values = torch.full((1, 1, 2), -1000.0, requires_grad=True)
    found.denormalise(values).sum().backward()
    assert torch.isfinite(values.grad).all()


def test_range_of_the_data():
    flow = rivers()
    wanted = np.nanmax(flow, axis=0) - np.nanmin(flow, axis=0)
    assert fit(flow).data_range().shape == (1, 2)
    np.testing.assert_allclose(fit(flow).data_range()[0], wanted, rtol=1e-6)


def test_through_json():
    found = fit(rivers(), flow_transform="log", offset_share=0.1)
    assert FlowNormalizer.from_plain(json.loads(json.dumps(found.to_plain()))) == found


def test_a_constant_and_a_dry_station_are_named(caplog):
    flow = np.column_stack([rivers()[:, 1], np.full(200, 7.0), np.zeros(200)])
    with caplog.at_level(logging.WARNING):
        found = fit(flow, names=("river", "pond", "wadi"))
    assert "constant" in caplog.text
    assert "pond, wadi" in caplog.text
    assert "river" not in caplog.text
    assert found.deviations[1:] == (1.0, 1.0)
    values = found.normalise(torch.tensor([[[1.0, 7.0, 0.0]]]))[0, 0, 1:]
    torch.testing.assert_close(values, torch.zeros(2), rtol=0, atol=1e-6)
    assert torch.isfinite(found.normalise(torch.tensor([[[1.0, 9.0, 3.0]]]))).all()


class TestRefusals:
    def test_a_station_without_a_value(self):
        flow = np.column_stack([rivers()[:, 0], np.full(200, np.nan)])
        with pytest.raises(DataError, match=r"no flow in the training split at station empty: leave"):
            fit(flow, names=("river", "empty"))

    def test_many_stations_without_a_value(self):
        with pytest.raises(DataError, match="stations s0, s1, s2, s3, s4 and 2 more"):
            fit(np.full((4, 7), np.nan))

    def test_no_training_data_at_all(self):
        with pytest.raises(DataError, match="no flow in the training split at station s0"):
            fit_flow_normalizer(FlowNormalizerSettings(), SimpleNamespace(names=("s0",)), ())

    @pytest.mark.parametrize("transform", ["log", "box-cox"])
    def test_flow_below_zero(self, transform):
        flow = rivers()
        flow[20, 1] = -0.5
        with pytest.raises(
            DataError, match=rf"'s1' has flow below zero \(-0.5\), which the transform '{transform}'.*id"
        ):
            fit(flow, flow_transform=transform)
        assert fit(flow, flow_transform="identity").lows[1] == -0.5

    @pytest.mark.parametrize(
        ("values", "message"),
        [
            ({"flow_transform": "sqrt"}, "'identity', 'log' or 'box-cox'"),
            ({"offset_share": 0.0}, "greater than 0"),
            ({"box_cox_power": 1.5}, "less than or equal to 1"),
            ({"power": 0.5}, "unknown key"),
        ],
    )
    def test_bad_settings(self, values, message):
        with pytest.raises(ConfigError, match=message):
            read_settings(FlowNormalizerSettings, values, "source")
