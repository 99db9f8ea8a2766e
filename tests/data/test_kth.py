"""KTH actions: frames of the listed ranges, persons kept apart, published counts, and files that don't fit."""

import itertools
import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fieldcast.data import make_samples, source_settings
from fieldcast.data.kth import ACTIONS, PEOPLE
from fieldcast.data.normalize import NormalizerSettings
from fieldcast.data.splits import SPLITS, SplitSettings
from fieldcast.data.video import VideoSequence
from fieldcast.data.windows import WindowSettings
from fieldcast.errors import ConfigError, DataError

av = pytest.importorskip("av", reason="PyAV (extra 'video') is not installed")
HEIGHT, WIDTH, NUM_FRAMES = 12, 16, 40
CADENCE = 10**9 // 25

# The head is worded and laid out as the published one: text, persons of the splits, blank lines, tabs, a missing video.
LIST = """
This list has sequences of two actions by five persons.

Training:   person11, 12, 13, 14, 15, 16, 17, 18
Validation: person19, 20, 21, 23, 24, 25, 01, 04
Test:       person22, 02, 03, 05, 06, 07, 08, 09, 10


person01_boxing_d1\t\tframes\t1-10, 11-18, 19-25, 26-40
person01_handclapping_d1\tframes\t1-8, 8-20, 30-40

person11_boxing_d1    \t\tframes\t1-12, 25-40, 15-22
person11_handclapping_d2\tframes\t1-20, 12-40
person13_handclapping_d3\t*missing*
person13_boxing_d4\t\tframes\t3-40
person22_boxing_d1\t\tframes\t1-9, 10-19
"""
RANGES = {
    "person01_boxing_d1": [(1, 10), (11, 18), (19, 25), (26, 40)],
    "person01_handclapping_d1": [(1, 8), (8, 20), (30, 40)],
    "person11_boxing_d1": [(1, 12), (25, 40), (15, 22)],
    "person11_handclapping_d2": [(1, 20), (12, 40)],
    "person13_boxing_d4": [(3, 40)],
    "person22_boxing_d1": [(1, 9), (10, 19)],
}
EXPECTED = {
    "train": ["person11_boxing_d1", "person11_handclapping_d2", "person13_boxing_d4"],
    "validation": ["person01_boxing_d1", "person01_handclapping_d1"],
    "test": ["person22_boxing_d1"],
}
OWN = SplitSettings(train="source", validation="source", test="source")


def picture(name, number, height=HEIGHT):
    """Frame ``number``, counted from 1: the person from the left, the action and scenario, then the frame's number."""
    person, action, scenario = re.fullmatch(r"person(\d\d)_(\w+)_d(\d)", name).groups()
    columns = [10 * int(person)] * 4 + [40 * ACTIONS.index(action) + 5 * int(scenario)] * 4 + [number] * 8
    return np.tile(np.array(columns, np.uint8), (height, 1))


