"""The Mackey-Glass equation against reference solutions, SciPy and exact ones; its series as a source."""

import math
import os
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fieldcast.data import make_samples, source_settings
from fieldcast.data.mackey_glass import Equation, integrate, lyapunov_exponent
from fieldcast.data.normalize import NormalizerSettings
from fieldcast.data.sampling import SamplingSettings
from fieldcast.data.splits import SplitSettings
from fieldcast.data.windows import WindowSettings
from fieldcast.errors import ConfigError, DataError

SHARED = Path(os.environ.get("FIELDCAST_TEST_DATA", Path(__file__).parents[2] / "../shared/data"))
LYAPUNOV = 0.0072  # per unit of time, see TestLyapunovExponent


@pytest.mark.parametrize("history", [1.2, 0.5])
def test_reference_solutions(history):
    path = SHARED / "mackey_glass" / f"mg_tau30_const{history}_dt1_reference.csv"
    if not path.exists():
        pytest.skip(f"no test data at {path}; set FIELDCAST_TEST_DATA")
    times, expected = np.loadtxt(path, delimiter=",").T
    error = np.abs(integrate(Equation(), history, 1500.0)(times) - expected)
    assert error[times <= 300].max() < 1e-12
    # Later, the rounding of one or the other, 1e-13 here, grows as chaos has it.
    assert error.max() < 1e-13 * math.exp(LYAPUNOV * 1500) < 1e-8


@pytest.mark.parametrize("changes", [{"delay": 7.3, "power": 6.5}, {"delay": 2.0, "growth": 3.0, "decay": 1.7}])
def test_a_history_that_moves_is_as_in_scipy(changes):
    """An adaptive Runge-Kutta method, one delay after the other, with its own dense output as the past."""
    solve_ivp = pytest.importorskip("scipy.integrate").solve_ivp
    equation, past = Equation(**changes), lambda t: 0.8 + 0.3 * np.sin(0.4 * t)
    solution, x, before = integrate(equation, past, 4 * equation.delay), float(past(0.0)), past
    for interval in range(4):
        start, end = interval * equation.delay, (interval + 1) * equation.delay
        rate = lambda t, x, before: equation.production(before(t - equation.delay)) - equation.decay * x  # noqa: E731
        found = solve_ivp(partial(rate, before=before), (start, end), [x], "DOP853", dense_output=True,
                          rtol=1e-12, atol=1e-13)  # fmt: skip
        moments = np.linspace(start, end, 23)
        np.testing.assert_allclose(solution(moments), found.sol(moments)[0], rtol=0, atol=1e-10)
        x, before = float(found.y[0, -1]), lambda t, dense=found.sol: dense(t)[0]


def test_the_first_delay_is_exact():
    """x = x_0 exp(-b t) + p(x_0) (1 - exp(-b t)) / b, and a straight line without decay."""
    times = np.linspace(0, 30, 50)
    equation, past = Equation(), 0.7
    gained = equation.production(np.array(past)) * -np.expm1(-0.1 * times) / 0.1
    np.testing.assert_allclose(integrate(equation, past, 30)(times), past * np.exp(-0.1 * times) + gained, atol=1e-15)
    still = Equation(decay=0.0)
    line = past + still.production(np.array(past)) * times
    np.testing.assert_allclose(integrate(still, past, 30)(times), line, rtol=1e-14)


def test_a_steady_state_stays():
    """a / (1 + x^c) = b."""
    equation = Equation(delay=3.0, growth=0.2, decay=0.1, power=4.0)
    np.testing.assert_allclose(integrate(equation, 1.0, 50.0)(np.linspace(-5, 50, 99)), 1.0, rtol=1e-13)
    assert (integrate(equation, 0.0, 9.0)(np.linspace(0, 9, 10)) == 0).all()


@settings(max_examples=20, deadline=None)
@given(
    delay=st.floats(0.01, 60),
    growth=st.floats(0.01, 3),
    decay=st.floats(0, 2),
    power=st.floats(0.3, 25),
    history=st.floats(0, 30),
)
def test_shorter_pieces_change_nothing(delay, growth, decay, power, history):
    equation = Equation(delay=delay, growth=growth, decay=decay, power=power)
    solution = integrate(equation, history, 3 * delay)
    finer = integrate(equation, history, 3 * delay, longest_piece=min(equation.piece, delay) / 2.7)
    times = np.linspace(0, 3 * delay, 40)
    np.testing.assert_allclose(solution(times), finer(times), rtol=1e-9, atol=1e-10)


