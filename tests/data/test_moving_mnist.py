import hashlib
import importlib.util
import os
import pickle
import subprocess
import sys
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fieldcast.data.moving_mnist import KEYS, PRESETS, MovingMNIST, MovingMNISTConfig, _unit
from fieldcast.errors import ConfigError, DataError
from fieldcast.settings import read_settings

ROOT = Path(__file__).parents[2]
REAL = Path(os.environ.get("FIELDCAST_TEST_DATA", ROOT.parent / "shared" / "data"))
REAL_TRAIN = REAL / "mnist_train" / "mnist_train_10k.npz"
REAL_TEST = REAL / "mnist_test" / "t10k-images-idx3-ubyte.gz"
WHOLE = np.arange(20)
START = np.array([[0.36468519078228867, 0.4407895719943412], [0.5139885287934022, 0.8806899326151569]])
VELOCITY = np.array([[-1.8832116854328838, 3.068145001112079], [-1.042402184457741, -3.4457796920055306]])
few = settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])

_spec = importlib.util.spec_from_file_location("moving_mnist_oracle", ROOT / "tests" / "oracles" / "moving_mnist.py")
oracle = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(oracle)


def blobs(count, seed=0):
    """Digits of noise, each in its own rectangle on black."""
    random = np.random.default_rng(seed)
    images = np.zeros((count, 28, 28), np.uint8)
    for image in images:
        top, left = random.integers(0, 9, 2)
        height, width = random.integers(8, 20, 2)
        image[top : top + height, left : left + width] = random.integers(0, 256, (height, width))
    return images


def save(folder, images, name="digits.npz"):
    np.savez(folder / name, images=images)
    return str(folder / name)


@pytest.fixture(scope="module")
def digits(tmp_path_factory):
    return save(tmp_path_factory.mktemp("digits"), blobs(600))


def make(digits, preset, seed=0, **changes):
    return MovingMNIST(MovingMNISTConfig(preset=preset, digits=digits, **changes), seed)


def expected(preset, sequence, num_frames):
    if preset == "shi2015":
        return oracle.shi2015(sequence.images, sequence.start, sequence.velocity, num_frames)
    if preset in ("thesis", "thesis-pp"):
        return oracle.hko7(
            sequence.images,
            sequence.start,
            sequence.velocity,
            360 * sequence.rotation,
            sequence.scale,
            sequence.illumination,
            num_frames,
        )
    return oracle.ddpae(sequence.images, sequence.start, sequence.velocity, num_frames)


@pytest.mark.parametrize("preset", PRESETS)
def test_whole_frames_follow_the_published_rule(digits, preset):
    for sequence in make(digits, preset).sequences("train", 8):
        frames = sequence.read(WHOLE)[:, 0]
        reference = expected(preset, sequence, 20)
        if PRESETS[preset].whole_pixels:
            np.testing.assert_array_equal(frames, reference)
        else:
            np.testing.assert_allclose(frames / 255, reference / 255, atol=1e-5)


@pytest.mark.parametrize("preset", PRESETS)
def test_draws_fill_the_published_ranges(digits, preset):
    rule = PRESETS[preset]
    sequences = make(digits, preset).sequences("train", 200)[:]
    for name, drawn in {
        "speed": [np.hypot(*velocity) for sequence in sequences for velocity in sequence.velocity],
        "rotation": [360 * rotation for sequence in sequences for rotation in sequence.rotation],
        "scale": [scale for sequence in sequences for scale in sequence.scale],
        "illumination": [sequence.illumination for sequence in sequences],
    }.items():
        low, high = getattr(rule, name)
        assert low - 1e-12 <= min(drawn) <= low + 0.05 * (high - low) + 1e-12
        assert high - 0.05 * (high - low) - 1e-12 <= max(drawn) <= high + 1e-12
    assert all(len(sequence.images) == rule.num_digits for sequence in sequences)
    angles = np.concatenate([np.arctan2(*sequence.velocity.T) for sequence in sequences]) / (2 * np.pi) + 0.5
    assert (np.histogram(angles, 8, (0, 1))[0] > 0.06 * len(angles)).all()


