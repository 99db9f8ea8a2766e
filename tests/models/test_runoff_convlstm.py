"""``runoff-convlstm`` against a plain reading of the note, its head's derivative against autograd, its counts."""

import numpy as np
import pytest
import torch
from oracles import runoff_convlstm as oracle

from fieldcast.errors import ConfigError, DataError
from fieldcast.models import build, count_parameters, num_parameters

SIZE = (4, 5)
LEADS = (0, 2)
KINDS = [("dense", "channel"), ("dense", "pixel"), ("catchment", "channel")]
every_kind = pytest.mark.parametrize(("head", "bias"), KINDS)
every_head = pytest.mark.parametrize("head", ["dense", "catchment"])


def make(head="dense", bias="channel", *, dtype=torch.float64, catchments=True, **settings):
    """A small model with weights of any sign, for three stations."""
    torch.manual_seed(3)
    small = {"map_size": SIZE, "num_stations": 3, "hidden_width": 2, "kernel": 3, "head_widths": [6, 4]}
    model = build("runoff-convlstm", num_channels=2, head=head, bias=bias, **{**small, "leads": LEADS, **settings})
    model = model.to(dtype)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(0.5 * torch.randn_like(parameter))
    if head == "catchment" and catchments:
        model.use_catchments(masks())
    return model


def open_units(model):
    """The model with no unit of its head shut for all samples."""
    with torch.no_grad():
        for parameter in model.head.parameters():
            parameter.abs_()
        for name, parameter in model.cell.named_parameters():
            parameter.mul_("bias" not in name)
    return model


def masks():
    """Shares of pixels in [0, 1], some of them 0."""
    return np.random.default_rng(5).random((3, *SIZE)).round(1) * (np.random.default_rng(6).random((3, *SIZE)) > 0.5)


def draw(batch=2, num_inputs=3, dtype=torch.float64):
    return torch.randn(batch, num_inputs, 2, *SIZE, generator=torch.Generator().manual_seed(4)).to(dtype)


def forecast(model, inputs, target_times=LEADS):
    input_times = torch.arange(1.0 - inputs.shape[1], 1).expand(len(inputs), -1)
    return model(inputs, input_times, torch.tensor(target_times, dtype=torch.float32).expand(len(inputs), -1))


def arrays(module):
    return {name: value.detach().numpy() for name, value in module.state_dict().items()}


@every_kind
def test_it_is_the_note_index_by_index(head, bias):
    model, inputs = make(head, bias), draw()
    with torch.no_grad():
        hidden, flow = model.read(inputs), forecast(model, inputs)
    assert flow.shape == (2, 2, 1, 3)
    for sample in range(2):
        expected = oracle.last_hidden(arrays(model.cell), inputs[sample].numpy(), 2)
        np.testing.assert_allclose(hidden[sample].numpy(), expected, rtol=0, atol=1e-12)
        weights = arrays(model.head)
        by_hand = oracle.dense(weights, expected) if head == "dense" else oracle.catchment(weights, masks(), expected)
        np.testing.assert_allclose(flow[sample, :, 0].numpy(), by_hand.reshape(2, 3), rtol=0, atol=1e-12)


@every_head
def test_the_jacobian_of_the_head_is_autograds(head):
    model = make(head)
    hidden = torch.randn(1, 2, *SIZE, dtype=torch.float64)
    expected = torch.autograd.functional.jacobian(lambda maps: model.head(maps).flatten(), hidden)[:, 0]
    result = model.head.jacobian(hidden)
    assert result.shape == (6, 2, *SIZE)
    assert expected.abs().amax() > 0.01
    torch.testing.assert_close(result, expected, rtol=0, atol=1e-13)


@every_head
def test_a_head_is_linear_where_no_unit_changes_its_side(head):
    """With the head's jacobian Omega at H, a small step d changes the flow by Omega d to rounding."""
    model = make(head)
    hidden, step = torch.randn(2, 1, 2, *SIZE, dtype=torch.float64)
    change = model.head(hidden + 1e-6 * step) - model.head(hidden)
    by_jacobian = torch.einsum("qdhw,dhw->q", model.head.jacobian(hidden), 1e-6 * step[0])
    torch.testing.assert_close(change.flatten(), by_jacobian, rtol=0, atol=1e-13)


@every_kind
def test_every_weight_receives_a_gradient(head, bias):
    model, inputs = open_units(make(head, bias)), draw(batch=8)
    forecast(model, inputs).square().sum().backward()
    for name, parameter in model.named_parameters():
        assert (parameter.grad != 0).all(), f"{name} holds dead weights"


@every_kind
def test_samples_do_not_mix(head, bias):
    model, inputs = make(head, bias), draw(batch=3)
    together = forecast(model, inputs)
    for sample in range(3):
        alone = forecast(model, inputs[sample : sample + 1])[0]
        torch.testing.assert_close(together[sample], alone, rtol=0, atol=1e-12)


def test_each_sample_gets_the_leads_it_asks_for():
    model, inputs = make(leads=[0, 1, 4]), draw()
    every = forecast(model, inputs, (0, 1, 4))
    target_times = torch.tensor([[1.0, 4.0], [0.0, 1.0]])
    own = model(inputs, torch.arange(-2.0, 1).expand(2, -1), target_times)
    assert torch.equal(own, torch.stack([every[0, [1, 2]], every[1, [0, 1]]]))


