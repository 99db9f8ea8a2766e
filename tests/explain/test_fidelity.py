import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from surrogate_fixtures import linear_network, random_sequences, smooth_network

from fieldcast.explain.averaging import AveragingSettings
from fieldcast.explain.fidelity import (
    Record,
    SurrogateSettings,
    compare_surrogates,
    failed,
    fidelity_table,
    fit_surrogates,
    network_outputs,
)
from fieldcast.explain.network import Network
from fieldcast.explain.optimal_reference import SearchSettings
from fieldcast.explain.outputs import station_outputs
from fieldcast.models.runoff_convlstm import RunoffConvLSTM, RunoffConvLSTMSettings

DAYS = np.datetime64("2001-01-01") + np.arange(730)
MONTHS = {"DJF": (12, 1, 2), "MAM": (3, 4, 5), "JJA": (6, 7, 8), "SON": (9, 10, 11)}


def plain_scores(predicted, truth, chosen):
    """nse and r2 as their definitions stand."""
    chosen = chosen & ~np.isnan(truth)
    p, o = predicted[chosen], truth[chosen]
    variance = ((o - o.mean()) ** 2).sum()
    return 1 - ((p - o) ** 2).sum() / variance, 1 - ((p - o - (p - o).mean()) ** 2).sum() / variance


def example(seed=0, level=1000.0):
    random = np.random.default_rng(seed)
    truth = level + random.gamma(2, 30, (730, 2))
    predicted = truth + random.normal(10, 20, (730, 2))
    observed = truth + random.normal(0, 5, (730, 2))
    observed[random.random((730, 2)) < 0.3] = np.nan
    tensors = {"network": torch.from_numpy(truth), "observed": torch.from_numpy(observed)}
    return (
        fidelity_table({"average": torch.from_numpy(predicted)}, tensors, DAYS, ["a", "b"]),
        predicted,
        truth,
        observed,
    )


def test_scores_are_those_of_the_definitions():
    table, predicted, network, observed = example()
    months = DAYS.astype("datetime64[M]").astype(int) % 12 + 1
    for against, truth in (("network", network), ("observed", observed)):
        for place, output in enumerate("ab"):
            chosen = table.sel(surrogate="average", against=against, output=output)
            series = predicted[:, place], truth[:, place]
            everywhere = np.ones(730, bool)
            np.testing.assert_allclose([chosen["nse"], chosen["r2"]], plain_scores(*series, everywhere), rtol=1e-9)
            assert chosen["num_values"] == (~np.isnan(series[1])).sum()
            for season, members in MONTHS.items():
                own = chosen.sel(season=season)
                mask = np.isin(months, members)
                expected = plain_scores(*series, mask)
                np.testing.assert_allclose([own["nse_by_season"], own["r2_by_season"]], expected, rtol=1e-9)
                assert own["num_values_by_season"] == (mask & ~np.isnan(series[1])).sum()
            low, high = np.nanquantile(series[1], [1 / 3, 2 / 3])
            bounds = {"low": (-np.inf, low), "middle": (low, high), "high": (high, np.inf)}
            for flow, (bottom, top) in bounds.items():
                own = chosen.sel(flow=flow)
                expected = plain_scores(*series, (series[1] > bottom) & (series[1] <= top))
                np.testing.assert_allclose([own["nse_by_flow"], own["r2_by_flow"]], expected, rtol=1e-9)
            assert chosen["num_values_by_flow"].sum() == chosen["num_values"]


@settings(max_examples=25, deadline=None)
@given(st.floats(-1e4, 1e4), st.floats(0.1, 3), st.integers(0, 99))
def test_an_offset_changes_nse_alone_and_a_factor_both(offset, factor, seed):
    truth = torch.from_numpy(np.random.default_rng(seed).normal(size=(50, 1)))
    predicted = {"own": factor * truth, "moved": factor * truth + offset}
    table = fidelity_table(predicted, {"network": truth}, DAYS[:50], ["a"])
    own, moved = (table.sel(surrogate=name, against="network").isel(output=0) for name in predicted)
    assert own["r2"] == pytest.approx(float(moved["r2"]), abs=1e-6)
    exact = 1 - (factor - 1) ** 2
    assert float(own["r2"]) == pytest.approx(exact, abs=1e-9)
    assert moved["nse"] <= moved["r2"] + 1e-9


def test_what_is_not_defined_is_nan_and_has_failed():
    truth = torch.randn(20, 3, generator=torch.Generator().manual_seed(0))
    truth[:, 1] = 4.0
    truth[:, 2] = torch.nan
    table = fidelity_table({"average": truth + 0.1}, {"network": truth}, DAYS[:20], ["a", "constant", "missing"])
    assert np.isfinite(table["nse"]).values.ravel().tolist() == [True, False, False]
    assert failed(table, "average").values.tolist() == [False, True, True]
    assert np.isnan(table["nse_by_season"].sel(season="JJA")).all()
    assert table["num_values"].values.tolist() == [[20, 20, 0]]


def test_a_kernel_of_the_wrong_size_has_failed():
    truth = torch.randn(200, 1, generator=torch.Generator().manual_seed(0))
    table = fidelity_table({"double": 2 * truth, "half": 0.5 * truth}, {"network": truth}, DAYS[:200], ["a"])
    assert failed(table, "double").item()
    assert not failed(table, "half").item()
    assert failed(table, "half", threshold=0.8).item()


