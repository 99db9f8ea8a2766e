"""Units: spellings and linear conversions, against values known from elsewhere."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fieldcast.data.units import conversion, converted_attributes, normalise
from fieldcast.errors import DataError

FIVE_MINUTES = 300 * 10**9
GROUPS = [
    ["mm/h", "kg m-2 s-1", "mm s-1", "mm/day", "mm/min", "mm", "kg m-2"],
    ["K", "degC", "degF"],
    ["m3/s", "l/s"],
    ["Pa", "hPa", "kPa"],
    ["m/s", "km/h", "kt"],
    ["1", "%"],
    ["m", "cm", "km", "mm"],
]
PAIRS = [(first, second) for group in GROUPS for first in group for second in group]


@pytest.mark.parametrize(
    ("spellings", "normal"),
    [
        (
            ["mm/h", "mm h-1", "mm/hr", "mm hour^-1", "mm h**-1", "h-1 mm", "mm/(hour)", "mm·h⁻¹", "millimeters/hour"],
            "mm h-1",
        ),
        (["kg m-2 s-1", "kg/m2/s", "kg m**-2 s**-1", "kg/(m^2 s)", "kg.m-2.s-1"], "kg m-2 s-1"),
        (["m3/s", "m3 s-1", "m^3/s", "m³/s", "m**3 s**-1", "cumecs"], "m3 s-1"),
        (["degC", "°C", "Celsius", "degrees_Celsius"], "degc"),
        (["1", "", "dimensionless"], "1"),
        (["dBZ", "dbz"], "dbz"),
        (["%", "percent"], "%"),
    ],
)
def test_spellings(spellings, normal):
    assert {normalise(spelling) for spelling in spellings} == {normal}


@pytest.mark.parametrize(
    ("value", "source", "target", "name", "wanted"),
    [
        (1.0, "kg m-2 s-1", "mm/h", "", 3600.0),
        (1.0, "mm", "mm/h", "", 12.0),
        (1.0, "kg", "mm h-1", "rainfall_amount", 12.0),
        (0.001, "m", "mm/h", "precipitation_amount", 12.0),
        (12.0, "mm/h", "kg m-2", "", 1.0),
        (1e-6, "m s-1", "mm/h", "lwe_precipitation_rate", 3.6),
        (24.0, "mm/day", "mm/h", "", 1.0),
        (20.0, "degC", "K", "", 293.15),
        (212.0, "degF", "degC", "", 100.0),
        (1.0, "m", "mm", "", 1000.0),
        (1.0, "kt", "m/s", "", 0.514444),
        (50.0, "%", "1", "", 0.5),
    ],
)
def test_known_values(value, source, target, name, wanted):
    factor, offset = conversion(source, target, FIVE_MINUTES, name)
    assert factor * value + offset == pytest.approx(wanted, rel=1e-6)


@given(st.sampled_from(PAIRS), st.floats(-1e4, 1e4), st.integers(1, 10**15))
def test_there_and_back(pair, value, cadence):
    factor, offset = conversion(*pair, cadence)
    back, back_offset = conversion(*pair[::-1], cadence)
    assert back * (factor * value + offset) + back_offset == pytest.approx(value, rel=1e-9, abs=1e-9)


@pytest.mark.parametrize(
    ("source", "target", "message"),
    [
        ("furlong", "mm/h", "'rain': unknown units 'furlong'.*accepted: mm/h"),
        ("mm/h", "furlong", "unknown units 'furlong'"),
        ("K", "mm/h", "'K' .temperature. cannot become 'mm/h' .rate."),
        ("dBZ", "mm/h", "reflectivity"),
        ("kg", "mm/h", "unknown units 'kg'"),
        ("m", "mm/h", "length"),
    ],
)
def test_what_cannot_be_converted_is_refused(source, target, message):
    with pytest.raises(DataError, match=message):
        conversion(source, target, FIVE_MINUTES, variable="rain")


def test_the_same_unknown_units_need_no_conversion():
    assert conversion("furlong", "furlong", FIVE_MINUTES) == (1.0, 0.0)


def test_an_amount_that_became_a_rate_is_named_a_rate():
    attributes = {"standard_name": "rainfall_amount", "long_name": "5-minute sum", "source": "radar"}
    assert converted_attributes(attributes, "mm/h") == {"standard_name": "rainfall_rate", "source": "radar"}
    assert converted_attributes(attributes, "mm") == attributes
