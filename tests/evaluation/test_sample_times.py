"""When targets are, which rows of a table they count for, and which baselines can forecast them."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fieldcast.errors import DataError
from fieldcast.evaluation import leave_out
from fieldcast.evaluation.sample_times import SAMPLES_AT_ONCE, lie_between, read_sample_times, round_to
from fieldcast.evaluation.scoring import alike
from fieldcast.models import build

MINUTE = 60 * 10**9
CADENCE = 5 * MINUTE


class TimedSamples:
    """Times alone: (N, T + S) in cadences after the last of two inputs."""

    def __init__(self, times, num_inputs=2):
        self.elapsed = np.round(np.array(times, dtype=float) * CADENCE).astype(np.int64)
        num_targets = self.elapsed.shape[1] - num_inputs
        self.windows = SimpleNamespace(num_inputs=num_inputs, num_targets=num_targets, first_lead=1)
        self.source = SimpleNamespace(cadence=CADENCE)

    def __len__(self):
        return len(self.elapsed)

    def times(self, number):
        return 10**18 + number * MINUTE + self.elapsed[number]


def read(times, **options):
    samples = TimedSamples(times, **options)
    return samples, read_sample_times(samples, range(len(samples)))


class TestSampleTimes:
    def test_times_that_all_share_are_lead_times_as_they_are(self):
        samples, times = read([[-1.3, 0, 0.4, 1.7], [-1, 0, 0.4001, 1.7]])
        assert (times.lead_times / CADENCE).tolist() == pytest.approx([0.4, 1.7])
        assert times.shared and not times.rounded and times.rows(samples, [1]) is None
        assert not times.regular_inputs and not times.regular_targets and not times.any_between

    def test_whole_cadences_are_not_rounded(self):
        samples, times = read([[-1, 0, 1, 3], [-1, 0, 2, 3]])
        assert (times.lead_times / CADENCE).tolist() == [1, 2, 3]
        assert not times.shared and not times.rounded and times.regular_inputs and times.regular_targets
        assert times.rows(samples, [1, 0]).tolist() == [[1, 2], [0, 2]]

    def test_others_count_for_the_nearest_whole_cadence(self):
        samples, times = read([[-1, 0, -0.6, -0.5, -0.4], [-1, 0, 2.4, 2.5, 6.0]])
        assert (times.lead_times / CADENCE).tolist() == [-1, 0, 2, 3, 6]
        assert times.rounded and times.any_between and not times.regular_targets
        assert times.rows(samples, [0, 1]).tolist() == [[0, 1, 1], [2, 3, 4]]
        assert times.seconds == [-300.0, 0.0, 600.0, 900.0, 1800.0]

    def test_more_samples_than_are_looked_at_together(self):
        rows = [[-1, 0, 1]] * SAMPLES_AT_ONCE + [[-2, 0, 7]]
        _, times = read(rows)
        assert (times.lead_times / CADENCE).tolist() == [1, 7]
        assert not times.regular_inputs

    @settings(max_examples=25, deadline=None)
    @given(st.lists(st.integers(-(10**15), 10**15), min_size=1), st.integers(1, 10**13))
    def test_no_whole_cadence_is_nearer(self, times, cadence):
        nearest = round_to(np.array(times), cadence)
        assert (nearest % cadence == 0).all()
        assert (2 * np.abs(np.array(times) - nearest) <= cadence).all()

    @settings(max_examples=25, deadline=None)
    @given(st.lists(st.lists(st.integers(0, 2), min_size=2, max_size=2), min_size=1, max_size=8))
    def test_samples_with_the_same_rows_are_one_group(self, rows):
        groups = alike(np.array(rows))
        found = {int(member): own.tolist() for members, own in groups for member in members}
        assert [found[number] for number in range(len(rows))] == rows
        assert len(groups) == len({tuple(row) for row in rows})

    def test_samples_between_their_inputs(self):
        assert lie_between(TimedSamples([[-4, 0, -3, -1]]))
        assert not lie_between(TimedSamples([[-4, 0, -3, 1]]))


class TestBaselines:
    @pytest.fixture
    def models(self):
        return {name: build(name) for name in ("persistence", "linear-interpolation", "lagrangian-persistence")}

    def test_all_take_regular_times(self, models):
        assert leave_out(models, read([[-1, 0, 1, 2]])[1]) == (models, [])

    def test_those_that_do_not_interpolate_are_left_out_with_the_reason(self, models):
        able, absent = leave_out(models, read([[-2, 0, -1]])[1])
        assert list(able) == ["persistence", "linear-interpolation"]
        assert absent == ["lagrangian-persistence does not interpolate"]

    @pytest.mark.parametrize(
        ("flag", "times", "reason"),
        [
            ("irregular_inputs", [[-1.5, 0, 1]], "takes inputs one cadence apart only"),
            ("irregular_targets", [[-1, 0, 1.5]], "forecasts at whole cadences only"),
            ("irregular_targets", [[-1, 0, 0]], "forecasts at whole cadences only"),
        ],
    )
    def test_a_flag_that_is_not_set_leaves_out(self, flag, times, reason):
        model = build("persistence")
        setattr(model, flag, False)
        assert leave_out({"it": model}, read(times)[1]) == ({}, [f"it {reason}"])
        assert leave_out({"it": model}, read([[-1, 0, 1]])[1]) == ({"it": model}, [])

    @pytest.mark.parametrize("times", [[[-1.5, 0, 1]], [[-1, 0, 1.5]], [[-1, 0, 0.4]], [[-1, 0, 1.002]]])
    def test_who_is_let_through_is_not_refused_by_the_model(self, times):
        model = build("persistence")
        for inputs in (True, False):
            for targets in (True, False):
                model.irregular_inputs, model.irregular_targets = inputs, targets
                seen = (torch.tensor(part, dtype=torch.float32) for part in ([times[0][:2]], [times[0][2:]]))
                if read(times)[1].inability(model) is None:
                    model.seen_times(*seen)
                else:
                    with pytest.raises(DataError):
                        model.seen_times(*seen)