def write_avi(path, pictures, codec="ffv1"):
    """Twenty-five grey pictures a second; ffv1 keeps them exactly."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=25)
        stream.height, stream.width = pictures[0].shape
        stream.pix_fmt = "gray" if codec == "ffv1" else "yuv420p"
        for image in pictures:
            container.mux(
                stream.encode(av.VideoFrame.from_ndarray(image, format="gray").reformat(format=stream.pix_fmt))
            )
        container.mux(stream.encode())


def file_of(folder, name):
    return folder / "videos" / name.split("_")[1] / f"{name}_uncomp.avi"


@pytest.fixture(scope="module")
def values(tmp_path_factory):
    """A folder for each action, and the list."""
    folder = tmp_path_factory.mktemp("kth")
    for name in RANGES:
        write_avi(file_of(folder, name), [picture(name, number) for number in range(1, NUM_FRAMES + 1)])
    (folder / "00sequences.txt").write_text(LIST)
    return {
        "key": "kth",
        "videos": str(folder / "videos"),
        "sequence_list": str(folder / "00sequences.txt"),
        "people": "schuldt2004",
    }


def open_source(values, **changes):
    return source_settings({**values, **changes}).open(0)


def with_list(values, tmp_path, text):
    (tmp_path / "list.txt").write_text(text)
    return {**values, "sequence_list": str(tmp_path / "list.txt")}


@pytest.mark.parametrize("cache_megabytes", [0, 1])
def test_every_frame_of_every_range(values, cache_megabytes):
    source = open_source(values, cache_megabytes=cache_megabytes)
    for split, names in EXPECTED.items():
        ranges = [(name, *ends) for name in names for ends in RANGES[name]]
        sequences = source.sequences(split, None)
        assert [one.name for one in sequences] == [f"{name} frames {first}-{last}" for name, first, last in ranges]
        for one, (name, first, last) in zip(sequences, ranges, strict=True):
            expected = np.stack([picture(name, number)[None] for number in range(first, last + 1)])
            assert one.times.tolist() == [CADENCE * number for number in range(last + 1 - first)]
            np.testing.assert_array_equal(one.read(np.arange(len(expected))), expected)
            np.testing.assert_array_equal(
                one.read(np.array([5, 0]), (slice(2, 7), slice(6, 9))), expected[[5, 0], :, 2:7, 6:9]
            )
            with pytest.raises(IndexError):
                one.read(np.array([len(expected)]))


def test_labels(values):
    source = open_source(values)
    assert (source.kind, source.shape, source.cadence, source.real_times) == ("divided", (12, 16), CADENCE, False)
    assert [(variable.name, variable.units) for variable in source.variables] == [("intensity", "1")]
    assert source.value_range == (0, 255)


def test_windows_stay_within_a_range(values):
    windows = WindowSettings(num_inputs=5, num_targets=3)
    samples = make_samples(open_source(values), windows, OWN, NormalizerSettings())
    for split, names in EXPECTED.items():
        starts = [
            (name, start) for name in names for first, last in RANGES[name] for start in range(first, last + 1 - 7)
        ]
        assert len(samples[split]) == len(starts)
        for number, (name, start) in enumerate(starts):
            frames = samples[split].frames(number)
            assert frames[:, 0, 0, -1].tolist() == list(range(start, start + 8))
            np.testing.assert_array_equal(frames[:, 0, 0, 0], 10 * int(name[6:8]))


def test_without_a_list_a_file_is_a_sequence(values):
    source = open_source({key: value for key, value in values.items() if key != "sequence_list"})
    for split, names in EXPECTED.items():
        sequences = source.sequences(split, None)
        assert [(one.name, len(one.times)) for one in sequences] == [(name, NUM_FRAMES) for name in names]
    np.testing.assert_array_equal(sequences[0].read(np.array([39]))[0, 0], picture("person22_boxing_d1", 40))


@settings(max_examples=15, deadline=None)
@given(
    ranges=st.lists(st.tuples(st.integers(1, 40), st.integers(1, 40)).map(sorted).map(tuple), min_size=1, unique=True)
)
def test_any_ranges(values, tmp_path_factory, ranges):
    text = ", ".join(f"{first}-{last}" for first, last in ranges)
    others = "".join(f"{name} frames 1-40\n" for name in RANGES if name != "person22_boxing_d1")
    folder = tmp_path_factory.mktemp("list")
    source = open_source(with_list(values, folder, f"{others}person22_boxing_d1 frames {text}\n"))
    read = [one.read(np.arange(len(one.times)))[:, 0, 0, -1].tolist() for one in source.sequences("test", None)]
    assert read == [list(range(first, last + 1)) for first, last in ranges]


def test_actions_and_scenarios(values):
    people = {"train": [11, 13], "validation": [1], "test": [22]}
    source = open_source(values, people=people, actions=["boxing"], scenarios=[1])
    names = [one.name.split()[0] for split in SPLITS for one in source.sequences(split, None)]
    assert list(dict.fromkeys(names)) == ["person11_boxing_d1", "person01_boxing_d1", "person22_boxing_d1"]


def test_size_cuts_the_middle(values):
    source = open_source(values, size=[12, 12])
    one = source.sequences("train", None)[0]
    assert source.shape == (12, 12)
    np.testing.assert_array_equal(one.read(np.array([3]))[0, 0], picture("person11_boxing_d1", 4)[:, 2:14])
    assert open_source(values, size=[6, 6]).sequences("test", None)[0].read(np.arange(2)).shape == (2, 1, 6, 6)


def test_opening_decodes_nothing_and_the_cache_decodes_a_file_once(values, monkeypatch):
    decoded = []
    inner = VideoSequence._decode_from

    def decode(sequence, *arguments):
        decoded.append(sequence.name)
        return inner(sequence, *arguments)

    monkeypatch.setattr(VideoSequence, "_decode_from", decode)
    sequences = [one for split in SPLITS for one in open_source(values).sequences(split, None)]
    assert decoded == []
    for one in sequences * 2:
        one.read(np.arange(3))
    assert sorted(decoded) == sorted(f"{name}_uncomp.avi" for name in RANGES)


def test_a_video_of_the_published_kind(tmp_path):
    # mpeg4 at 160 x 120, all files in one folder.
    for person in (1, 15, 17):
        path = tmp_path / f"person{person:02d}_walking_d3_uncomp.avi"
        write_avi(path, [np.full((120, 160), 8 * number + person, np.uint8) for number in range(30)], "mpeg4")
    source = open_source({"key": "kth", "videos": str(tmp_path), "size": [64, 64]})
    frames = source.sequences("test", None)[0].read(np.arange(30))
    assert (frames.shape, source.cadence) == ((30, 1, 64, 64), CADENCE)
    assert np.abs(frames.mean((1, 2, 3)) - (8 * np.arange(30) + 17)).max() < 2


def all_names():
    names = (
        f"person{person:02d}_{action}_d{scenario}"
        for person, action, scenario in itertools.product(range(1, 26), ACTIONS, range(1, 5))
    )
    return [name for name in names if name != "person13_handclapping_d3"]


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """The 599 names of the data set, each with the same two frames."""
    folder = tmp_path_factory.mktemp("whole")
    write_avi(folder / "video.avi", [np.zeros((8, 8), np.uint8)] * 2)
    content = (folder / "video.avi").read_bytes()
    for name in all_names():
        file_of(folder, name).parent.mkdir(parents=True, exist_ok=True)
        file_of(folder, name).write_bytes(content)
    return {"key": "kth", "videos": str(folder / "videos")}


FOUR = ["boxing", "handclapping", "handwaving", "walking"]


@pytest.mark.parametrize(
    ("people", "actions", "counts"),
    [
        ("thesis", FOUR, (255, 64, 80)),  # the thesis, 5.6.1: 255 to train, 144 to validate and test
        ("16-9", list(ACTIONS), (14 * 24 - 1, 2 * 24, 9 * 24)),
        ("schuldt2004", list(ACTIONS), (191, 192, 216)),  # Schuldt et al. 2004: 8, 8 and 9 persons
    ],
)
def test_published_counts(whole, people, actions, counts):
    source = open_source(whole, people=people, actions=actions)
    sequences = {split: source.sequences(split, None) for split in SPLITS}
    assert tuple(len(sequences[split]) for split in SPLITS) == counts
    persons = {split: {one.name[:8] for one in sequences[split]} for split in SPLITS}
    assert len(set.union(*persons.values())) == sum(len(members) for members in persons.values()) == 25


def test_one_reading_alone_gives_the_counts_of_the_thesis():
    # Persons x scenarios x actions on either side, less the missing video where one of them has it.
    readings = {
        (trained, others, scenarios, actions, missing)
        for trained, others in itertools.product(range(1, 25), repeat=2)
        for scenarios, actions in itertools.product(range(1, 5), range(1, 7))
        for missing in ("train", "other", "none")
        if trained + others <= 25
        and trained * scenarios * actions - (missing == "train") == 255
        and others * scenarios * actions - (missing == "other") == 144
    }
    assert readings == {(16, 9, 4, 4, "train")}
    people = PEOPLE["thesis"]
    assert (len(people.train), len(people.validation) + len(people.test)) == (16, 9)
    assert 13 in people.train


def test_people_of_the_head_of_the_list():
    for split, word in zip(SPLITS, ("Training", "Validation", "Test"), strict=True):
        numbers = re.search(rf"{word}:\s+person(.*)", LIST)[1]
        assert getattr(PEOPLE["schuldt2004"], split) == tuple(int(number) for number in numbers.split(","))


def test_the_usual_split_keeps_its_test_persons():
    people = PEOPLE["16-9"]
    assert sorted([*people.train, *people.validation]) == list(range(1, 17))
    assert people.test == tuple(range(17, 26))


PERSONS = {"train": [1], "validation": [2], "test": [3]}


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"people": "16-8"}, r"'source.people': unknown preset '16-8': did you mean '16-9'"),
        (
            {"people": {**PERSONS, "test": [26]}},
            r"'source.people.test.0' = 26: input should be less than or equal to 25",
        ),
        ({"people": {**PERSONS, "test": [0]}}, r"'source.people.test.0' = 0: .*greater than or equal to 1"),
        ({"people": {**PERSONS, "test": []}}, r"'source.people.test' = \[\]: .*at least 1"),
        ({"people": {**PERSONS, "test": [3, 1]}}, r"'source.people': person 1 is in train and in test"),
        (
            {"people": {**PERSONS, "train": [1, 1]}},
            r"'source.people': person 1 is in train and in train: name a person",
        ),
        ({"people": {"train": [1]}}, r"missing key 'source.people.validation'"),
        ({"actions": ["dancing"]}, r"'source.actions.0' = 'dancing': input should be 'boxing', 'handclapping'"),
        ({"actions": []}, r"'source.actions' = \[\]: .*at least 1"),
        ({"scenarios": [5]}, r"'source.scenarios.0' = 5: .*less than or equal to 4"),
        ({"leave_out": ["person1_boxing_d4"]}, r"'source.leave_out': 'person1_boxing_d4' is no name of a video"),
        ({"leave_out": ["person01_boxin_d4"]}, r"unknown action 'boxin': did you mean 'boxing'"),
        ({"size": [64]}, r"'source.size' = .*at least 2"),
        ({"size": [64, 0]}, r"'source.size.1' = 0"),
        ({"colour": True}, r"unknown key 'source.colour'"),
    ],
)
def test_settings_that_do_not_fit(values, changes, complaint):
    with pytest.raises(ConfigError, match=complaint):
        source_settings({**values, **changes})


ENTRIES = "".join(f"{name} frames 1-40\n" for name in RANGES if name != "person22_boxing_d1")


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("", r"list.txt: names no video"),
        ("Head only\n\n", r"list.txt: names no video"),
        (ENTRIES + "person22_boxing_d1 frames 1-9, 30-41", r"line 6: frames 30-41 of person22_boxing_d1, which has 40"),
        (ENTRIES + "person22_boxing_d1 frames 1-9, 30", r"line 6: '30' is no range of frames"),
        (ENTRIES + "person22_boxing_d1 frames 1-9,", r"line 6: '' is no range of frames"),
        (ENTRIES + "person22_boxing_d1 frames 0-9", r"line 6: '0-9' is no range of frames: .*counted from 1"),
        (ENTRIES + "person22_boxing_d1 frames 9-1", r"line 6: '9-1' is no range of frames"),
        (ENTRIES + "person22_boxing_d1 frames 1-9, 1-9", r"line 6: the range 1-9 comes twice"),
        (ENTRIES + "person22_boxing_d1 frames", r"line 6: 'person22_boxing_d1 frames' can't be read"),
        (ENTRIES + "\nwhat is this", r"line 7: 'what is this' can't be read"),
        (ENTRIES + "person26_boxing_d1 frames 1-9", r"line 6: unknown person 26 in 'person26_boxing_d1'"),
        (ENTRIES + "person22_jumping_d1 frames 1-9", r"line 6: unknown action 'jumping'"),
        (ENTRIES + "person22_boxing_d5 frames 1-9", r"line 6: unknown scenario d5"),
        (ENTRIES + "person22_boxing frames 1-9", r"line 6: 'person22_boxing' is no name of a video"),
        (ENTRIES + "person11_boxing_d1 frames 1-9", r"line 6: person11_boxing_d1 comes twice, first in .*line 3"),
        (ENTRIES, r"person22_boxing_d1_uncomp.avi: the list of sequences does not name it.*'leave_out'"),
        (ENTRIES + "person22_boxing_d1 *missing*", r"person22_boxing_d1_uncomp.avi: .*line 6 calls it missing"),
    ],
)
def test_lists_that_do_not_fit(values, tmp_path, text, complaint):
    with pytest.raises(DataError, match=complaint):
        open_source(with_list(values, tmp_path, text))


def test_lists_that_cannot_be_read(values, tmp_path):
    with pytest.raises(DataError, match=r"none.txt: the list of sequences can't be read"):
        open_source(values, sequence_list=str(tmp_path / "none.txt"))
    (tmp_path / "bytes.txt").write_bytes(b"person01\xff")
    with pytest.raises(DataError, match=r"bytes.txt: the list of sequences can't be read"):
        open_source(values, sequence_list=str(tmp_path / "bytes.txt"))


@pytest.mark.parametrize(
    ("name", "complaint"),
    [
        ("clip.avi", r"clip.avi: a video is called personNN_ACTION_dN_uncomp.avi"),
        ("person01_boxing_d1.avi", r"person01_boxing_d1.avi: a video is called"),
        ("person1_boxing_d1_uncomp.avi", r"'person1_boxing_d1' is no name of a video"),
        ("person00_boxing_d1_uncomp.avi", r"unknown person 0 in 'person00_boxing_d1': there are 1 to 25"),
        ("person01_joging_d1_uncomp.avi", r"unknown action 'joging': did you mean 'jogging'"),
        ("person01_boxing_d0_uncomp.avi", r"unknown scenario d0 in"),
    ],
)
def test_names_that_do_not_fit(tmp_path, name, complaint):
    (tmp_path / name).touch()
    with pytest.raises(DataError, match=complaint):
        open_source({"key": "kth", "videos": str(tmp_path)})


def test_folders_that_do_not_fit(values, tmp_path):
    with pytest.raises(DataError, match=r"none: no such folder of videos"):
        open_source(values, videos=str(tmp_path / "none"))
    with pytest.raises(
        DataError, match=r"no video \(.*\) for train: persons 11, 12, .*; actions boxing, .*; scenarios 1, 2, 3, 4"
    ):
        open_source(values, videos=str(tmp_path))
    with pytest.raises(DataError, match=r"no video \(.*\) for test: persons 22, .*; actions handclapping; scenarios"):
        open_source(values, actions=["handclapping"])
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "person01_boxing_d1_uncomp.avi").touch()
    with pytest.raises(DataError, match=r"are one video by name; keep one"):
        open_source(values, videos=str(tmp_path))


def test_a_damaged_video_can_be_left_out(tmp_path):
    # The published archive has one: person01_boxing_d4 stops before its header says.
    for name in ("person01_boxing_d3", "person01_boxing_d4", "person15_boxing_d1", "person17_boxing_d1"):
        write_avi(tmp_path / f"{name}_uncomp.avi", [picture(name, number) for number in range(1, 20)])
    path = tmp_path / "person01_boxing_d4_uncomp.avi"
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    values = {"key": "kth", "videos": str(tmp_path)}
    with pytest.raises(DataError, match=r"person01_boxing_d4_uncomp.avi: .*; a video that 'leave_out' names"):
        open_source(values)
    source = open_source(values, leave_out=["person01_boxing_d4"])
    assert [one.name for one in source.sequences("train", None)] == ["person01_boxing_d3"]