def test_the_derivative_is_the_equation_between_frames_too():
    equation, width = Equation(), 1e-4
    solution = integrate(equation, 1.2, 400.0)
    times = np.random.default_rng(0).uniform(31, 399, 200)
    slope = (solution(times + width) - solution(times - width)) / (2 * width)
    np.testing.assert_allclose(slope, equation.production(solution(times - 30)) - 0.1 * solution(times), atol=1e-8)
    history = integrate(equation, lambda t: 1 + 0.1 * np.cos(t), 30.0)
    np.testing.assert_array_equal(history([-3.0, 0.0]), 1 + 0.1 * np.cos([-3.0, 0.0]))
    assert solution(5.0).shape == () and solution(np.ones((2, 3))).shape == (2, 3)


class TestLyapunovExponent:
    def test_two_solutions_part_as_the_linearised_equation_says(self):
        equation, size, end = Equation(), 1e-9, 900
        last = np.linspace(end - 30, end, 3001)
        near, far = (integrate(equation, history, end)(last) for history in (1.2, 1.2 + size))
        parted = math.log(math.sqrt(np.square(far - near).mean()) / size)
        assert lyapunov_exponent(equation, 1.2, end, settling=0) * end == pytest.approx(parted, abs=2e-3)

    def test_chaos_and_order(self):
        # Over 1e5 units of time 0.00710, 0.00722 and 0.00728 from histories 1.2, 0.5 and 0.9.
        assert lyapunov_exponent(Equation(), 1.2, 4e4) == pytest.approx(LYAPUNOV, rel=0.1)
        # About the fixed point x = 1, d' = a (2 - c) / 4 d(t - tau) - b d falls as exp(root t).
        root = -0.2
        for _ in range(50):
            root = -0.1 * math.exp(-root) - 0.1
        stable = Equation(power=4.0, delay=1.0)
        assert lyapunov_exponent(stable, 1.1, 600.0, settling=300.0) == pytest.approx(root, rel=1e-6)

    @pytest.mark.parametrize("end", [10.0, math.inf])
    def test_no_time_to_average_over(self, end):
        with pytest.raises(DataError, match="give a later end"):
            lyapunov_exponent(Equation(), end=end)


@pytest.mark.parametrize(("arguments", "said"), [
    ({"history": math.nan, "end": 9.0}, "the history is nan"),
    ({"history": -0.1, "end": 9.0}, r"the history is -0.1 at t = -30: a finite number from 0 on"),
    ({"history": lambda t: np.where(t < -3, 1.0, math.inf), "end": 9.0}, "the history is inf"),
    ({"history": lambda t: 1 + 0.1 * np.sin(40 * t), "end": 9.0}, "shorter longest_piece"),
    ({"history": 1.2, "end": 0.0}, "a time after 0, not to 0"),
    ({"history": 1.2, "end": math.inf}, "a time after 0, not to inf"),
    ({"history": 1.2, "end": 9.0, "longest_piece": 0.0}, "longest_piece = 0: above 0"),
])  # fmt: skip
def test_what_cannot_be_solved_is_refused(arguments, said):
    with pytest.raises(DataError, match=said):
        integrate(Equation(), **arguments)


@pytest.mark.parametrize("time", [30.1, math.nan, math.inf, -math.inf])
def test_times_without_a_solution_are_refused(time):
    with pytest.raises(DataError, match="known up to t = 30, but"):
        integrate(Equation(), 1.2, 20.0)([1.0, time])


def open_source(seed=0, **values):
    return source_settings({"key": "mackey-glass", **values}).open(seed)


