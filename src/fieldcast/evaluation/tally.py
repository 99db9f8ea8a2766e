"""Sums of every metric, kept apart by stretches of time, so that scores, intervals and seeds are made of one thing.

Shapes: U stretches, B batch, S lead times, C channels, H rows, W columns; K sums of a metric, D its further dimensions.
"""

import json
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors import safe_open
from safetensors.torch import save
from torch import Tensor

from fieldcast.data import Samples
from fieldcast.errors import DataError
from fieldcast.evaluation.spaces import Space
from fieldcast.files import write_atomic
from fieldcast.metrics import METRICS, Yardstick
from fieldcast.metrics.metric import per_lead_time
from fieldcast.processes import Processes

# Enough for a bootstrap, few enough that the sums of a million samples stay small.
MAX_STRETCHES = 256
TallyKey = tuple[str, str, str]  # space, model, name of the sums


class Stretch(NamedTuple):
    """Samples that follow one another in one sequence and whose sums are added up.

    ``time`` is the mean of their origins, int64 ns; ``numbers`` are theirs in the split.
    """

    sequence: int
    time: int
    numbers: tuple[int, ...]


class Compared(NamedTuple):
    """Forecasts (B, S, C, H, W) or, of an ensemble, (M, B, S, C, H, W), what was observed, and where it counts; of
    stations, forecasts (B, S, 1, R)."""

    predicted: Tensor
    observed: Tensor
    valid: Tensor

    def channels(self, channels: slice) -> "Compared":
        """Some of the variables."""
        before = (slice(None), slice(None))
        members = (slice(None),) * (self.predicted.ndim - self.observed.ndim)
        observed, valid = self.observed[*before, channels], self.valid[*before, channels]
        return Compared(self.predicted[*members, *before, channels], observed, valid)

    def of(self, samples: Tensor | None) -> "Compared":
        """Those of some samples of the batch; None: of all."""
        if samples is None:
            return self
        # Members come before samples.
        return Compared(*(field.index_select(field.ndim - self.observed.ndim, samples) for field in self))


@dataclass
class Tally:
    """Sums (U, K, *D, S) of each function of sums, by space and model.

    ``seconds`` are the lead times; where they are ``rounded``, each has the targets nearest to it. ``observed`` (U, 2)
    has the sum and the number of the valid observations of the first space: its series tells how
    long the weather remembers. ``in_time`` says whether stretches follow one another
    in time, or are independent draws. ``span`` is the time from the first to the last frame of a sample, ns.
    """

    spaces: list[Space]
    stretches: list[Stretch]
    seconds: list[float]
    in_time: bool
    span: int
    sums: dict[TallyKey, Tensor] = field(default_factory=dict)
    observed: Tensor = field(default_factory=lambda: torch.zeros(0))
    rounded: bool = False

    def __post_init__(self) -> None:
        if len(self.observed) != len(self.stretches):
            self.observed = torch.zeros(len(self.stretches), 2, dtype=torch.float64)

    @property
    def models(self) -> list[str]:
        """Names of the models, in the order they came."""
        return list(dict.fromkeys(model for _, model, _ in self.sums))

    @property
    def num_members(self) -> int:
        """Members of the ensembles among the models, 1 where there is none."""
        return max(space.yardstick.num_members for space in self.spaces)

    @property
    def fields(self) -> list[Space]:
        """The spaces as those of single forecasts."""
        return [replace(space, yardstick=space.yardstick._replace(num_members=1)) for space in self.spaces]

    def add(self, stretch: int, space: Space, model: str, compared: Compared, rows: Tensor | None = None) -> None:
        """Add a batch of the stretch with this number, compared in this space.

        ``rows`` (S,) says which lead time each target counts for; None: each for its own. The field of an ensemble is
        its mean.
        """
        predicted, observed, valid = compared
        members = predicted.ndim > observed.ndim
        functions = {metric.sums.__name__: metric for metric in space.metrics().values()}
        fields = predicted.mean(0) if members else predicted
        for name, metric in functions.items():
            if metric.takes == "members" and not members:
                continue
            new = metric.sums(predicted if metric.takes == "members" else fields, observed, valid, space.yardstick)
            key = (space.name, model, name)
            if key not in self.sums:
                shape = (len(self.stretches), *new.shape[:-1], len(self.seconds))
                self.sums[key] = torch.zeros(shape, dtype=torch.float64)
            if rows is None:
                self.sums[key][stretch] += new
            else:
                self.sums[key][stretch].index_add_(-1, rows, new)

    def observe(self, stretch: int, observed: Tensor, valid: Tensor) -> None:
        """Add to the series of what was observed."""
        values = torch.where(valid, observed, 0)
        self.observed[stretch] += torch.stack([per_lead_time(values).sum(), per_lead_time(valid).sum()])

    def include(self, part: tuple[dict[TallyKey, Tensor], Tensor]) -> None:
        """Add the sums, and the observations, of another process or chunk."""
        sums, observed = part
        self.observed = self.observed + observed
        for key, value in sums.items():
            self.sums[key] = self.sums[key] + value if key in self.sums else value

    def gather(self, processes: Processes) -> None:
        """Add up what all processes have."""
        parts = processes.gather((self.sums, self.observed))
        for rank, part in enumerate(parts):
            if rank != processes.rank:
                self.include(part)

    def scores(self, metric: str, space: str, model: str) -> Tensor:
        """One score for each stretch, over all its lead times: (U, *D)."""
        chosen = METRICS[metric]
        sums = self.sums[space, model, chosen.sums.__name__].sum(-1)
        yardstick = next(one.yardstick for one in self.spaces if one.name == space)
        return chosen.score(sums.transpose(0, 1), yardstick)


