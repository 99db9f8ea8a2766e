"""Scores restated as other places print them."""

import numpy as np
import pytest
import torch

from fieldcast.metrics import METRICS, Yardstick
from fieldcast.metrics.conventions import CONVENTIONS, restate


def test_conventions_restate_scores():
    assert restate("mse", 0.0039621, "thesis", 4096) == (pytest.approx(39.621), "MSE x 10^4 (mean over pixels, [0, 1])")
    assert restate("ssim", 0.96059, "thesis", 4096)[0] == pytest.approx(96.059)
    value, label = restate("mae", 0.01, "openstl", 4096)
    assert value == pytest.approx(40.96)
    assert label == "MAE (sum over pixels per frame, [0, 1])"
    for name, metric in METRICS.items():
        value, label = restate(name, 1.5, "fieldcast", 4096)
        assert value == 1.5
        assert metric.convention in label


def test_openstl_sums_are_those_of_its_own_formula():
    predicted, observed = torch.rand(2, 3, 2, 2, 16, 18, generator=torch.Generator().manual_seed(0))
    expected = np.mean((predicted.double().numpy() - observed.double().numpy()) ** 2, axis=(0, 1)).sum()
    yardstick = Yardstick(units="1", data_range=1.0, shape=(16, 18))
    valid = torch.ones_like(predicted, dtype=torch.bool)
    sums = METRICS["mse"].sums(predicted, observed, valid, yardstick).sum(1)
    value, _ = restate("mse", METRICS["mse"].score(sums, yardstick).item(), "openstl", predicted[0, 0].numel())
    assert value == pytest.approx(expected, rel=1e-12)


def test_unknown_conventions_and_metrics_are_refused():
    assert all(set(restatements) <= set(METRICS) for restatements in CONVENTIONS.values())
    with pytest.raises(ValueError, match="unknown convention 'tesis': did you mean 'thesis'"):
        restate("mse", 1.0, "tesis", 1)
    with pytest.raises(ValueError, match="unknown metric of the convention 'openstl' 'psnr'"):
        restate("psnr", 1.0, "openstl", 1)
