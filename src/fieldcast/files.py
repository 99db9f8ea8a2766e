"""Files that are whole or not there: written beside, synced, renamed."""

import errno
import hashlib
import os
import shutil
from collections.abc import Callable
from pathlib import Path

from fieldcast.errors import OutOfResources

FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def write_atomic(path: Path, write: Callable[[Path], object] | str | bytes) -> Path:
    """Write a file so that a crash leaves the old one or the new one.

    Args:
        path: where it goes.
        write: text, bytes, or a function that writes to the path it is given.

    Raises:
        OutOfResources: for a full disk; the old file stays.
    """
    beside = path.with_name(f".{path.name}.{os.getpid()}.tmp{path.suffix}")
    try:
        if callable(write):
            write(beside)
        else:
            beside.write_bytes(write.encode() if isinstance(write, str) else write)
        sync(beside)
        beside.replace(path)
    except OSError as error:
        beside.unlink(missing_ok=True)
        raise_if_full(error, path)
        raise
    return path


def sync(path: Path) -> None:
    """Make sure that a file or folder is on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def raise_if_full(error: OSError, path: Path) -> None:
    """Say "disk full" where that is what the error means."""
    if error.errno in FULL:
        free = shutil.disk_usage(path.parent).free / 1e6
        raise OutOfResources(
            f"disk full while writing {path}: {error.strerror}, {free:.0f} MB free. Make room and go on"
        ) from error


def raise_if_short(folder: Path, size: int) -> None:
    """Say "disk full" before ``size`` bytes are written where they do not fit."""
    free = shutil.disk_usage(folder).free
    if free < size:
        raise OutOfResources(
            f"disk full: {folder} needs {size / 1e6:.1f} MB, {free / 1e6:.1f} MB free. Make room and go on"
        )


def sha256(path: Path) -> str:
    """Hexadecimal SHA-256 of a file."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while piece := file.read(1 << 20):
            digest.update(piece)
    return digest.hexdigest()
