"""Starting jobs: each a process of its own, by threads here or by the workers of a Dask cluster."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from fieldcast.benchmark.job import ORDER
from fieldcast.errors import ConfigError, MissingExtra, TrainingStopped
from fieldcast.run import write_json

LOG = "job.log"
POLL_SECONDS = 0.2
STOPPED = (TrainingStopped.exit_code, -signal.SIGTERM, 128 + signal.SIGTERM)


class Order(NamedTuple):
    """What whoever does a job is told, in plain types.

    Attributes:
        folder: of the job, absolute.
        values: of its configuration.
        device: "auto", "cpu", "cuda".
        working_folder: from where relative paths are looked up.
        stop: a file; when it is there, jobs save and stop.
        threads: of torch; None: as many as the environment says.
    """

    folder: str
    values: dict[str, Any]
    device: str
    working_folder: str
    stop: str
    threads: int | None


class Outcome(NamedTuple):
    """How a job ended: "finished", "stopped" or "failed"; its exit code; in a line, why; and how long it took."""

    state: str
    exit_code: int
    reason: str
    seconds: float


def run_job(order: Order) -> Outcome:
    """Do a job in a process of its own, so that its memory, and whatever kills it, are its own."""
    if Path(order.stop).exists():
        return Outcome("stopped", TrainingStopped.exit_code, "", 0.0)
    folder, started = Path(order.folder), time.monotonic()
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / ORDER, order.values)
    threads = {} if order.threads is None else {"OMP_NUM_THREADS": str(order.threads)}
    with (folder / LOG).open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "fieldcast.benchmark.job", order.folder, order.device],
            stdin=subprocess.PIPE,
            stdout=log,
            stderr=log,
            cwd=order.working_folder,
            env={**os.environ, **threads},
            start_new_session=True,  # Ctrl-C is for us; jobs hear of it once, when their input ends
        )
        assert process.stdin is not None
        while process.poll() is None:
            if Path(order.stop).exists():
                process.stdin.close()
            time.sleep(POLL_SECONDS)
        process.stdin.close()
    return _outcome(process.returncode, folder / LOG, time.monotonic() - started)


def _outcome(code: int, log: Path, seconds: float) -> Outcome:
    state = "finished" if code == 0 else "stopped" if code in STOPPED else "failed"
    lines = log.read_text(errors="replace").splitlines()
    reason = "" if code == 0 else f"exit code {code}: see {log}"
    if lines and lines[-1].startswith("error: "):
        reason = lines[-1].removeprefix("error: ")
    elif code < 0:
        hint = " (out of memory?)" if code == -signal.SIGKILL else ""
        reason = f"killed by {signal.Signals(-code).name}{hint}: see {log}"
    return Outcome(state, code, "" if state == "finished" else reason, round(seconds, 3))


@contextmanager
def local_executor(num_workers: int) -> Iterator[Executor]:
    """Threads of this process, each of which waits for one job at a time."""
    with ThreadPoolExecutor(num_workers, thread_name_prefix="jobs") as executor:
        yield executor


@contextmanager
def dask_executor(scheduler: str) -> Iterator[Executor]:
    """The workers of a Dask cluster that is there; they see the same folders and have fieldcast installed.

    Raises:
        MissingExtra: without distributed.
        ConfigError: where no scheduler answers.
    """
    try:
        from distributed import Client
    except ImportError:
        raise MissingExtra("a Dask scheduler", "dask") from None
    try:
        # As the default, it would be what xarray writes files with.
        client = Client(scheduler, timeout="20s", set_as_default=False)
    except (OSError, ValueError) as error:
        raise ConfigError(f"scheduler '{scheduler}': no Dask scheduler answers there ({error})") from None
    with client, client.get_executor(pure=False, retries=0) as executor:
        yield executor