class TestSource:
    def test_frames_are_the_solution(self):
        source = open_source(step=0.5, start=2.0, length=40, history=0.9, delay=17.0)
        (series,) = source.sequences("train", None)
        solution = integrate(Equation(delay=17.0), 0.9, 100.0)
        expected = solution(2 + 0.5 * np.arange(40)).astype(np.float32)
        np.testing.assert_array_equal(series.read(np.arange(40))[:, 0, 0, 0], expected)
        later = solution(2 + 0.5 * np.array([0.25, 70.7])).astype(np.float32)
        np.testing.assert_array_equal(series.read_at(np.array([0.25, 70.7]))[:, 0, 0, 0], later)
        assert (source.kind, source.cadence, series.times[3]) == ("archive", 500_000_000, 1_500_000_000)

    def test_a_range_of_histories_draws_each_series_its_own(self):
        source = open_source(seed=3, history=[0.5, 1.5], length=20)
        everything = {
            split: [series.read(np.arange(20)) for series in source.sequences(split, 4)]
            for split in ("train", "validation", "test")
        }
        first = np.array([frames[0, 0, 0, 0] for parts in everything.values() for frames in parts])
        assert ((first >= 0.5) & (first < 1.5)).all() and len(set(first)) == 12
        again = open_source(seed=3, history=[0.5, 1.5], length=20).sequences("test", 9)[2]
        np.testing.assert_array_equal(again.read(np.arange(20)), everything["test"][2])
        other = open_source(seed=4, history=[0.5, 1.5], length=20).sequences("test", 3)[2]
        assert (other.read(np.array([0])) != first).all()

    @pytest.mark.parametrize(("history", "splits"), [
        (1.2, SplitSettings(train=0.5, validation=0.25, test=0.25)),
        ([0.5, 1.5], SplitSettings(train=4, validation=2, test=2)),
    ], ids=["archive", "generator"])  # fmt: skip
    def test_samples_at_real_times(self, history, splits):
        source = open_source(history=history, length=160)
        sampling = SamplingSettings(real_numbers=True, input_interval=(1, 9), target_interval=(10, 16))
        windows = WindowSettings(num_inputs=5, num_targets=3)
        samples = make_samples(source, windows, splits, NormalizerSettings(transform="identity"), sampling)["test"]
        number = len(samples) - 1
        sequence = samples.sequences[samples.starts[number][0]]
        solution = integrate(source.config, sequence.history, 170.0)
        expected = solution(samples.times(number) / source.cadence)
        np.testing.assert_allclose(samples.frames(number)[:, 0, 0, 0], expected, atol=1e-6)
        assert (np.diff(samples.times(number)) % source.cadence).any()

    def test_a_generator_without_a_count(self):
        with pytest.raises(ConfigError, match="how many the test split has"):
            open_source(history=[0.5, 1.5]).sequences("test", None)
        with pytest.raises(ConfigError, match="unknown split 'testing'"):
            open_source().sequences("testing", None)

    @pytest.mark.parametrize(("values", "said"), [
        ({"delay": 0.0}, "'source.delay' = 0.0: input should be greater than 0"),
        ({"step": -1.0}, "'source.step' = -1.0"),
        ({"growth": 0.0}, "'source.growth'"),
        ({"decay": -0.1}, "'source.decay'"),
        ({"power": math.inf}, "'source.power' = inf: input should be a finite number"),
        ({"history": math.nan}, "'source.history' = nan: input should be a finite number"),
        ({"history": -1.0}, "'source.history': x counts cells, 0 or more, but -1 came"),
        ({"history": [1.0, 0.5]}, r"a range is \[low, high\] with 0 <= low < high, but \[1.0, 0.5\] came"),
        ({"history": [1.0]}, r"but \[1.0\] came"),
        ({"history": [0.5, math.inf]}, "finite"),
        ({"length": 0}, "'source.length' = 0"),
        ({"start": -1.0}, "'source.start'"),
        ({"tau": 30.0}, "unknown key 'source.tau'"),
    ])  # fmt: skip
    def test_settings_that_do_not_fit(self, values, said):
        with pytest.raises(ConfigError, match=said):
            open_source(**values)

    @pytest.mark.parametrize("time", [-0.5, math.nan, math.inf])
    def test_times_before_the_first_frame(self, time):
        with pytest.raises(DataError, match="times are 0 or later"):
            open_source().sequences("train", None)[0].read_at(np.array([1.0, time]))
