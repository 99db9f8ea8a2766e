"""Finding and opening NetCDF and Zarr: by their first bytes, with a named engine, nothing decoded."""

import glob
import importlib.util
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import h5py
import xarray as xr

from fieldcast.data.samples import PACKAGED, packaged_path
from fieldcast.errors import DataError, MissingExtra

_HDF5 = b"\x89HDF\r\n\x1a\n"
_ZARR_FILES = ("zarr.json", ".zgroup", ".zmetadata")


def find_files(paths: str | Sequence[str]) -> list[Path]:
    """Name the files and Zarr folders of a path, a glob pattern, or a list of either.

    "packaged:NAME" is a sample that ships inside the package.

    Raises:
        DataError: for a path that does not exist or a pattern that nothing matches.
    """
    found = []
    for text in [paths] if isinstance(paths, str) else paths:
        path = packaged_path(text) if text.startswith(PACKAGED) else Path(text).expanduser()
        if path.exists():
            found.append(path)
            continue
        matches = sorted(glob.glob(str(path), recursive=True))  # noqa: PTH207 (Path.glob takes no absolute pattern)
        if not matches:
            what = "no file matches this pattern" if glob.has_magic(str(path)) else "no such file"
            raise DataError(f"{text}: {what} (looked from {Path.cwd()})")
        found.extend(Path(match) for match in matches)
    if not found:
        raise DataError("paths is empty: name at least one file, Zarr folder or pattern")
    return found


def open_raw(path: Path) -> xr.Dataset:
    """Open a NetCDF file or Zarr folder lazily, with packed values and encoded times as they are stored.

    Raises:
        DataError: for anything else, and for a file that is empty, cut short or damaged.
        MissingExtra: for NetCDF-3 without scipy.
    """
    # xr.open_dataset without an engine imports every installed backend.
    options: dict[str, Any] = {"engine": _engine(path), "decode_cf": False, "cache": False}
    if options["engine"] == "zarr":
        options |= {"chunks": None, "consolidated": False}
    try:
        if options["engine"] == "h5netcdf":
            # Where h5netcdf fails at either of these, it leaves a half-made object whose end prints a traceback.
            with h5py.File(path, "r") as file:
                file.attrs.get("_nc3_strict")
        return xr.open_dataset(path, **options)
    # Backends have no common base for what a damaged file makes them raise.
    except Exception as error:
        size = f", {path.stat().st_size} bytes" if path.is_file() else ""
        raise DataError(f"{path}: damaged or cut short{size}: {_one_line(error)}") from error


def read_values(variable: xr.Variable, where: str):
    """Load a lazily opened variable as a numpy array.

    Raises:
        DataError: where its bytes cannot be read or unpacked.
    """
    try:
        return variable.values
    except MemoryError:
        raise
    except Exception as error:
        raise DataError(f"{where}: cannot be read: {_one_line(error)}; the file may be damaged") from error


def _engine(path: Path) -> str:
    if path.is_dir():
        if any((path / name).exists() for name in _ZARR_FILES):
            return "zarr"
        raise DataError(f"{path}: a folder, but no Zarr store; for the files in it write '{path}/*.nc'")
    try:
        with path.open("rb") as file:
            start = file.read(8)
            blocks = [start]
            # HDF5 allows a user block in front, of 512 bytes or any doubling of that.
            for offset in (512, 1024, 2048, 4096):
                file.seek(offset)
                blocks.append(file.read(8))
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror}") from None
    if _HDF5 in blocks:
        return "h5netcdf"
    if start[:4] in (b"CDF\x01", b"CDF\x02"):
        if importlib.util.find_spec("scipy") is None:
            raise MissingExtra("reading netCDF-3", "netcdf3")
        return "scipy"
    shown = repr(start)[1:] if start else "none, the file is empty"
    raise DataError(f"{path}: not NetCDF/HDF5 (first bytes: {shown})")


def _one_line(error: Exception) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())}"