def make_stretches(samples: Samples, numbers: list[int]) -> list[Stretch]:
    """At most about ``MAX_STRETCHES`` stretches of these samples, none of them across two sequences of an archive."""
    size = -(-len(numbers) // MAX_STRETCHES)
    groups: list[list[int]] = []
    for number in numbers:
        same = groups and len(groups[-1]) < size
        if same and samples.source.kind != "generator":
            same = samples.starts[groups[-1][-1]][0] == samples.starts[number][0]
        if same:
            groups[-1].append(number)
        else:
            groups.append([number])
    stretches = []
    for group in groups:
        origins = [samples.origin(number) for number in group]
        stretches.append(Stretch(samples.starts[group[0]][0], sum(origins) // len(origins), tuple(group)))
    return stretches


def merge(tallies: list[Tally]) -> Tally:
    """Models of several tallies over the same stretches, in one, ensembles beside single forecasts.

    Raises:
        DataError: where they were not taken of the same samples.
    """
    first = max(tallies, key=lambda tally: tally.num_members)
    for other in tallies:
        same = (other.stretches, other.fields, other.seconds) == (first.stretches, first.fields, first.seconds)
        if not same or other.num_members not in (1, first.num_members):
            raise DataError(
                "these runs were scored on different samples, lead times, thresholds or numbers of members: "
                "no common table"
            )
    sums: dict[TallyKey, Tensor] = {}
    for tally in tallies:
        sums |= {key: value for key, value in tally.sums.items() if key not in sums}
    return replace(first, sums=sums)


def rename(tally: Tally, names: dict[str, str]) -> Tally:
    """The tally with only these models, under new names."""
    sums = {(space, names[model], key): value for (space, model, key), value in tally.sums.items() if model in names}
    return replace(tally, sums=sums)


def save_tally(tally: Tally, path: Path) -> None:
    """Write a tally as safetensors, whole or not at all."""
    tensors = {"\n".join(key): value.contiguous() for key, value in tally.sums.items()}
    described = {
        "spaces": [asdict(space) | {"yardstick": space.yardstick._asdict()} for space in tally.spaces],
        "stretches": tally.stretches,
        "seconds": tally.seconds,
        "in_time": tally.in_time,
        "span": tally.span,
        "models": tally.models,
        "rounded": tally.rounded,
    }
    content = {**tensors, "observed": tally.observed}
    write_atomic(path, save(content, {"tally": json.dumps(described)}))


def load_tally(path: Path) -> Tally | None:
    """Read what ``save_tally`` wrote, or None where there is none."""
    if not path.is_file():
        return None
    with safe_open(path, "pt") as file:
        described = json.loads(file.metadata()["tally"])
        tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 - it is no dictionary
    observed = tensors.pop("observed")
    keys = sorted(tensors, key=lambda key: described["models"].index(key.split("\n")[1]))
    return Tally(
        [_read_space(values) for values in described["spaces"]],
        [Stretch(sequence, time, tuple(numbers)) for sequence, time, numbers in described["stretches"]],
        described["seconds"],
        described["in_time"],
        described["span"],
        {_key(key): tensors[key] for key in keys},
        observed,
        described["rounded"],
    )


def _key(text: str) -> TallyKey:
    space, model, name = text.split("\n")
    return space, model, name


def _read_space(values: dict[str, Any]) -> Space:
    yardstick: dict[str, Any] = {key: _as_tuple(value) for key, value in values["yardstick"].items()}
    return Space(values["name"], values["channel"], Yardstick(**yardstick))


def _as_tuple(value: Any) -> Any:
    """JSON knows lists only."""
    return tuple(value) if isinstance(value, list) else value
