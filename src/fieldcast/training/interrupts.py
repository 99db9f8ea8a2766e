"""Requests to stop: SIGTERM, SIGINT (Ctrl-C) and SIGUSR1 (Slurm's early warning)."""

import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

ECHO_SECONDS = 5.0  # within which torchrun passes a signal on to workers that had it themselves
SIGNALS = tuple(getattr(signal, name) for name in ("SIGTERM", "SIGINT", "SIGUSR1") if hasattr(signal, name))


@dataclass
class StopRequest:
    """Whether somebody asked the run to stop, and when, by the monotonic clock."""

    made: bool = False
    when: float = 0.0


@contextmanager
def listen() -> Iterator[StopRequest]:
    """Note the first request; a second one leaves at once, with 130 or 143.

    Slurm, or Ctrl-C, reaches torchrun and its workers, and torchrun passes it on to them: that is no second one.
    Outside the main thread, where Python takes no signals, nothing is noted.
    """
    request = StopRequest()
    if threading.current_thread() is not threading.main_thread():
        yield request
        return

    def note(number: int, _frame: object) -> None:
        if not request.made:
            request.made, request.when = True, time.monotonic()
        elif "TORCHELASTIC_RUN_ID" not in os.environ or time.monotonic() - request.when > ECHO_SECONDS:
            os._exit(128 + number)

    before = {number: signal.signal(number, note) for number in SIGNALS}
    try:
        yield request
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
