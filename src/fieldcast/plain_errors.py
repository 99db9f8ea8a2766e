"""Faults as one line on standard error and an exit code, where the command line ends."""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import typer

from fieldcast.errors import FieldcastError, OutOfResources


@contextmanager
def plain_errors(debug: bool) -> Iterator[None]:
    """Turn faults into one line on standard error and an exit code."""
    try:
        yield
        # Here, because at exit nobody could catch that the reader of a pipe is gone.
        sys.stdout.flush()
    except BrokenPipeError:
        # Whoever read the output has had enough; Python must not complain when it flushes at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise SystemExit(0) from None
    except FieldcastError as error:
        if debug:
            raise
        print(f"error: {error}", file=sys.stderr)
        raise SystemExit(error.exit_code) from None
    except typer.Abort:
        raise SystemExit(130) from None
    except Exception as error:
        _raise_if_usage(error)
        if debug:
            raise
        translated = _out_of_memory(error)
        text = str(translated) if translated else f"{type(error).__name__}: {error} (--debug shows where)"
        print(f"error: {text}", file=sys.stderr)
        raise SystemExit(translated.exit_code if translated else 1) from None


def _raise_if_usage(error: Exception) -> None:
    """Word what click (or the copy of it inside newer typers) has to say about options as every other error."""
    if not hasattr(error, "format_message"):
        return
    context = getattr(error, "ctx", None)
    if context is not None and type(error).__name__ == "NoArgsIsHelpError":
        print(context.get_help(), file=sys.stderr)
    else:
        help_command = f"`{context.command_path if context else 'fieldcast'} --help` tells more"
        print(f"error: {' '.join(error.format_message().split()).rstrip('.')}: {help_command}", file=sys.stderr)
    raise SystemExit(2) from None


def _out_of_memory(error: Exception) -> OutOfResources | None:
    text = str(error)
    if isinstance(error, MemoryError) or "allocate memory" in text or "out of memory" in text:
        what = text.splitlines()[0][:120] if text else "MemoryError"
        return OutOfResources(f"out of memory ({what}): take a smaller batch_size or windows.crop, or more accumulate")
    return None
