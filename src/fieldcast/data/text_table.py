"""Tables as text (CSV): what separates cells and decimals is found out from all of the text, or refused, never guessed.

Shapes: N rows, K columns asked for.
"""

import csv
import logging
import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from fieldcast.errors import DataError

_log = logging.getLogger(__name__)
DecimalMark = Literal[".", ","]
_DELIMITERS = {";": "semicolon", "\t": "tab", ",": "comma"}
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?", re.ASCII)
# What is a number with a decimal comma as well as one with a comma between thousands.
_EITHER = re.compile(r"[+-]?[1-9]\d{0,2}(,\d{3})+", re.ASCII)


@dataclass(frozen=True)
class TextTable:
    """A header and N rows of cells, with the line of the file each row stands on."""

    where: str
    header: tuple[str, ...]
    rows: list[list[str]]
    lines: list[int]

    def column(self, place: int) -> list[str]:
        """All N cells of one column."""
        return [row[place] for row in self.rows]

    def numbers(
        self, places: Sequence[int], decimal: DecimalMark | None = None, missing: Collection[str] = ()
    ) -> np.ndarray:
        """The columns at the places as (N, K) float64; an empty cell, NaN, and a text in ``missing`` are NaN.

        Raises:
            DataError: for a cell that is no number, and where the decimal mark can't be told, with lines.
        """
        mark = decimal or self._decimal(places)
        unknown = {"", "nan", *(text.casefold() for text in missing)}
        values = np.full((len(self.rows), len(places)), np.nan)
        for number, (line, row) in enumerate(zip(self.lines, self.rows, strict=True)):
            for place, column in enumerate(places):
                if row[column].casefold() not in unknown:
                    values[number, place] = self._number(row[column], mark, line, column)
        return values

    def _number(self, cell: str, mark: DecimalMark, line: int, column: int) -> float:
        plain = cell.replace(".", "?").replace(",", ".") if mark == "," else cell
        if not _NUMBER.fullmatch(plain):
            raise DataError(
                f"{self.where}, line {line}, column '{self.header[column]}': '{cell}' is no number with the decimal "
                f"mark '{mark}'; if it says that a value is missing, declare it: missing = [\"{cell}\"]"
            )
        return float(plain)

    def _decimal(self, places: Sequence[int]) -> DecimalMark:
        """The decimal mark that all numbers agree on."""
        cells = [(line, row[place]) for line, row in zip(self.lines, self.rows, strict=True) for place in places]
        commas = [(line, cell) for line, cell in cells if "," in cell]
        if not commas:
            return "."
        points = [(line, cell) for line, cell in cells if "." in cell]
        if points:
            (line, cell), (other_line, other) = commas[0], points[0]
            raise DataError(
                f"{self.where}: numbers with commas ('{cell}', line {line}) and with points ('{other}', line "
                f"{other_line}): write all with one decimal mark and nothing between thousands"
            )
        if all(_EITHER.fullmatch(cell) for _, cell in commas):
            line, cell = commas[0]
            raise DataError(
                f"{self.where}, line {line}: '{cell}' can be read with a decimal comma or with a comma between "
                'thousands, and so can all others: set decimal = ",", or write no commas between thousands'
            )
        _log.info("%s: numbers have a decimal comma", self.where)
        return ","


def read_table(path: Path) -> TextTable:
    """Read a text table in UTF-8, with a header and cells between semicolons, tabs or commas.

    Blank lines and lines that begin with # are passed over; cells may be quoted with ".

    Raises:
        DataError: for text that is not UTF-8, rows of unequal length, and where two marks could separate the cells.
    """
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror}") from None
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: not UTF-8 text (byte {error.start}): save it as UTF-8") from None
    kept = [
        (number, line)
        for number, line in enumerate(text.splitlines(), 1)
        if line.strip() and not line.lstrip().startswith("#")
    ]
    if len(kept) < 2:
        raise DataError(f"{path}: {len(kept)} lines; a header and at least one row are wanted")
    lines = [number for number, _ in kept]
    readings = {mark: _split(path, [line for _, line in kept], mark) for mark in _DELIMITERS}
    fitting = [
        mark
        for mark, rows in readings.items()
        if len(rows) == len(lines) and len(rows[0]) > 1 and len({len(row) for row in rows}) == 1
    ]
    if len(fitting) > 1:
        raise DataError(
            f"{path}: cells could be separated by {' or '.join(_DELIMITERS[mark] for mark in fitting)}: "
            'quote cells that hold one of them with "'
        )
    if not fitting:
        raise DataError(f"{path}{_unequal(readings, lines)}")
    _log.info("%s: cells are separated by %ss", path, _DELIMITERS[fitting[0]])
    header, *rows = readings[fitting[0]]
    if len(set(header)) < len(header):
        twice = next(name for name in header if header.count(name) > 1)
        raise DataError(f"{path}: two columns are called '{twice}'")
    # Spreadsheets leave rows of nothing but separators.
    filled = [(line, row) for line, row in zip(lines[1:], rows, strict=True) if any(row)]
    if not filled:
        raise DataError(f"{path}: no row below the header has a value")
    return TextTable(str(path), tuple(header), [row for _, row in filled], [line for line, _ in filled])


def _split(path: Path, lines: list[str], delimiter: str) -> list[list[str]]:
    try:
        reader = csv.reader(lines, delimiter=delimiter, skipinitialspace=True)
        return [[cell.strip() for cell in row] for row in reader]
    except csv.Error as error:
        raise DataError(f"{path}: cannot be read as a table: {error}") from None


def _unequal(readings: dict[str, list[list[str]]], lines: list[int]) -> str:
    """What is wrong where no mark gives rows of one length."""
    mark = max(readings, key=lambda delimiter: len(readings[delimiter][0]))
    sizes = [len(row) for row in readings[mark]]
    if len(sizes) != len(lines):
        return ": a quoted cell runs over the end of its line"
    if sizes[0] == 1:
        return ": no semicolon, tab or comma in the header; a column of times and one for each station are wanted"
    odd = next(number for number, size in enumerate(sizes) if size != sizes[0])
    return f", line {lines[odd]}: {sizes[odd]} cells, the header has {sizes[0]} (separated by {_DELIMITERS[mark]}s)"
