"""KTH actions: videos of 25 persons who box, clap, wave, jog, run and walk, split by person.

Shapes: N frames of a sequence, n frames read, H rows, W columns.
"""

import re
from collections import Counter
from pathlib import Path
from typing import Annotated, Literal, NamedTuple, get_args

import numpy as np
from pydantic import BeforeValidator, Field, field_validator, model_validator

from fieldcast.data.source import SourceKind
from fieldcast.data.splits import SPLITS
from fieldcast.data.video import Video, VideoConfig, VideoSequence
from fieldcast.errors import DataError
from fieldcast.settings import Count, Settings, TupleOf, look_up, nearest

Action = Literal["boxing", "handclapping", "handwaving", "jogging", "running", "walking"]
ACTIONS: tuple[Action, ...] = get_args(Action)
NUM_PERSONS = 25
NUM_SCENARIOS = 4

_NAME = re.compile(r"person(\d\d)_([a-z]+)_d(\d)", re.ASCII)
_ENTRY = re.compile(r"(person\S*)\s+(?:frames\s+(\S.*)|\*missing\*)", re.ASCII)
_RANGE = re.compile(r"\s*(\d+)\s*-\s*(\d+)\s*", re.ASCII)

Persons = Annotated[TupleOf[Annotated[int, Field(ge=1, le=NUM_PERSONS)]], Field(min_length=1)]


class People(Settings):
    """Which persons, by number, each split shows; nobody is in two."""

    train: Persons
    validation: Persons
    test: Persons

    @model_validator(mode="after")
    def _apart(self) -> "People":
        times = Counter([*self.train, *self.validation, *self.test])
        twice = next((person for person, count in times.items() if count > 1), None)
        if twice is not None:
            splits = [split for split in SPLITS for person in getattr(self, split) if person == twice]
            raise ValueError(f"person {twice} is in {' and in '.join(splits)}: name a person once")
        return self


PEOPLE = {
    # The usual one of video prediction trains on persons 1 to 16; here 15 and 16 validate, so that no test person does.
    "16-9": People(train=tuple(range(1, 15)), validation=(15, 16), test=tuple(range(17, 26))),
    # Schuldt et al. 2004, as the head of the list of sequences says.
    "schuldt2004": People(
        train=tuple(range(11, 19)), validation=(19, 20, 21, 23, 24, 25, 1, 4), test=(22, 2, 3, 5, 6, 7, 8, 9, 10)
    ),
    # The thesis, 5.6.1: 255 videos train, 144 validate and test. With four actions these are 16 and 9 persons,
    # person 13 among the 16; it doesn't say which, nor where validation ends.
    "thesis": People(train=tuple(range(1, 17)), validation=tuple(range(17, 21)), test=tuple(range(21, 26))),
}


