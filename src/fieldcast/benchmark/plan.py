"""What a benchmark is made of: its TOML file, and the job of every combination."""

import re
from collections import Counter
from dataclasses import dataclass
from fnmatch import fnmatchcase
from itertools import product
from pathlib import Path
from typing import Annotated, Any

import torch
from pydantic import AfterValidator, Field, create_model

from fieldcast.config import ALLOWED, RunConfig, read_config, read_toml
from fieldcast.errors import ConfigError
from fieldcast.models import MODELS
from fieldcast.run import build_model
from fieldcast.settings import Settings, TupleOf, merge_tables, nearest, read_settings

TABLES = tuple(key for key in ALLOWED if key not in ("name", "seed"))
KINDS = ("sources", "samplings", "models")
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
Names = Annotated[TupleOf[Name], Field(min_length=1)]
Seeds = Annotated[TupleOf[Annotated[int, Field(ge=0)]], Field(min_length=1), AfterValidator(_check_seeds)]
PlainTable = dict[str, Any]

# Whatever tables a run's configuration has; what is in them is checked when they are put together.
_TABLE_FIELDS: dict[str, Any] = {table: (PlainTable, Field(default_factory=dict)) for table in TABLES}
_PATTERN_FIELDS: dict[str, Any] = {kind: (dict[str, PlainTable], Field(default_factory=dict)) for kind in KINDS}
CommonSettings = create_model("CommonSettings", __base__=Settings, **_TABLE_FIELDS)
PartSettings = create_model("PartSettings", __base__=CommonSettings, name=(Name, ...))
ModelPartSettings = create_model("ModelPartSettings", __base__=PartSettings, samplings=(Names | None, None))
BudgetSettings = create_model(
    "BudgetSettings", __base__=CommonSettings, seeds=(Seeds | None, None), **_PATTERN_FIELDS
)  # fmt: skip


class BenchmarkSettings(Settings):
    """A benchmark: tables that all jobs share, lists of named parts that are combined with one another, and budgets.

    A model with ``samplings`` is combined with these only, so that it may come again, with other tables, for others.
    A budget has tables that come over those of all jobs, under ``models``, ``sources`` and ``samplings`` tables for
    the parts whose name fits a pattern (``"trajgru*"``), and perhaps ``seeds``.
    """

    name: Name
    seeds: Seeds = (0,)
    common: PlainTable = Field(default_factory=dict)
    models: Annotated[TupleOf[PlainTable], Field(min_length=1)]
    sources: TupleOf[PlainTable] = ()
    samplings: TupleOf[PlainTable] = ()
    budgets: dict[Name, PlainTable] = Field(default_factory=dict)


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
    def label(self) -> str:
        """What tables call its model: its name, and whether it was made to ignore times."""
        return self.config.model.name_in_tables(self.model)

    @property
    def group(self) -> tuple[str, str]:
        """Jobs with the same source and sampling are compared with one another."""
        return self.source, self.sampling


@dataclass(frozen=True)
class Plan:
    """A benchmark's name and jobs, seeds innermost."""

    name: str
    jobs: tuple[Job, ...]


def load_plan(config: Path | str | dict[str, Any], budget: str | None = None) -> Plan:
    """Read a benchmark from a TOML file or plain values; see ``read_plan``."""
    where = "benchmark" if isinstance(config, dict) else str(config)
    return read_plan(config if isinstance(config, dict) else read_toml(config), where, budget)


def read_plan(values: dict[str, Any], where: str, budget: str | None = None) -> Plan:
    """Combine every source, sampling and model with every seed, and check what comes out.

    A job's tables are those of [common], then of its source, its sampling and its model, then of the budget: for all,
    for its source, its sampling and its model; where two say the same key, the later wins. A budget's name goes into
    the benchmark's.

    Raises:
        ConfigError: that names each key of each faulty part or job.
    """
    try:
        settings = read_settings(BenchmarkSettings, values, "")
        chosen = _choose_budget(settings, budget)
    except ConfigError as error:
        raise ConfigError(f"{where}: {error}") from None
    faults = _part_faults(settings) or _name_faults(settings)
    if faults:
        raise ConfigError(f"{where}: " + "; ".join(faults))
    jobs: list[Job] = []
    for source, sampling, model in product(settings.sources or ({},), settings.samplings or ({},), settings.models):
        if not _meet(model, sampling):
            continue
        try:
            jobs += _jobs(settings, {"sources": source, "samplings": sampling, "models": model}, chosen)
        except ConfigError as error:
            faults.append(str(error))
    if faults:
        raise ConfigError(f"{where}: " + "; ".join(faults))
    return Plan(settings.name if budget is None else f"{settings.name}-{budget}", tuple(jobs))


def _choose_budget(settings: BenchmarkSettings, budget: str | None) -> PlainTable:
    if budget is None or budget in settings.budgets:
        return settings.budgets[budget] if budget is not None else {}
    there = nearest(budget, settings.budgets) if settings.budgets else f"the file has no table [budgets.{budget}]"
    raise ConfigError(f"unknown budget '{budget}': {there}")