def test_a_river_hears_its_own_catchment_alone():
    model = open_units(make("catchment"))
    shares = np.zeros((3, *SIZE))
    shares[0, 0, 0] = shares[1, 3, 4] = shares[2, 1, 2] = 0.3
    model.use_catchments(shares)
    hidden = torch.rand(1, 2, *SIZE, dtype=torch.float64)
    jacobian = model.head.jacobian(hidden).unflatten(0, (2, 3)).abs().sum(dim=(0, 2))
    assert torch.equal(jacobian > 0, torch.from_numpy(shares > 0))


def test_the_size_of_a_catchment_changes_nothing():
    model, inputs = make("catchment"), draw()
    before = forecast(model, inputs)
    model.use_catchments(torch.from_numpy(40 * masks()))
    torch.testing.assert_close(forecast(model, inputs), before, rtol=0, atol=1e-12)


@every_head
def test_weights_and_catchments_round_trip(head):
    model, other, inputs = make(head), make(head, catchments=False), draw()
    with torch.no_grad():
        for parameter in other.parameters():
            parameter.zero_()
    other.load_state_dict(model.state_dict())
    assert torch.equal(forecast(model, inputs), forecast(other, inputs))


class TestCounts:
    def test_the_projects(self):
        with torch.device("meta"):
            model = build("runoff-convlstm", "boergel2025", num_channels=4)
        assert count_parameters(model.cell) == 22_968
        assert count_parameters(model.head) == 27_777_121
        assert model.head.first.in_features == 9 * 74 * 81

    def test_a_bias_per_pixel(self):
        """Equation 12: 4 N_h N_x N_y instead of 4 N_h."""
        counts = [num_parameters_of(bias=bias) for bias in ("channel", "pixel")]
        assert counts[1] - counts[0] == 4 * 9 * (74 * 81 - 1)

    def test_the_catchment_head_needs_far_fewer(self):
        with torch.device("meta"):
            model = build("runoff-convlstm", "boergel2025", num_channels=4, head="catchment")
        shared = (9 * 64 + 64) + (64 * 32 + 32)
        assert count_parameters(model.head) == shared + 97 * (32 + 1) == 5_921

    def test_the_whole(self):
        assert num_parameters("runoff-convlstm", "boergel2025", 4) == 22_968 + 27_777_121


def num_parameters_of(**settings):
    with torch.device("meta"):
        return count_parameters(build("runoff-convlstm", "boergel2025", num_channels=4, **settings))


class TestRefusals:
    @pytest.mark.parametrize("missing", ["map_size", "num_stations"])
    def test_a_size_that_is_not_known(self, missing):
        sizes = {"map_size": [4, 5], "num_stations": 3}
        with pytest.raises(ConfigError, match=r"a run takes them from its source.*such as map_size"):
            build("runoff-convlstm", **{**sizes, missing: None})

    @pytest.mark.parametrize(("settings", "words"), [
        ({"leads": [1, 0]}, r"leads = \[1, 0\]: lead times ascend"),
        ({"leads": [1, 1]}, "lead times ascend"),
        ({"leads": []}, r"'model\.leads'"),
        ({"leads": [-1]}, r"'model\.leads\.0' = -1"),
        ({"map_size": [4]}, r"'model\.map_size'"),
        ({"head_widths": [4, 5, 6]}, r"'model\.head_widths'"),
        ({"head": "conv"}, "'dense' or 'catchment'"),
        ({"kernel": 4}, "4 is even"),
        ({"bias": True}, "'channel' or 'pixel'"),
    ])  # fmt: skip
    def test_settings(self, settings, words):
        with pytest.raises(ConfigError, match=words):
            build("runoff-convlstm", **{"map_size": [4, 5], "num_stations": 3, **settings})

    def test_another_map(self):
        with pytest.raises(DataError, match="a map of 4 x 5 pixels, the inputs are 6 x 5"):
            forecast(make(), torch.zeros(1, 3, 2, 6, 5, dtype=torch.float64))

    def test_a_lead_time_that_it_does_not_give(self):
        with pytest.raises(DataError, match=r"gives the lead times \[0, 2\].*targets are at \[1, 3\]"):
            forecast(make(), draw(), (0, 1, 3))

    def test_catchments_that_nobody_gave(self):
        model, inputs = make("catchment", catchments=False), draw()
        for use in (lambda: forecast(model, inputs), lambda: model.head.jacobian(model.read(inputs[:1]))):
            with pytest.raises(ConfigError, match=r"needs the catchments of the stations.*use_catchments"):
                use()

    @pytest.mark.parametrize(("change", "words"), [
        (lambda shares: shares[:2], "here 3 x 4 x 5, but 2 x 4 x 5 came"),
        (lambda shares: -shares, "a number from 0 on"),
        (lambda shares: shares * np.where(shares == shares.max(), np.nan, 1), "a number from 0 on"),
        (lambda shares: shares * np.array([1, 0, 0])[:, None, None], r"stations number \[1, 2\] \(from 0\)"),
    ])  # fmt: skip
    def test_catchments_that_are_none(self, change, words):
        with pytest.raises(DataError, match=words):
            make("catchment", catchments=False).use_catchments(change(masks()))

    def test_catchments_for_the_dense_head(self):
        with pytest.raises(ConfigError, match="the dense head reads the whole map"):
            make("dense").use_catchments(masks())