QUICK = SurrogateSettings(
    averaging=AveragingSettings(num_blocks=8, num_sequences=80),
    search=SearchSettings(num_candidates=10, max_iterations=20),
)


def records(network, number=120):
    """Training and held-out sequences; what was observed is the network with noise and gaps."""
    parts = []
    for seed in (1, 2):
        inputs = random_sequences(number, seed)
        observed = network_outputs(network, inputs)
        observed += 0.3 * torch.randn(observed.shape, generator=torch.Generator().manual_seed(seed))
        observed[::6] = torch.nan
        parts.append(Record(inputs, DAYS[:number], observed))
    return parts


def test_every_surrogate_of_a_linear_network_is_the_network():
    network = linear_network()
    train, held_out = records(network, 160)
    surrogates = fit_surrogates(network, train, QUICK)
    table = compare_surrogates(network, surrogates.kernels, held_out, train)
    exact = ["reference", "average", "best sequence", "optimal"]
    np.testing.assert_allclose(table["nse"].sel(against="network", surrogate=exact), 1, rtol=1e-10)
    assert (table["nse"].sel(against="network", surrogate="least squares") > 0.99).all()
    own = table["nse"].sel(against="observed", surrogate="network")
    np.testing.assert_allclose(table["nse"].sel(against="observed", surrogate="average"), own, rtol=1e-9)
    assert (surrogates.bound.loss < 1e-12).all()


def test_surrogates_are_judged_on_sequences_they_have_not_seen():
    network = smooth_network(strength=4.0)
    train, held_out = records(network, 150)
    surrogates = fit_surrogates(network, train, QUICK)
    names = ["reference", "average", "best sequence", "optimal", "least squares"]
    assert list(surrogates.kernels) == names
    table = compare_surrogates(network, surrogates.kernels, held_out, train)
    shifted = [f"{name}, offset fitted" for name in names]
    assert table["surrogate"].values.tolist() == [*names, *shifted, "network"]
    truth = network_outputs(network, held_out.inputs)
    kernels = surrogates.kernels["average"]
    plain = kernels.offset + held_out.inputs.flatten(1) @ kernels.weights.flatten(1).T
    for place in range(3):
        expected = plain_scores(plain[:, place].numpy(), truth[:, place].numpy(), np.ones(150, bool))
        own = table.sel(surrogate="average", against="network").isel(output=place)
        np.testing.assert_allclose([own["nse"], own["r2"]], expected, rtol=1e-8)
    # On what they were made of, none is below the bound, and the search has not lost what it started from.
    again = compare_surrogates(network, surrogates.kernels, train)
    assert again["surrogate"].values.tolist() == [*names, "network"]
    nse = again["nse"].sel(against="network", surrogate=names)
    assert (nse <= 1 - surrogates.bound.loss.numpy() + 1e-12).all()
    assert (nse.sel(surrogate="optimal") >= nse.sel(surrogate="best sequence") - 1e-12).all()
    np.testing.assert_allclose(nse.sel(surrogate="optimal"), 1 - surrogates.optimal.loss, rtol=1e-9)


def river_model(seed=3):
    """A small ConvLSTM whose gates are far from linear, and sequences of a few patterns for it."""
    torch.manual_seed(seed)
    settings = RunoffConvLSTMSettings(map_size=(5, 6), num_stations=2, hidden_width=3, kernel=3, head_widths=(12, 6))
    model = RunoffConvLSTM(settings, 2).double()
    for parameter in model.cell.parameters():
        parameter.data *= 3
    outputs = station_outputs(["a", "b"], [0, 1], 2)
    network = Network(model, torch.arange(-3.0, 1.0)[None], torch.zeros(1, 1), outputs)
    patterns = random_sequences(16, 5, (4, 2, 5, 6)).flatten(1) / 4
    return network, (random_sequences(200, 6, (16,)) @ patterns).view(2, 100, 4, 2, 5, 6)


def test_the_surrogates_of_a_river_model_are_ordered():
    network, (inputs, others) = river_model()
    chosen = SurrogateSettings(search=SearchSettings(num_candidates=15, max_iterations=15))
    surrogates = fit_surrogates(network, Record(inputs, DAYS[:100]), chosen)
    assert surrogates.bound.informative.all()
    table = compare_surrogates(network, surrogates.kernels, Record(inputs, DAYS[:100]))
    lost = 1 - table["nse"].sel(against="network")
    reference, average, best, optimal, regression = (lost.sel(surrogate=name).values for name in surrogates.kernels)
    bound = surrogates.bound.loss.numpy()
    assert (bound > 0.05).all()  # no linear function is this network
    for worse, better in ((reference, best), (best, optimal), (best, average)):
        assert (worse > better).all()
    for surrogate in (average, optimal, regression):
        assert (surrogate > bound - 1e-12).all()
    held_out = compare_surrogates(network, surrogates.kernels, Record(others, DAYS[:100]))["nse"].sel(against="network")
    assert (held_out.sel(surrogate="average") > held_out.sel(surrogate="best sequence")).all()


def test_a_network_is_judged_where_nothing_was_observed():
    network = smooth_network()
    train, held_out = (record._replace(observed=None) for record in records(network, 90))
    table = compare_surrogates(network, fit_surrogates(network, train, QUICK).kernels, held_out)
    assert table["against"].values.tolist() == ["network"]
    assert "network" not in table["surrogate"]