def test_cropping_is_the_bounding_box(digits):
    images = {image.tobytes(): image for image in np.load(digits)["images"]}
    cut = [image for sequence in make(digits, "thesis").sequences("train", 50) for image in sequence.images]
    allowed = {(oracle.crop(image).shape, oracle.crop(image).tobytes()) for image in images.values()}
    assert all((image.shape, image.tobytes()) in allowed for image in cut)


def test_unit_is_the_exponential():
    turns = np.concatenate([np.linspace(-3, 3, 2001), np.arange(-8, 9) / 8])
    np.testing.assert_allclose(_unit(turns), np.exp(2j * np.pi * turns), rtol=0, atol=4e-15)  # numpy rounds the angle
    np.testing.assert_array_equal(_unit(np.array([0.0, 0.25, 0.5, 0.75])), [1, 1j, -1, -1j])


@few
@given(st.sampled_from(sorted(PRESETS)), st.integers(0, 2**32), st.sampled_from(["train", "test"]), st.integers(0, 999))
def test_sample_is_a_function_of_seed_split_and_index(digits, preset, seed, split, index):
    first = make(digits, preset, seed).sequences(split, 1000)
    second = pickle.loads(pickle.dumps(make(digits, preset, seed))).sequences(split, index + 1)
    [first[position].read(WHOLE[:2]) for position in (0, 999)]
    np.testing.assert_array_equal(first[index].read(WHOLE), second[-1].read(WHOLE))
    assert not np.array_equal(first[index].start, first[(index + 1) % 1000].start)


def test_another_process_makes_the_same_frames(digits):
    program = (
        "import hashlib, numpy as np\n"
        "from fieldcast.data.moving_mnist import MovingMNIST, MovingMNISTConfig\n"
        f"source = MovingMNIST(MovingMNISTConfig(preset='thesis-pp', digits={digits!r}), 7)\n"
        "frames = source.sequences('validation', 9)[5].read(np.arange(20))\n"
        "print(hashlib.sha256(frames.tobytes()).hexdigest())"
    )
    other = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout.strip()
    frames = make(digits, "thesis-pp", 7).sequences("validation", 9)[5].read(WHOLE)
    assert other == hashlib.sha256(frames.tobytes()).hexdigest()


def test_samples_stay_the_same_from_release_to_release(tmp_path):
    sequence = make(save(tmp_path, blobs(20)), "arma-1x", seed=3).sequences("test", 13)[12]
    np.testing.assert_array_equal(sequence.start, START)
    np.testing.assert_array_equal(sequence.velocity, VELOCITY)


@few
@given(
    st.sampled_from(sorted(PRESETS)),
    st.integers(0, 50),
    st.one_of(st.integers(0, 30).map(float), st.floats(0, 30), st.integers(1, 30).map(lambda whole: whole - 5e-6)),
)
def test_frames_are_continuous_in_time(digits, preset, index, time):
    sequence = make(digits, preset).sequences("train", 100)[index]
    before, after = sequence.read_at(np.array([time, time + 1e-5]))
    # Digits of noise change by up to 255 a pixel; corners move by less than 40 pixels per frame.
    assert np.abs(after - before).max() < 255 * 40 * 1e-5 + 1e-3


def test_place_follows_a_line_between_whole_frames(tmp_path):
    square = np.zeros((20, 28, 28), np.uint8)
    square[:, 4:24, 4:24] = 200
    sequence = make(save(tmp_path, square), "arma-2x", num_digits=1).sequences("train", 1)[0]
    times = np.arange(0, 18.25, 0.25)
    frames = sequence.read_at(times)[:, 0].astype(np.float64)
    rows = (frames.sum(2) * np.arange(64)).sum(1) / frames.sum((1, 2))
    columns = (frames.sum(1) * np.arange(64)).sum(1) / frames.sum((1, 2))
    for centre in (rows, columns):
        assert np.ptp(centre) > 1
        np.testing.assert_allclose(centre[::4], np.round(centre[::4] * 2) / 2, atol=1e-4)
        np.testing.assert_allclose(centre, np.interp(times, times[::4], centre[::4]), atol=1e-4)


