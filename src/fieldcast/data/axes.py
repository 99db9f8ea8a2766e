"""Which dimension of a data set is time, which rows, which columns: found by name, never silently by position."""

from collections.abc import Sequence
from dataclasses import dataclass

import xarray as xr

from fieldcast.errors import DataError

_STANDARD_NAMES = {
    **dict.fromkeys(("latitude", "projection_y_coordinate", "grid_latitude"), "rows"),
    **dict.fromkeys(("longitude", "projection_x_coordinate", "grid_longitude"), "columns"),
    "time": "time",
}
_AXES = {"Y": "rows", "X": "columns", "T": "time", "Z": "other"}
_UNITS = {
    **dict.fromkeys(("degrees_north", "degree_north", "degrees_n", "degreen"), "rows"),
    **dict.fromkeys(("degrees_east", "degree_east", "degrees_e", "degreee"), "columns"),
}
_NAMES = {
    **dict.fromkeys(("y", "lat", "latitude", "row", "rows", "nj", "yc", "rlat", "south_north"), "rows"),
    **dict.fromkeys(("x", "lon", "longitude", "column", "columns", "ni", "xc", "rlon", "west_east", "col"), "columns"),
    **dict.fromkeys(("northing", "northings"), "rows"),
    **dict.fromkeys(("easting", "eastings"), "columns"),
    **dict.fromkeys(("time", "t", "date", "datetime", "valid_time"), "time"),
    **dict.fromkeys(("z", "level", "lev", "plev", "height", "depth", "altitude", "isobaricinhpa"), "other"),
    **dict.fromkeys(("number", "member", "ensemble", "realization", "step", "lead_time", "band", "channel"), "other"),
}


@dataclass(frozen=True)
class Axes:
    """Names of the dimensions of a field; ``time`` is None where a file holds one frame with a scalar time,
    and ``time_variable`` is the coordinate that holds the times."""

    time: str | None
    time_variable: str
    rows: str
    columns: str


@dataclass(frozen=True)
class AxisNames:
    """What the user says about the dimensions; None where it is to be found."""

    time: str | None = None
    rows: str | None = None
    columns: str | None = None


def find_axes(dataset: xr.Dataset, name: str, wanted: AxisNames, where: str) -> Axes:
    """Find the time, row and column dimension of the variable ``name``.

    A dimension is known by the CF attributes of its coordinate (axis, standard_name, units), else by a common
    name; two dimensions that nothing tells apart are rows and columns in their order, where no other is left.

    Raises:
        DataError: that shows the dimensions wanted and found, where they can't be told or others are left over.
    """
    sizes = {str(dim): size for dim, size in dataset[name].sizes.items()}
    found = ", ".join(f"{dim}={size}" for dim, size in sizes.items())
    problem = f"{where}: variable '{name}' has dimensions ({found})"
    time, time_variable = _find_time(dataset, list(sizes), wanted.time, problem)
    left = [dim for dim in sizes if dim != time]
    rows = _named(dataset, left, "rows", wanted.rows, problem)
    columns = _named(dataset, left, "columns", wanted.columns, problem)
    taken = (rows, columns)
    unknown = [
        dim for dim in left if dim not in taken and sizes[dim] > 1 and _kind(dataset, dim) not in ("time", "other")
    ]
    missing = taken.count(None)
    if missing and len(unknown) != missing:
        raise DataError(f"{problem}; wanted time, rows and columns: say which in 'rows' and 'columns'")
    rows = rows or unknown.pop(0)
    columns = columns or unknown.pop(0)
    extra = [dim for dim in left if dim not in (rows, columns) and sizes[dim] > 1]
    if rows == columns or extra:
        raise DataError(
            f"{problem}; wanted ({', '.join(str(dim) for dim in (time, rows, columns) if dim)}): "
            f"select one of '{', '.join(str(dim) for dim in extra) or rows}' beforehand"
        )
    return Axes(time, time_variable, rows, columns)


def _named(dataset: xr.Dataset, dims: Sequence[str], kind: str, wanted: str | None, problem: str) -> str | None:
    if wanted is not None:
        if wanted not in dims:
            raise DataError(f"{problem}; wanted '{wanted}' for the {kind}")
        return wanted
    fitting = [dim for dim in dims if _kind(dataset, dim) == kind]
    if len(fitting) > 1:
        raise DataError(f"{problem}; each of {', '.join(map(str, fitting))} could be the {kind}: say which in '{kind}'")
    return fitting[0] if fitting else None


def _find_time(dataset: xr.Dataset, dims: list[str], wanted: str | None, problem: str) -> tuple[str | None, str]:
    """Dimension of time, if there is one, and the variable that holds the times."""
    names = [str(name) for name in dataset.variables if _is_time(dataset, str(name))]
    if wanted is not None:
        names = [wanted] if wanted in dataset.variables else [n for n in names if dataset[n].dims == (wanted,)]
    along = [name for name in names if dataset[name].ndim == 1 and dataset[name].dims[0] in dims]
    own = [name for name in along if dataset[name].dims == (name,)] or along
    if len(own) > 1:
        own = [name for name in own if dataset[name].attrs.get("standard_name") == "time"] or own
    if len(own) == 1:
        return str(dataset[own[0]].dims[0]), own[0]
    scalars = [name for name in names if dataset[name].size == 1]
    if not own and len(scalars) == 1:
        return None, scalars[0]
    several = ", ".join(map(str, own or scalars))
    why = f"each of {several} could be the time" if several else f"no time coordinate was found{_hint(dims, wanted)}"
    raise DataError(f"{problem}; {why}: say which in 'time'")


def _hint(dims: list[str], wanted: str | None) -> str:
    if wanted is not None:
        return f" by the name '{wanted}'"
    named = [dim for dim in dims if _NAMES.get(str(dim).lower()) == "time"]
    return f" (dimension '{named[0]}' has no coordinate variable)" if named else ""


def _is_time(dataset: xr.Dataset, name: str) -> bool:
    variable = dataset[name].variable
    standard_name = variable.attrs.get("standard_name")
    if variable.ndim > 1 or standard_name not in (None, "time"):
        return False
    if standard_name == "time" or _kind(dataset, name) == "time":
        return True
    return variable.dtype.kind == "M" or " since " in str(variable.attrs.get("units", ""))


def _kind(dataset: xr.Dataset, dim: str) -> str | None:
    """What a dimension is: rows, columns, time, other, or None where nothing tells."""
    attributes = dataset[dim].attrs if dim in dataset.variables else {}
    told = (
        _AXES.get(str(attributes.get("axis", "")).upper()),
        _STANDARD_NAMES.get(str(attributes.get("standard_name", ""))),
        _UNITS.get(str(attributes.get("units", "")).lower()),
        _NAMES.get(str(dim).lower()),
    )
    return next((kind for kind in told if kind), None)
