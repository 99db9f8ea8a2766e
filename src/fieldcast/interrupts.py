"""Requests to stop: SIGTERM, SIGINT (Ctrl-C) and SIGUSR1 (Slurm's early warning)."""

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

SIGNALS = tuple(getattr(signal, name) for name in ("SIGTERM", "SIGINT", "SIGUSR1") if hasattr(signal, name))


@dataclass
class StopRequest:
    """Whether somebody asked the run to stop."""

    made: bool = False


@contextmanager
def listen() -> Iterator[StopRequest]:
    """Note the first request; a second one leaves at once, with 130 or 143.

    Outside the main thread, where Python takes no signals, nothing is noted.
    """
    request = StopRequest()
    if threading.current_thread() is not threading.main_thread():
        yield request
        return

    def note(number: int, _frame: object) -> None:
        if request.made:
            os._exit(128 + number)
        request.made = True

    before = {number: signal.signal(number, note) for number in SIGNALS}
    try:
        yield request
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
