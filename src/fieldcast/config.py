"""A run's configuration: TOML in, checked settings out."""

import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fieldcast.data import SourceSettings, source_settings
from fieldcast.data.sampling import SamplingSettings
from fieldcast.data.splits import SplitSettings
from fieldcast.data.windows import WindowSettings
from fieldcast.errors import ConfigError
from fieldcast.evaluation_settings import EvaluationSettings
from fieldcast.losses import LossConfig
from fieldcast.models import MODELS, ModelSettings, model_settings
from fieldcast.settings import nearest, read_settings
from fieldcast.training_settings import TrainingSettings

TABLES = ("source", "windows", "sampling", "splits", "model", "loss", "training", "evaluation")
ALLOWED = ("name", "seed", *TABLES)


@dataclass(frozen=True)
class RunConfig:
    """Everything that decides a run; ``values`` are the plain TOML values it was read from."""

    name: str
    seed: int
    source: SourceSettings
    windows: WindowSettings
    sampling: SamplingSettings
    splits: SplitSettings
    model_key: str
    model: ModelSettings
    loss: LossConfig
    training: TrainingSettings
    evaluation: EvaluationSettings
    values: dict[str, Any]

    def resolved(self) -> dict[str, Any]:
        """Every setting with its default filled in, as plain types."""
        normalizer = self.source.normalizer.model_dump(mode="json")
        return {
            "name": self.name,
            "seed": self.seed,
            "source": {"key": self.source.key, **self.source.settings.model_dump(mode="json"), **normalizer},
            "windows": self.windows.model_dump(mode="json"),
            "sampling": self.sampling.model_dump(mode="json"),
            "splits": self.splits.model_dump(mode="json"),
            "model": {"key": self.model_key, **self.model.model_dump(mode="json")},
            "loss": self.loss.model_dump(mode="json"),
            "training": self.training.model_dump(mode="json"),
            "evaluation": self.evaluation.model_dump(mode="json"),
        }


def read_config(values: dict[str, Any], where: str = "config") -> RunConfig:
    """Check plain values and report every fault at once.

    Raises:
        ConfigError: that names each key, what came, and what is allowed.
    """
    faults: list[str] = [f"unknown key '{key}': {nearest(key, ALLOWED)}" for key in values if key not in ALLOWED]
    values = {"sampling": {}, "evaluation": {}, **values}
    faults += [f"missing table [{table}]" for table in TABLES if not isinstance(values.get(table), dict)]
    name, seed = values.get("name"), values.get("seed", 0)
    if not isinstance(name, str) or not name or "/" in name:
        faults.append(f"'name' = {name!r}: a short text without '/'")
    if not isinstance(seed, int) or isinstance(seed, bool) or seed < 0:
        faults.append(f"'seed' = {seed!r}: a whole number from 0")
    readers = {
        "source": source_settings,
        "windows": lambda table: read_settings(WindowSettings, table, "windows"),
        "sampling": lambda table: read_settings(SamplingSettings, table, "sampling"),
        "splits": lambda table: read_settings(SplitSettings, table, "splits"),
        "model": model_settings,
        "loss": lambda table: read_settings(LossConfig, table, "loss"),
        "training": lambda table: read_settings(TrainingSettings, table, "training"),
        "evaluation": lambda table: read_settings(EvaluationSettings, table, "evaluation"),
    }
    read: dict[str, Any] = {}
    for table, reader in readers.items():
        if isinstance(values.get(table), dict):
            try:
                read[table] = reader(values[table])
            except ConfigError as error:
                faults.append(str(error))
    faults += _misfits(read.get("sampling"), read.get("windows"))
    faults += _unknown_baselines(read.get("evaluation"))
    if "model" in read and "evaluation" in read:
        faults += _members_without_draws(read["model"][0], read["evaluation"])
    if faults:
        raise ConfigError(f"{where}: " + "; ".join(faults))
    model_key, model = read.pop("model")
    return RunConfig(name=str(name), seed=int(seed), model_key=model_key, model=model, values=values, **read)


def _misfits(sampling: SamplingSettings | None, windows: WindowSettings | None) -> list[str]:
    if sampling is None or windows is None:
        return []
    try:
        sampling.plan(windows)
    except ConfigError as error:
        return [str(error)]
    return []


def _unknown_baselines(evaluation: EvaluationSettings | None) -> list[str]:
    known = [key for key, row in MODELS.items() if not row.forecaster.trained]
    wrong = [key for key in evaluation.baselines if key not in known] if evaluation is not None else []
    return [f"'evaluation.baselines': unknown baseline '{key}': {nearest(key, known)}" for key in wrong]


def _members_without_draws(key: str, evaluation: EvaluationSettings) -> list[str]:
    if evaluation.num_members is None or MODELS[key].forecaster.draws:
        return []
    drawing = ", ".join(key for key, row in MODELS.items() if row.forecaster.draws)
    return [f"'evaluation.num_members' = {evaluation.num_members}: '{key}' has one forecast; {drawing} draw others"]


def read_toml(path: Path | str, overrides: tuple[str, ...] = ()) -> dict[str, Any]:
    """Plain values of a TOML file, with ``table.key=value`` overrides.

    Raises:
        ConfigError: for a missing file, wrong bytes or wrong syntax, with the place.
    """
    path = Path(path)
    try:
        data = path.read_bytes()
    except OSError as error:
        raise ConfigError(f"{path}: can't be read ({error.strerror})") from None
    try:
        text = data.decode("utf-8").removeprefix("\ufeff")
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path}: not UTF-8 at byte {error.start}: save it as UTF-8") from None
    try:
        values = tomllib.loads(text.replace("\r\n", "\n"))
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{path}: {error}") from None
    for override in overrides:
        _override(values, override)
    return values


def load_config(path: Path | str, overrides: tuple[str, ...] = ()) -> RunConfig:
    """Read and check a TOML file; see ``read_toml`` and ``read_config``."""
    return read_config(read_toml(path, overrides), str(path))


def differences(before: dict[str, Any], after: dict[str, Any], place: str = "") -> set[str]:
    """Paths (``training.num_steps``) of what two sets of plain values don't have in common."""
    found: set[str] = set()
    for key in before.keys() | after.keys():
        pair, path = (before.get(key), after.get(key)), f"{place}{key}"
        if all(isinstance(value, dict) for value in pair):
            found |= differences(pair[0] or {}, pair[1] or {}, f"{path}.")
        elif pair[0] != pair[1]:
            found.add(path)
    return found


def _override(values: dict[str, Any], override: str) -> None:
    place, separator, text = override.partition("=")
    if not separator:
        raise ConfigError(f"'{override}': an override is table.key=value")
    try:
        value = tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        value = text
    *tables, key = place.strip().split(".")
    for table in tables:
        values = values.setdefault(table, {})
        if not isinstance(values, dict):
            raise ConfigError(f"'{override}': '{table}' is no table")
    values[key] = value