@few
@given(st.sampled_from(["thesis", "arma-1x", "arma-3x", "shi2015"]), st.integers(0, 10**6), st.floats(1, 60))
def test_digits_stay_in_the_box(tmp_path, preset, seed, time):
    square = np.zeros((20, 28, 28), np.uint8)
    square[:, 4:24, 4:24] = 200
    sequence = make(save(tmp_path, square), preset, seed, num_digits=1, subset=20).sequences("train", 1)[0]
    frame = sequence.read_at(np.array([time]))[0, 0].astype(np.float64)
    assert frame.sum() == pytest.approx(400 * 200, rel=1e-5)
    for axis in (0, 1):
        centre = (frame.sum(1 - axis) * np.arange(64)).sum() / frame.sum() + 0.5
        margin = PRESETS[preset].margin
        assert margin - 1e-3 <= centre <= 64 - margin + 1e-3


@few
@given(st.sampled_from(sorted(PRESETS)), st.lists(st.integers(0, 19), max_size=6), st.floats(20, 300))
def test_read_at_whole_times_is_read(digits, preset, positions, later):
    sequence = make(digits, preset).sequences("train", 3)[2]
    frames = sequence.read(np.array(positions, dtype=np.int64))
    assert frames.shape == (len(positions), 1, 64, 64)
    assert frames.dtype == np.float32
    longer = sequence.read_at(np.array([*positions, later]))
    np.testing.assert_array_equal(frames, longer[:-1])
    np.testing.assert_array_equal(sequence.read_at(np.array(positions, dtype=float)), frames)
    np.testing.assert_array_equal(
        sequence.read(np.array([3]), (slice(2, 9), slice(None))), sequence.read([3])[:, :, 2:9]
    )


def test_a_longer_ask_changes_nothing_earlier(digits):
    for preset in PRESETS:
        sequence = make(digits, preset).sequences("train", 1)[0]
        times = np.linspace(0, 12, 25)
        np.testing.assert_array_equal(sequence.read_at(np.append(times, 500.0))[:-1], sequence.read_at(times))


