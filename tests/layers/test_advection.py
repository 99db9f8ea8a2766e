"""Advection against pysteps' scheme, and against motions whose ways are known."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pysteps.extrapolation.semilagrangian import extrapolate
from scipy.ndimage import gaussian_filter

from fieldcast.layers.advection import advect

HEIGHT, WIDTH = 48, 60
ELSEWHERE = 7.0  # a fallback that no field has


def smooth_field(random, size=(HEIGHT, WIDTH), width=3.0):
    """A smooth field from 0 to 1."""
    field = gaussian_filter(random.standard_normal(size), width)
    return (field - field.min()) / np.ptp(field)


def rotating_motion(rate, drift=(0.0, 0.0), size=(HEIGHT, WIDTH)):
    """Solid rotation about the middle by ``rate`` radians per unit of time, and a drift: (2, H, W)."""
    row, column = np.mgrid[: size[0], : size[1]].astype(float)
    down, across = row - (size[0] - 1) / 2, column - (size[1] - 1) / 2
    return np.stack([drift[0] - rate * down, drift[1] + rate * across])


def random_motion(random):
    """A drift, a rotation, and eddies: up to a few pixels per unit of time."""
    eddies = np.stack([gaussian_filter(random.standard_normal((HEIGHT, WIDTH)), 8) for _ in range(2)])
    return rotating_motion(random.uniform(-0.05, 0.05), random.uniform(-2, 2, 2)) + eddies / np.abs(eddies).max()


def advect_one(field, motion, lead_times, dtype=torch.float32):
    """Fields (S, H, W) of one sample, ELSEWHERE where they come from outside."""
    fields = torch.from_numpy(field).to(dtype)[None, None]
    times = torch.tensor([lead_times], dtype=dtype)
    return advect(fields, torch.from_numpy(motion).to(dtype)[None], times, torch.full_like(fields, ELSEWHERE))[0, :, 0]


def ways(motion, lead_times):
    """How far from each pixel the field that arrives in it was, (S, 2, H, W): the places themselves are carried."""
    row, column = np.mgrid[: motion.shape[1], : motion.shape[2]].astype(float)
    places = np.stack([column, row])
    starts = [advect_one(axis, motion, lead_times, torch.float64).numpy() for axis in places]
    return places - np.stack(starts, axis=1)


def assert_same_where_defined(ours, theirs, tolerance):
    """``theirs`` is NaN outside; the fields span 0 to 1."""
    known, inside = ~np.isnan(theirs), ours.numpy() != ELSEWHERE
    # A way that begins on the edge may be inside or outside by rounding.
    assert (known != inside).mean() < 1e-3
    both = known & inside
    assert 0.3 < both.mean() < 1
    assert np.abs(ours.numpy() - theirs)[both].max() < tolerance


def pysteps_by_whole_steps(field, motion, lead_times):
    """pysteps asked for each lead time by itself: whole steps, and from there a rest."""
    frames = []
    for time in lead_times:
        before = None
        if int(time):
            _, before = extrapolate(None, motion, int(time), return_displacement=True)
        if time == int(time):
            frames.append(extrapolate(field, motion, int(time))[-1])
        else:
            frames.append(extrapolate(field, motion, [time - int(time)], displacement_prev=before)[0])
    return np.stack(frames)


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-4), (torch.float64, 1e-10)])
def test_whole_lead_times_are_those_of_pysteps(seed, dtype, tolerance):
    random = np.random.default_rng(seed)
    field, motion = smooth_field(random), random_motion(random)
    ours = advect_one(field, motion, range(1, 9), dtype)
    assert_same_where_defined(ours, extrapolate(field, motion, 8), tolerance)


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-4), (torch.float64, 1e-10)])
def test_real_lead_times_are_those_of_pysteps_from_the_last_whole_step(seed, dtype, tolerance):
    random = np.random.default_rng(seed)
    field, motion = smooth_field(random), random_motion(random)
    lead_times = [0.25, 0.9, 1, 1.5, 3.7, 6.01]
    ours = advect_one(field, motion, lead_times, dtype)
    assert_same_where_defined(ours, pysteps_by_whole_steps(field, motion, lead_times), tolerance)


@pytest.mark.parametrize("spacing", [0.25, 0.5])
def test_even_parts_of_a_step_are_near_those_of_pysteps(spacing):
    """pysteps then takes steps of another length: both are near the true way where the motion is smooth."""
    field = smooth_field(np.random.default_rng(5), width=4.0)
    lead_times = [spacing * number for number in range(1, 9)]
    motion = rotating_motion(0.02, (0.7, -0.4))
    ours = advect_one(field, motion, lead_times)
    assert_same_where_defined(ours, extrapolate(field, motion, lead_times), 1e-3)


@pytest.mark.parametrize(("across", "down"), [(1, 0), (0, -2), (3, 2), (-1, 1)])
def test_a_uniform_motion_by_whole_pixels_shifts(across, down):
    field = np.random.default_rng(0).random((12, 15))
    motion = np.full((2, 12, 15), [[[across]], [[down]]], float)
    lead_times = [-2, -1, 0, 1, 2, 3]
    result = advect_one(field, motion, lead_times, torch.float64)
    for frame, time in zip(result, lead_times, strict=True):
        expected = np.full((12, 15), ELSEWHERE)
        for row in range(12):
            for column in range(15):
                source_row, source_column = row - down * time, column - across * time
                if 0 <= source_row < 12 and 0 <= source_column < 15:
                    expected[row, column] = field[source_row, source_column]
        np.testing.assert_allclose(frame, expected, atol=1e-12)


def test_a_solid_rotation_turns():
    rate, lead_times = 0.05, [-3.5, -1, 0, 0.4, 1, 2.75, 6]
    row, column = np.mgrid[:41, :41] - 20.0
    near = row**2 + column**2 <= 18**2  # ways of the others leave the map
    for way, time in zip(ways(rotating_motion(rate, size=(41, 41)), lead_times), lead_times, strict=True):
        turn = -rate * time
        start = np.cos(turn) * column - np.sin(turn) * row, np.sin(turn) * column + np.cos(turn) * row
        exact = np.stack([column - start[0], row - start[1]])
        # The midpoint rule is (rate)^3 / 6 short of a whole step's angle.
        assert np.abs(way - exact)[:, near].max() <= 18 * rate**3 / 6 * max(abs(time), 1) * 1.1


def test_long_lead_times_are_split_into_steps():
    """One step of 20 units would go straight on; many go round: after a full turn all is where it was."""
    num_steps = 20
    way = ways(rotating_motion(2 * np.pi / num_steps, size=(31, 31)), [num_steps])[0]
    row, column = np.mgrid[:31, :31] - 15.0
    near = row**2 + column**2 <= 8**2
    assert np.abs(way)[:, near].max() < 1.0
    assert np.abs(way)[:, near].max() > 0.0


def test_each_sample_has_its_own_lead_times():
    random = np.random.default_rng(3)
    fields = torch.rand(3, 2, HEIGHT, WIDTH)
    motion = torch.from_numpy(np.stack([random_motion(random) for _ in range(3)])).float()
    lead_times = torch.tensor([[1, 2, 4.0], [-0.5, 0, 2.5], [0.3, 6, 6.1]])
    together = advect(fields, motion, lead_times, fields)
    assert together.shape == (3, 3, 2, HEIGHT, WIDTH)
    for sample in range(3):
        for place in range(3):
            one = slice(sample, sample + 1)
            alone = advect(fields[one], motion[one], lead_times[one, place : place + 1], fields[one])
            torch.testing.assert_close(together[sample, place], alone[0, 0], rtol=0, atol=1e-6)


def test_what_comes_from_outside_is_the_fallback():
    fields, fallback = torch.zeros(1, 2, 6, 8), torch.rand(1, 2, 6, 8)
    motion = torch.tensor([3.0, 0.0])[None, :, None, None].expand(1, 2, 6, 8)
    result = advect(fields, motion, torch.tensor([[1.0, 2.0, 9.0]]), fallback)
    for place, gone in enumerate([3, 6, 8]):
        assert torch.equal(result[0, place, :, :, :gone], fallback[0, :, :, :gone])
        assert (result[0, place, :, :, gone:] == 0).all()


@settings(max_examples=25, deadline=None)
@given(
    seed=st.integers(0, 1000),
    size=st.tuples(st.integers(1, 9), st.integers(1, 9)),
    speed=st.floats(0, 20),
    lead_times=st.lists(st.floats(-5, 12), min_size=1, max_size=4),
)
def test_no_value_is_made_up(seed, size, speed, lead_times):
    generator = torch.Generator().manual_seed(seed)
    fields = torch.rand(2, 1, *size, generator=generator) - 0.5
    motion = speed * torch.randn(2, 2, *size, generator=generator)
    result = advect(fields, motion, torch.tensor([sorted(lead_times)] * 2), fields)
    assert result.shape == (2, len(lead_times), 1, *size)
    for sample in range(2):
        assert result[sample].amin() >= fields[sample].amin() - 1e-5
        assert result[sample].amax() <= fields[sample].amax() + 1e-5


def test_without_motion_nothing_changes():
    fields = torch.rand(2, 3, 9, 7)
    result = advect(
        fields, torch.zeros(2, 2, 9, 7), torch.tensor([[-1, 0.5, 3]] * 2), torch.full_like(fields, ELSEWHERE)
    )
    torch.testing.assert_close(result, fields[:, None].expand(-1, 3, -1, -1, -1), rtol=0, atol=1e-6)
