"""The strict base of every config model, and how its complaints are worded."""

import difflib
from typing import Annotated, Any, TypeVar, get_args

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from fieldcast.errors import ConfigError

Item = TypeVar("Item")
# TOML knows arrays only; strict pydantic takes tuples only.
TupleOf = Annotated[tuple[Item, ...], BeforeValidator(lambda value: tuple(value) if isinstance(value, list) else value)]

Count = Annotated[int, Field(ge=1)]
OddSize = Annotated[int, Field(ge=1), AfterValidator(lambda size: _odd(size))]

SettingsType = TypeVar("SettingsType", bound="Settings")
LISTED = 60  # names in a message: all models, all settings of a table, not all rivers of a country


class Settings(BaseModel):
    """A frozen table of settings: an unknown key, a missing key or a wrong type is an error."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, allow_inf_nan=False, validate_default=True)


def _odd(size: int) -> int:
    if size % 2 == 0:
        raise ValueError(f"{size} is even: a kernel that keeps the map's size is odd")
    return size


def nearest(name: str, allowed) -> str:
    """Say which of the allowed names is meant, and list them, of very many some: ``did you mean 'trajgru'?``"""
    names = sorted(str(item) for item in allowed)
    close = difflib.get_close_matches(str(name), names, n=1)
    more = f" and {len(names) - LISTED} more" if len(names) > LISTED else ""
    listing = ", ".join(names[:LISTED]) + more
    return f"did you mean '{close[0]}'? (allowed: {listing})" if close else f"allowed: {listing}"


def merge_tables(first: dict[str, Any], second: dict[str, Any]) -> dict[str, Any]:
    """Both tables in one, tables inside them likewise; where both have a key, the second one's value."""
    merged = dict(first)
    for key, value in second.items():
        both = isinstance(value, dict) and isinstance(first.get(key), dict)
        merged[key] = merge_tables(first[key], value) if both else value
    return merged


def look_up(table: dict, key: str, what: str):
    """Take ``table[key]``, or say what is wrong with the key.

    Raises:
        ConfigError: where the table has no such key.
    """
    if not isinstance(key, str) or key not in table:
        raise ConfigError(f"unknown {what} '{key}': {nearest(key, table)}")
    return table[key]


def read_settings(model: type[SettingsType], values: dict, where: str, also: tuple[str, ...] = ()) -> SettingsType:
    """Make ``model`` from plain values, with every fault of theirs in one error.

    Args:
        model: the settings to make.
        values: what a file says.
        where: the table's name.
        also: keys of the same table that somebody else reads, so that a slip in one of them is understood.

    Raises:
        ConfigError: that names each key, what came, and what is allowed.
    """
    try:
        return model.model_validate(values)
    except ValidationError as error:
        # The members of a union complain one by one, about the same place.
        places: dict[str, list[str]] = {}
        for fault in error.errors():
            if fault["type"] == "literal_error" and isinstance(fault["input"], dict):
                continue  # a table came where a word may stand too: its own faults say more
            start, reason = _complaint(model, fault, where, also)
            places.setdefault(start, []).append(reason)
        lines = [start + " or ".join(dict.fromkeys(reasons)) for start, reasons in places.items()]
        raise ConfigError("; ".join(lines)) from None


def _complaint(model: type[Settings], fault: Any, where: str, also: tuple[str, ...]) -> tuple[str, str]:
    """Where a fault is, and what it is."""
    names, fields = [where] if where else [], dict(model.model_fields)
    for place, part in enumerate(fault["loc"], 1):
        own = fault["type"] == "extra_forbidden" and place == len(fault["loc"])
        if isinstance(part, str) and part not in fields and not own:
            continue  # the name of a member of a union
        names.append(str(part))
        if part in fields:
            fields = _fields_of(fields[part].annotation)
    path = ".".join(names)
    if fault["type"] == "extra_forbidden":
        return f"unknown key '{path}': ", nearest(
            fault["loc"][-1], [*fields, *(also if len(fault["loc"]) == 1 else ())]
        )
    if fault["type"] == "missing":
        return f"missing key '{path}'", ""
    if fault["type"] == "model_type":
        return f"'{path}' = {fault['input']!r}: ", "a table is wanted"
    if fault["type"] == "value_error":
        return f"'{path}': ", str(fault["ctx"]["error"])
    return f"'{path}' = {fault['input']!r}: ", fault["msg"][0].lower() + fault["msg"][1:]


def _fields_of(annotation: Any) -> dict[str, Any]:
    """Keys of the table that a setting is or may be."""
    members = [annotation, *get_args(annotation)]
    tables = [member for member in members if isinstance(member, type) and issubclass(member, Settings)]
    return dict(tables[0].model_fields) if tables else {}