class KTHConfig(Settings):
    """Where the videos and the list of sequences are, and which of them to read.

    ``videos`` is a folder, with folders in it or without, of files ``personNN_ACTION_dN_uncomp.avi``;
    ``sequence_list`` is the data set's ``00sequences.txt``, without which every file is one sequence; ``people`` is
    one of ``PEOPLE`` or three lists of numbers; ``leave_out`` names videos, such as ``person01_boxing_d4``, that are
    not read; ``size`` (H, W) cuts the largest middle part of that aspect out of each frame and resizes it; frames stay
    in memory, file by file, up to ``cache_megabytes``.
    """

    videos: str
    sequence_list: str | None = None
    people: Annotated[People, BeforeValidator(lambda value: _preset(value))] = PEOPLE["16-9"]
    actions: Annotated[TupleOf[Action], Field(min_length=1)] = ACTIONS
    scenarios: Annotated[TupleOf[Annotated[int, Field(ge=1, le=NUM_SCENARIOS)]], Field(min_length=1)] = (1, 2, 3, 4)
    leave_out: TupleOf[str] = ()
    size: Annotated[TupleOf[Count], Field(min_length=2, max_length=2)] | None = None
    cache_megabytes: int = Field(default=512, ge=0)

    @field_validator("leave_out")
    @classmethod
    def _names(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        for name in names:
            _read_name(name)
        return names


def _preset(value):
    return look_up(PEOPLE, value, "preset") if isinstance(value, str) else value


class KTH:
    """Grey videos of single persons; values are 0 to 255 of unit 1.

    Each range of frames in the list is a sequence of its own, of times from 0; ranges of one video may overlap, as
    some of the published ones do. Opening lists frames and decodes none.

    Schuldt et al. 2004 (ICPR 2004, "Recognizing human actions: a local SVM approach"), section 4; layout of the list
    by the data set's ``00sequences.txt``.

    Raises:
        DataError: where a file's name doesn't fit, a line can't be read or doesn't fit its video, a split has no
            video, or a video can't be read.
        MissingExtra: without PyAV.
    """

    kind: SourceKind = "divided"
    real_times = False
    calendar = Video.calendar

    def __init__(self, config: KTHConfig) -> None:
        root = Path(config.videos).expanduser()
        found = _find_videos(root)
        names = {split: _choose(found, config, split) for split in SPLITS}
        wanted = [name for split in SPLITS for name in names[split]]
        lines = _read_list(Path(config.sequence_list).expanduser()) if config.sequence_list is not None else None
        ranges = {name: None if lines is None else _line(lines, name, found[name]) for name in wanted}
        video = _open_videos([found[name] for name in wanted], config)
        self.variables, self.grid, self.value_range = video.variables, video.grid, video.value_range
        self.shape, self.cadence = video.shape, video.cadence
        opened = dict(zip(wanted, video.sequences("", None), strict=True))
        self._sequences = {
            split: [sequence for name in names[split] for sequence in _cut(name, opened[name], ranges[name])]
            for split in SPLITS
        }

    def sequences(self, split: str, count: int | None) -> list["KTHSequence"]:
        """The sequences of the split's persons, in order of person, action, scenario and line."""
        return list(self._sequences[split])


class KTHSequence:
    """Consecutive frames of a video: ``times`` (N,) int64 ns from the first of them, strictly ascending."""

    def __init__(self, name: str, video: VideoSequence, first: int, last: int) -> None:
        self.name = name
        self.times = video.times[first:last] - video.times[first]
        self._video = video
        self._positions = np.arange(first, last)

    def read(self, positions: np.ndarray, window: tuple[slice, slice] | None = None) -> np.ndarray:
        """Frames at the positions, (n, 1, H, W) float32 from 0 to 255.

        Raises:
            DataError: where a frame that the file lists cannot be decoded.
        """
        return self._video.read(self._positions[np.asarray(positions, dtype=np.int64)], window)


class _Name(NamedTuple):
    person: int
    action: str
    scenario: int


class _Line(NamedTuple):
    where: str  # the list and the line's number
    ranges: tuple[tuple[int, int], ...]  # first and last frame, counted from 1; none where the video is missing


def _read_name(text: str, where: str = "") -> _Name:
    """What a name such as person01_boxing_d1 says; ``where`` goes before a complaint."""
    match = _NAME.fullmatch(text)
    if not match:
        raise DataError(f"{where}'{text}' is no name of a video: write personNN_ACTION_dN, such as person01_boxing_d1")
    name = _Name(int(match[1]), match[2], int(match[3]))
    if not 1 <= name.person <= NUM_PERSONS:
        raise DataError(f"{where}unknown person {name.person} in '{text}': there are 1 to {NUM_PERSONS}")
    if name.action not in ACTIONS:
        raise DataError(f"{where}unknown action '{name.action}': {nearest(name.action, ACTIONS)}")
    if not 1 <= name.scenario <= NUM_SCENARIOS:
        raise DataError(f"{where}unknown scenario d{name.scenario} in '{text}': there are d1 to d{NUM_SCENARIOS}")
    return name


def _find_videos(root: Path) -> dict[str, Path]:
    """The videos in a folder and the folders in it, by name, in order of name."""
    if not root.is_dir():
        raise DataError(f"{root}: no such folder of videos (looked from {Path.cwd()})")
    found: dict[str, Path] = {}
    for path in sorted(root.rglob("*.avi"), key=lambda path: path.name):
        name = path.stem.removesuffix("_uncomp")
        if name == path.stem:
            raise DataError(f"{path}: a video is called personNN_ACTION_dN_uncomp.avi; take other AVI files away")
        _read_name(name, f"{path}: ")
        if name in found:
            raise DataError(f"{path} and {found[name]} are one video by name; keep one of them")
        found[name] = path
    return found


def _choose(found: dict[str, Path], config: KTHConfig, split: str) -> list[str]:
    """Names of the videos of a split."""
    persons = getattr(config.people, split)
    chosen = []
    for name in found.keys() - set(config.leave_out):
        person, action, scenario = _read_name(name)
        if person in persons and action in config.actions and scenario in config.scenarios:
            chosen.append(name)
    if not chosen:
        raise DataError(
            f"{config.videos}: no video (personNN_ACTION_dN_uncomp.avi) for {split}: persons {_listing(persons)}; "
            f"actions {_listing(config.actions)}; scenarios {_listing(config.scenarios)}"
        )
    return sorted(chosen)


def _listing(items: tuple) -> str:
    return ", ".join(str(item) for item in items)


def _read_list(path: Path) -> dict[str, _Line]:
    """The lines of a list of sequences by the video's name; text before the first of them is its head."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: the list of sequences can't be read: {error}") from None
    found: dict[str, _Line] = {}
    for number, line in enumerate(lines, 1):
        is_head = not found and not line.lstrip().startswith("person")
        if not line.strip() or is_head:
            continue
        where = f"{path}, line {number}"
        match = _ENTRY.fullmatch(line.strip())
        if not match:
            raise DataError(
                f"{where}: '{line.strip()}' can't be read: write 'person01_boxing_d1 frames 1-95, 96-185', "
                "or '*missing*' in place of the frames"
            )
        _read_name(match[1], f"{where}: ")
        if match[1] in found:
            raise DataError(f"{where}: {match[1]} comes twice, first in {found[match[1]].where}")
        found[match[1]] = _Line(where, _read_ranges(match[2], where) if match[2] else ())
    if not found:
        raise DataError(f"{path}: names no video: a line is 'person01_boxing_d1 frames 1-95, 96-185'")
    return found


def _read_ranges(text: str, where: str) -> tuple[tuple[int, int], ...]:
    ranges = []
    for part in text.split(","):
        match = _RANGE.fullmatch(part)
        if not match or not 1 <= int(match[1]) <= int(match[2]):
            raise DataError(f"{where}: '{part.strip()}' is no range of frames: write 'first-last', counted from 1")
        ranges.append((int(match[1]), int(match[2])))
    if len(set(ranges)) < len(ranges):
        twice = next(item for item in ranges if ranges.count(item) > 1)
        raise DataError(f"{where}: the range {twice[0]}-{twice[1]} comes twice")
    return tuple(ranges)


def _line(lines: dict[str, _Line], name: str, path: Path) -> _Line:
    if name not in lines or not lines[name].ranges:
        what = f"{lines[name].where} calls it missing" if name in lines else "the list of sequences does not name it"
        raise DataError(f"{path}: {what}; name its frames there, or name '{name}' in 'leave_out'")
    return lines[name]


def _open_videos(paths: list[Path], config: KTHConfig) -> Video:
    try:
        return Video(
            VideoConfig(
                paths=tuple(str(path) for path in paths), size=config.size, cache_megabytes=config.cache_megabytes
            )
        )
    except DataError as error:
        raise DataError(f"{error}; a video that 'leave_out' names is not opened") from error


def _cut(name: str, video: VideoSequence, line: _Line | None) -> list[KTHSequence]:
    """The sequences of a video: one for each range of its line, or the whole."""
    length = len(video.times)
    if line is None:
        return [KTHSequence(name, video, 0, length)]
    for first, last in line.ranges:
        if last > length:
            raise DataError(f"{line.where}: frames {first}-{last} of {name}, which has {length} ({video.index.path})")
    return [KTHSequence(f"{name} frames {first}-{last}", video, first - 1, last) for first, last in line.ranges]
