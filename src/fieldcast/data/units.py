"""Units of measurement: one spelling for many, and linear conversions among those a field comes in."""

import re

from fieldcast.data.source import NANOSECONDS
from fieldcast.errors import DataError

_SYMBOLS = {
    **dict.fromkeys(("hr", "hrs", "hour", "hours"), "h"),
    **dict.fromkeys(("sec", "second", "seconds"), "s"),
    **dict.fromkeys(("minute", "minutes"), "min"),
    **dict.fromkeys(("day", "days"), "d"),
    **dict.fromkeys(("millimeter", "millimeters", "millimetre", "millimetres"), "mm"),
    **dict.fromkeys(("meter", "meters", "metre", "metres"), "m"),
    **dict.fromkeys(("kilogram", "kilograms"), "kg"),
    **dict.fromkeys(("kelvin", "degk", "deg_k"), "k"),
    **dict.fromkeys(
        ("c", "°c", "celsius", "deg_c", "degree_c", "degrees_c", "degree_celsius", "degrees_celsius"), "degc"
    ),
    **dict.fromkeys(("f", "°f", "fahrenheit", "deg_f", "degree_fahrenheit", "degrees_fahrenheit"), "degf"),
    **dict.fromkeys(("percent",), "%"),
    **dict.fromkeys(("knot", "knots"), "kt"),
    **dict.fromkeys(("mbar", "millibar", "millibars"), "hpa"),
    **dict.fromkeys(("foot", "feet"), "ft"),
    **dict.fromkeys(("litre", "litres", "liter", "liters"), "l"),
    **dict.fromkeys(("cumec", "cumecs", "cms"), "m3 s-1"),
    **dict.fromkeys(("cusec", "cusecs", "cfs"), "ft3 s-1"),
}
# Normalised spelling -> kind, factor and offset to the first unit of its kind: first = factor * value + offset.
_UNITS = {
    "mm h-1": ("rate", 1.0, 0.0),
    "kg h-1 m-2": ("rate", 1.0, 0.0),
    "kg m-2 s-1": ("rate", 3600.0, 0.0),
    "mm s-1": ("rate", 3600.0, 0.0),
    "mm min-1": ("rate", 60.0, 0.0),
    "mm d-1": ("rate", 1 / 24, 0.0),
    "mm": ("amount", 1.0, 0.0),
    "kg m-2": ("amount", 1.0, 0.0),
    "m": ("length", 1000.0, 0.0),
    "cm": ("length", 10.0, 0.0),
    "km": ("length", 1e6, 0.0),
    "k": ("temperature", 1.0, 0.0),
    "degc": ("temperature", 1.0, 273.15),
    "degf": ("temperature", 5 / 9, 273.15 - 32 * 5 / 9),
    "m3 s-1": ("flow", 1.0, 0.0),
    "l s-1": ("flow", 0.001, 0.0),
    "ft3 s-1": ("flow", 0.3048**3, 0.0),
    "m3 h-1": ("flow", 1 / 3600, 0.0),
    "m3 d-1": ("flow", 1 / 86400, 0.0),
    "m2": ("area", 1.0, 0.0),
    "km2": ("area", 1e6, 0.0),
    "dbz": ("reflectivity", 1.0, 0.0),
    "1": ("fraction", 1.0, 0.0),
    "%": ("fraction", 0.01, 0.0),
    "pa": ("pressure", 1.0, 0.0),
    "hpa": ("pressure", 100.0, 0.0),
    "kpa": ("pressure", 1000.0, 0.0),
    "m s-1": ("speed", 1.0, 0.0),
    "km h-1": ("speed", 1 / 3.6, 0.0),
    "kt": ("speed", 1852 / 3600, 0.0),
}
_ACCEPTED = (
    "mm/h, kg m-2 s-1, mm, kg m-2, m, cm, km, km2, K, degC, degF, m3/s, l/s, ft3/s, m3/d, dBZ, 1, %, Pa, hPa, kPa, "
    "m/s, km/h, kt"
)
_RATE_NAMES = {
    "rainfall_amount": "rainfall_rate",
    "thickness_of_rainfall_amount": "rainfall_rate",
    "precipitation_amount": "lwe_precipitation_rate",
    "lwe_thickness_of_precipitation_amount": "lwe_precipitation_rate",
}


