"""What a benchmark is made of: its TOML file, and the job of every combination."""

import re
from collections import Counter
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Annotated, Any

from pydantic import AfterValidator, Field, create_model

from fieldcast.config import ALLOWED, RunConfig, read_config, read_toml
from fieldcast.errors import ConfigError
from fieldcast.models import MODELS
from fieldcast.settings import Settings, TupleOf, read_settings

TABLES = tuple(key for key in ALLOWED if key not in ("name", "seed"))
SEPARATOR = "--"


def _check_name(name: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", name) or SEPARATOR in name:
        raise ValueError(f"{name!r}: letters, digits, '.', '_' and single '-', for it names a folder")
    return name


def _check_seeds(seeds: tuple[int, ...]) -> tuple[int, ...]:
    if len(set(seeds)) < len(seeds):
        raise ValueError("each seed once")
    return seeds


Name = Annotated[str, AfterValidator(_check_name)]
Seeds = Annotated[TupleOf[Annotated[int, Field(ge=0)]], Field(min_length=1), AfterValidator(_check_seeds)]
PlainTable = dict[str, Any]

# Whatever tables a run's configuration has; what is in them is checked when they are put together.
_TABLE_FIELDS: dict[str, Any] = {table: (PlainTable, Field(default_factory=dict)) for table in TABLES}
CommonSettings = create_model("CommonSettings", __base__=Settings, **_TABLE_FIELDS)
PartSettings = create_model("PartSettings", __base__=CommonSettings, name=(Name, ...))


class BenchmarkSettings(Settings):
    """A benchmark: tables that all jobs share, and lists of named parts that are combined with one another."""

    name: Name
    seeds: Seeds = (0,)
    common: PlainTable = Field(default_factory=dict)
    models: Annotated[TupleOf[PlainTable], Field(min_length=1)]
    sources: TupleOf[PlainTable] = ()
    samplings: TupleOf[PlainTable] = ()


@dataclass(frozen=True)
class Job:
    """One run of a benchmark; ``source`` and ``sampling`` are empty where the benchmark has none."""

    source: str
    sampling: str
    model: str
    seed: int
    config: RunConfig

    @property
    def name(self) -> str:
        """The name of its folder: source--sampling--model--seed0."""
        return self.config.name

    @property
    def group(self) -> tuple[str, str]:
        """Jobs with the same source and sampling are compared with one another."""
        return self.source, self.sampling


@dataclass(frozen=True)
class Plan:
    """A benchmark's name and jobs, seeds innermost."""

    name: str
    jobs: tuple[Job, ...]


def load_plan(config: Path | str | dict[str, Any]) -> Plan:
    """Read a benchmark from a TOML file or plain values; see ``read_plan``."""
    return read_plan(config, "benchmark") if isinstance(config, dict) else read_plan(read_toml(config), str(config))


def read_plan(values: dict[str, Any], where: str) -> Plan:
    """Combine every source, sampling and model with every seed, and check what comes out.

    A job's tables are those of [common], then of its source, its sampling and its model; where two say the same key,
    the later wins.

    Raises:
        ConfigError: that names each key of each faulty part or job.
    """
    try:
        settings = read_settings(BenchmarkSettings, values, "")
    except ConfigError as error:
        raise ConfigError(f"{where}: {error}") from None
    faults: list[str] = []
    try:
        read_settings(CommonSettings, settings.common, "common")
    except ConfigError as error:
        faults.append(str(error))
    models, sources, samplings = (
        _read_parts(kind, getattr(settings, kind), faults) for kind in ("models", "sources", "samplings")
    )
    untrained = [key for key, row in MODELS.items() if not row.forecaster.trained]
    faults += [f"models: '{model['name']}' is a baseline's name" for model in models if model.get("name") in untrained]
    if faults:
        raise ConfigError(f"{where}: " + "; ".join(faults))
    jobs: list[Job] = []
    for source, sampling, model in product(sources or [{}], samplings or [{}], models):
        try:
            jobs += _jobs(settings, source, sampling, model)
        except ConfigError as error:
            faults.append(str(error))
    if faults:
        raise ConfigError(f"{where}: " + "; ".join(faults))
    return Plan(settings.name, tuple(jobs))


def _read_parts(kind: str, parts: tuple[PlainTable, ...], faults: list[str]) -> list[PlainTable]:
    """The parts of one list, each a name and tables; what is wrong goes to ``faults``."""
    for number, part in enumerate(parts):
        try:
            read_settings(PartSettings, part, f"{kind}[{number}]")
        except ConfigError as error:
            faults.append(str(error))
    names = Counter(str(part.get("name")) for part in parts)
    faults += [f"{kind}: the name '{name}' comes {count} times" for name, count in names.items() if count > 1]
    return list(parts)


def _jobs(settings: BenchmarkSettings, source: PlainTable, sampling: PlainTable, model: PlainTable) -> list[Job]:
    """The jobs of one combination, one for each seed."""
    names = [part.get("name", "") for part in (source, sampling, model)]
    label = SEPARATOR.join(filter(None, names))
    tables: PlainTable = {}
    for part in (settings.common, source, sampling, model):
        tables = merge_tables(tables, {key: value for key, value in part.items() if key != "name"})
    jobs = []
    for seed in settings.seeds:
        values = {"name": f"{label}{SEPARATOR}seed{seed}", "seed": seed, **tables}
        jobs.append(Job(names[0], names[1], names[2], seed, read_config(values, f"job {label}")))
    key = jobs[0].config.model_key
    if not MODELS[key].forecaster.trained:
        raise ConfigError(f"job {label}: '{key}' needs no training and is in every table anyway: leave it out")
    return jobs


def merge_tables(first: PlainTable, second: PlainTable) -> PlainTable:
    """Both tables in one, tables inside them likewise; where both have a key, the second one's value."""
    merged = dict(first)
    for key, value in second.items():
        both = isinstance(value, dict) and isinstance(first.get(key), dict)
        merged[key] = merge_tables(first[key], value) if both else value
    return merged