def _part_faults(settings: BenchmarkSettings) -> list[str]:
    """What is wrong with a part by itself."""
    parts: list[tuple[type[Settings], PlainTable, str]] = [(CommonSettings, settings.common, "common")]
    for kind in KINDS:
        part_settings: type[Settings] = ModelPartSettings if kind == "models" else PartSettings
        parts += [(part_settings, part, f"{kind}[{number}]") for number, part in enumerate(getattr(settings, kind))]
    for name, budget in settings.budgets.items():
        parts.append((BudgetSettings, budget, f"budgets.{name}"))
        for kind in KINDS:
            tables = budget.get(kind, {})
            inner = tables.items() if isinstance(tables, dict) else ()
            parts += [(CommonSettings, table, f"budgets.{name}.{kind}.{pattern}") for pattern, table in inner]
    faults = []
    for expected, values, where in parts:
        try:
            read_settings(expected, values, where)
        except ConfigError as error:
            faults.append(str(error))
    return faults


def _name_faults(settings: BenchmarkSettings) -> list[str]:
    """Names that come twice, that are taken, or that something else refers to and that aren't there."""
    names = {kind: [part["name"] for part in getattr(settings, kind)] for kind in KINDS}
    faults = []
    for kind in ("sources", "samplings"):
        faults += [f"{kind}: the name '{name}' comes {n} times" for name, n in Counter(names[kind]).items() if n > 1]
    for sampling in settings.samplings or ({},):
        met = Counter(model["name"] for model in settings.models if _meet(model, sampling))
        place = f" in the sampling '{sampling['name']}'" if sampling else ""
        faults += [f"models: the name '{name}' comes {n} times{place}" for name, n in met.items() if n > 1]
    untrained = [key for key, row in MODELS.items() if not row.forecaster.trained]
    faults += [f"models: '{name}' is a baseline's name" for name in names["models"] if name in untrained]
    for number, model in enumerate(settings.models):
        unknown = [name for name in model.get("samplings", ()) if name not in names["samplings"]]
        faults += [f"models[{number}].samplings: no sampling '{name}': {nearest(name, names['samplings'])}"
                   for name in unknown]  # fmt: skip
    for budget, kind in product(settings.budgets, KINDS):
        patterns = settings.budgets[budget].get(kind, ())
        unfit = [pattern for pattern in patterns if not any(fnmatchcase(name, pattern) for name in names[kind])]
        faults += [f"budgets.{budget}.{kind}: '{pattern}' fits none of the {kind}: {nearest(pattern, set(names[kind]))}"
                   for pattern in unfit]  # fmt: skip
    return faults


def _meet(model: PlainTable, sampling: PlainTable) -> bool:
    """Whether a model is to be run with a sampling."""
    return "samplings" not in model or sampling.get("name") in model["samplings"]


def _jobs(settings: BenchmarkSettings, parts: dict[str, PlainTable], budget: PlainTable) -> list[Job]:
    """The jobs of one combination, one for each seed."""
    names = {kind: part.get("name", "") for kind, part in parts.items()}
    label = SEPARATOR.join(filter(None, names.values()))
    tables: PlainTable = {}
    for part in (settings.common, *parts.values(), budget):
        tables = merge_tables(tables, {key: value for key, value in part.items() if key in TABLES})
    for kind, name in names.items():
        for pattern, table in budget.get(kind, {}).items():
            tables = merge_tables(tables, table) if fnmatchcase(name, pattern) else tables
    jobs = []
    for seed in budget.get("seeds", settings.seeds):
        values = {"name": f"{label}{SEPARATOR}seed{seed}", "seed": seed, **tables}
        config = read_config(values, f"job {label}")
        jobs.append(Job(names["sources"], names["samplings"], names["models"], seed, config))
    key = jobs[0].config.model_key
    if not MODELS[key].forecaster.trained:
        raise ConfigError(f"job {label}: '{key}' needs no training and is in every table anyway: leave it out")
    if reason := _inability(jobs[0].config):
        raise ConfigError(
            f"job {label}: '{key}' {reason}: name the model's samplings without this one, or set ignore_times = true "
            "in its [model]"
        )
    return jobs


def _inability(config: RunConfig) -> str | None:
    """What keeps a job's model from taking the times of its sampling, as far as settings tell, or None."""
    plan, windows = config.sampling.plan(config.windows), config.windows
    between_frames = config.sampling.real_numbers and plan.targets[1] - plan.targets[0] + 1 > windows.num_targets
    irregular_inputs = config.sampling.jitter > 0 or plan.inputs[1] > windows.num_inputs
    irregular_targets = config.sampling.jitter > 0 or between_frames
    if config.model.ignore_times or not (irregular_inputs or irregular_targets):
        return None
    # What a model can take may depend on its parts: it has to be built, without memory.
    with torch.device("meta"):
        of_stations = MODELS[config.model_key].forecaster.forecasts_stations
        model = build_model(config, 1, ((1, 1), 1) if of_stations else None)
    return model.inability(not irregular_inputs, not irregular_targets, plan.between)