def normalise(units: str) -> str:
    """Write units in one spelling: ``"mm/hr"``, ``"mm hour^-1"`` and ``"mm h**-1"`` are all ``"mm h-1"``.

    Positive powers come first, each group in order of the alphabet; "" and "dimensionless" are "1".
    """
    text = units.strip().casefold().replace("**", "").replace("^", "")
    text = re.sub(r"\.(?=[a-z])", " ", text.translate(str.maketrans("⁻¹²³·*", "-123  ")))
    numerator, *denominators = text.split("/")
    tokens = [_token(part, 1) for part in numerator.split()]
    tokens += [_token(part, -1) for group in denominators for part in group.strip(" ()").split()]
    powers = [token for token in " ".join(tokens).split() if token not in ("1", "dimensionless")]
    return " ".join(sorted(powers, key=lambda token: (re.search(r"-\d", token) is not None, token))) or "1"


def kind_of(units: str) -> str | None:
    """What units measure: "flow", "rate", "amount", "fraction", ...; None where they are unknown."""
    return _UNITS.get(normalise(units), (None,))[0]


def conversion(
    from_units: str, to_units: str, cadence_ns: int, standard_name: str = "", variable: str = "variable"
) -> tuple[float, float]:
    """Give factor and offset with which ``to = factor * from + offset``.

    An amount of rain (``mm``, ``kg m-2``) is what fell in one frame, so it becomes a rate by dividing by the
    cadence; ``m`` and the ``kg`` of some radar files are amounts where the CF standard name says so.
    ``variable`` is named in the error.

    Raises:
        DataError: for units that are unknown or do not measure the same thing.
    """
    source, target = normalise(from_units), normalise(to_units)
    if source == target:
        return 1.0, 0.0
    try:
        kind, factor, offset = _scale(source, standard_name)
        target_kind, target_factor, target_offset = _scale(target, standard_name)
    except KeyError as error:
        raise DataError(
            f"'{variable}': unknown units {error.args[0]!r} (asked to convert '{from_units}' to '{to_units}'; "
            f"accepted: {_ACCEPTED})"
        ) from None
    frames_per_hour = 3600 * NANOSECONDS / cadence_ns
    if (kind, target_kind) == ("amount", "rate"):
        factor *= frames_per_hour
    elif (kind, target_kind) == ("rate", "amount"):
        target_factor *= frames_per_hour
    elif kind != target_kind and {kind, target_kind} != {"amount", "length"}:
        raise DataError(
            f"'{variable}': '{from_units}' ({kind}) cannot become '{to_units}' ({target_kind}); accepted: {_ACCEPTED}"
        )
    return factor / target_factor, (offset - target_offset) / target_factor


def converted_attributes(attributes: dict, to_units: str) -> dict:
    """Keep CF attributes true after a conversion: an amount that became a rate is no longer called an amount."""
    name = attributes.get("standard_name", "")
    if name not in _RATE_NAMES or _UNITS.get(normalise(to_units), ("",))[0] != "rate":
        return attributes
    kept = {
        key: value
        for key, value in attributes.items()
        if key not in ("long_name", "cell_methods", "accumulation_minutes")
    }
    return {**kept, "standard_name": _RATE_NAMES[name]}


def _token(text: str, sign: int) -> str:
    """One factor such as ``h-1``, its power times ``sign``."""
    match = re.fullmatch(r"([a-z_°%]+)(-?\d+)?", text)
    if not match:
        return text
    symbol = _SYMBOLS.get(match[1], match[1])
    power = sign * int(match[2] or 1)
    return symbol if power == 1 or " " in symbol else f"{symbol}{power}"


def _scale(units: str, standard_name: str) -> tuple[str, float, float]:
    """Kind, factor and offset of normalised units; rain measured in other units is known by its standard name."""
    is_rain = any(word in standard_name for word in ("rainfall", "precipitation", "snowfall"))
    is_amount = is_rain and "amount" in standard_name
    if units == "kg" and is_amount:
        return _UNITS["kg m-2"]
    kind, factor, offset = _UNITS[units]
    if kind == "length" and is_amount:
        return "amount", factor, offset
    if kind == "speed" and is_rain and "rate" in standard_name:
        return "rate", 3.6e6 * factor, offset
    return kind, factor, offset