@few
@given(st.integers(0, 2**40), st.sampled_from(["arma-1x", "shi2015"]), st.booleans())
def test_splits_share_no_digit(digits, tmp_path, seed, preset, own_test_file):
    test_digits = save(tmp_path, blobs(30, seed=1), "test.npz") if own_test_file else None
    source = make(digits, preset, seed, test_digits=test_digits)
    seen = {
        split: {image.tobytes() for sequence in source.sequences(split, 200) for image in sequence.images}
        for split in ("train", "validation", "test")
    }
    assert not seen["train"] & (seen["validation"] | seen["test"])
    assert not seen["validation"] & seen["test"]
    subset = PRESETS[preset].subset or 600
    sizes = {split: len(images) for split, images in source._digits.items()}
    assert sum(sizes.values()) == (subset + 30 if own_test_file else subset)
    assert sizes["test"] == (30 if own_test_file else subset // 10)
    assert sizes["validation"] == subset // 10


def test_values_beside_a_preset_override_it(digits):
    default = make(digits, "thesis").sequences("train", 1)[0].read(WHOLE)
    for changes in (
        {"num_digits": 3},
        {"speed": (1.0, 1.0)},
        {"rotation": (5.0, 9.0)},
        {"scale": (0.9, 0.95)},
        {"illumination": (0.5, 0.6)},
        {"subset": 100},
        {"size": 80},
        {"preset": "arma-1x"},
    ):
        other = make(digits, **{"preset": "thesis", **changes}).sequences("train", 1)[0].read(WHOLE)
        assert not np.array_equal(default, other)
    still = make(digits, "thesis-pp", num_digits=2, rotation=(0.0, 0.0), scale=(1.0, 1.0), illumination=(1.0, 1.0))
    np.testing.assert_array_equal(default, still.sequences("train", 1)[0].read(WHOLE))
    assert len(make(digits, "thesis", num_frames=7).sequences("train", 1)[0].times) == 7


def test_each_key_has_its_preset(digits):
    config = read_settings(MovingMNISTConfig, {"digits": digits, "speed": [1, 2.5]}, "source")
    for key, preset in KEYS.items():
        source = partial(MovingMNIST, default_preset=preset)(config, 0)
        assert source.rule == PRESETS[preset].model_copy(update={"speed": (1.0, 2.5)}), key


def test_sequences_are_lazy_and_behave_like_a_list(digits):
    source = make(digits, "thesis")
    sequences = source.sequences("train", 10**9)
    assert len(sequences) == 10**9
    assert sequences[-1].name == f"train-{10**9 - 1}"
    assert [sequence.name for sequence in sequences[2:4]] == ["train-2", "train-3"]
    with pytest.raises(IndexError):
        sequences[10**9]
    with pytest.raises(IndexError):
        sequences[0].read(np.array([20]))
    assert sequences[0].times.tolist() == [frame * source.cadence for frame in range(20)]
    assert source.kind == "generator"
    assert source.shape == (64, 64)
    assert source.variables[0].name == "intensity"


@pytest.mark.parametrize("times", [[-0.5], [np.nan], [np.inf]])
def test_times_that_are_none_are_refused(digits, times):
    with pytest.raises(ValueError, match="times are 0 or later"):
        make(digits, "thesis").sequences("train", 1)[0].read_at(np.array(times))


def test_wrong_splits_and_counts_are_refused(digits):
    source = make(digits, "thesis")
    with pytest.raises(ConfigError, match="did you mean 'validation'"):
        source.sequences("validate", 3)
    with pytest.raises(ConfigError, match="say how many"):
        source.sequences("train", None)


@pytest.mark.parametrize(
    ("values", "complaint"),
    [
        ({"preset": "thesys"}, "did you mean 'thesis'"),
        ({"speed": [2.0, 1.0]}, r"\[lowest, highest\]"),
        ({"speed": [2.0]}, r"\[lowest, highest\]"),
        ({"scale": [0.0, 1.0]}, "above 0"),
        ({"size": 20}, "greater than or equal to 32"),
        ({"sped": [1.0, 2.0]}, "did you mean 'speed'"),
        ({"speed": "fast"}, "source.speed"),
    ],
)
def test_wrong_settings_are_refused(values, complaint):
    with pytest.raises(ConfigError, match=complaint):
        read_settings(MovingMNISTConfig, values, "source")


def test_too_few_or_shared_digits_are_refused(tmp_path, digits):
    with pytest.raises(DataError, match="600 digit images came, at least 700 are needed"):
        make(digits, "thesis", subset=700)
    with pytest.raises(DataError, match="4 digit images came, at least 10 are needed"):
        make(save(tmp_path, blobs(4)), "thesis")
    with pytest.raises(DataError, match="600 images of test_digits"):
        make(digits, "thesis", test_digits=digits)


def test_a_blank_digit_draws_nothing(tmp_path):
    blank = save(tmp_path, np.zeros((10, 28, 28), np.uint8))
    assert not make(blank, "thesis-pp").sequences("train", 1)[0].read(WHOLE).any()


@pytest.mark.skipif(not REAL_TRAIN.exists(), reason=f"no MNIST digits at {REAL} (set FIELDCAST_TEST_DATA)")
def test_real_digits_follow_the_rules_and_their_files_are_apart():
    for preset in ("thesis", "thesis-pp", "arma-3x"):
        sequence = make(str(REAL_TRAIN), preset, test_digits=str(REAL_TEST)).sequences("test", 5)[4]
        reference = expected(preset, sequence, 20)
        np.testing.assert_allclose(sequence.read(WHOLE)[:, 0] / 255, reference / 255, atol=1e-5)
