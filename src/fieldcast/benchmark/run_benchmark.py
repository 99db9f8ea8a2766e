"""Running a benchmark: which jobs are to do, doing them, and the table they make."""

import json
import os
import sys
from collections.abc import Callable
from concurrent.futures import FIRST_COMPLETED, CancelledError, Executor, Future, wait
from contextlib import suppress
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import torch

from fieldcast.benchmark.job import is_done
from fieldcast.benchmark.launch import POLL_SECONDS, Order, Outcome, dask_executor, local_executor, run_job
from fieldcast.benchmark.plan import Job, Plan, load_plan
from fieldcast.benchmark.table import save_table, table_rows
from fieldcast.config import differences
from fieldcast.errors import ConfigError, TrainingStopped
from fieldcast.run import Run, lock, write_json
from fieldcast.training.interrupts import StopRequest, listen

STATUS = "benchmark.json"
STOP = "stop"
NOT_STARTED = {"state": "waiting", "exit_code": None, "reason": "", "seconds": None}


@dataclass(frozen=True)
class Benchmark:
    """A benchmark's folder, how its jobs stand, and its table.

    Attributes:
        folder: with a run for each job, benchmark.json, table.json and table.csv.
        jobs: of each job ``job``, ``source``, ``sampling``, ``model``, ``seed``, ``state`` ("waiting", "finished",
            "stopped", "failed"), ``exit_code``, ``reason``, ``seconds``.
        rows: of the table, see ``table_rows``.
    """

    folder: Path
    jobs: list[dict[str, Any]]
    rows: list[dict[str, Any]]

    @property
    def exit_code(self) -> int:
        """1 where a job failed, else 75 where one was stopped, else 0."""
        states = {job["state"] for job in self.jobs}
        return 1 if "failed" in states else TrainingStopped.exit_code if "stopped" in states else 0


def benchmark(
    config: Path | str | dict[str, Any],
    folder: Path | str | None = None,
    workers: int | str = 1,
    only: str | None = None,
    device: str = "auto",
    budget: str | None = None,
) -> Benchmark:
    """Train, score and measure every model on every source with every sampling and seed, and make one table.

    Each job has a run folder of its own and is done in a process of its own; one that is finished is left alone, one
    that was stopped goes on, one that fails doesn't keep the others from being done.

    Args:
        config: the path of a TOML file, or its plain values.
        folder: of the benchmark; None: runs/NAME, or runs/NAME-BUDGET.
        workers: jobs at a time on this machine; they share its threads. Or the address of a Dask scheduler whose
            workers do the jobs, one for each of their threads, with as many threads of torch as their environment gives
            (OMP_NUM_THREADS); all see the same files at the same paths.
        only: a pattern of job names ("*trajgru*"); the others are left as they are.
        device: "auto", "cpu", "cuda".
        budget: name of a [budgets.NAME] table of the file, whose settings come over those of every job.

    Returns:
        the jobs and the table, also for jobs of earlier calls.

    Raises:
        ConfigError: for settings that don't fit, or that are not those a job was begun with; before anything starts.
        TrainingStopped: on request (Ctrl-C, SIGTERM, or a file "stop" in the folder), when all jobs have saved.
        MissingExtra: for a scheduler without distributed.
    """
    if isinstance(workers, int) and workers < 1:
        raise ConfigError(f"workers = {workers}: at least 1")
    plan = load_plan(config, budget)
    root = (Path(folder) if folder is not None else Path("runs") / plan.name).absolute()
    _check_unchanged(plan, root)
    chosen = _choose(plan, only)
    threads = max(1, torch.get_num_threads() // workers) if isinstance(workers, int) else None
    with lock(root):
        states = _states(plan, root)
        todo = [job.name for job in chosen if states[job.name]["state"] != "finished"]
        orders = {job.name: _order(job, root, device, threads) for job in chosen if job.name in todo}
        record = _Record(root, states, todo)
        opened = local_executor(workers) if isinstance(workers, int) else dask_executor(workers)
        with listen() as request, opened as executor:
            _work(executor, orders, record, request)
        rows = table_rows(root, plan.jobs, states)
        save_table(root, rows)
        num_stopped = sum(states[name]["state"] == "stopped" for name in todo) if record.stop.exists() else 0
        record.stop.unlink(missing_ok=True)
    if num_stopped:
        raise TrainingStopped(f"stopped and saved, {num_stopped} jobs are not finished; the same command goes on")
    return Benchmark(root, list(states.values()), rows)


def _check_unchanged(plan: Plan, root: Path) -> None:
    """Refuse a job that was begun with other settings."""
    faults = []
    for job in plan.jobs:
        if (root / job.name / "config.json").is_file():
            changed = sorted(differences(Run(root / job.name).config.resolved(), job.config.resolved()))
            if changed:
                faults.append(f"{root / job.name} was begun with other settings: {', '.join(changed)}")
    if faults:
        raise ConfigError("; ".join(faults) + "; change them back, delete these folders, or give the benchmark "
                          "another name")  # fmt: skip


def _choose(plan: Plan, only: str | None) -> list[Job]:
    chosen = [job for job in plan.jobs if only is None or fnmatch(job.name, only)]
    if not chosen:
        raise ConfigError(f"only '{only}' fits no job: {', '.join(job.name for job in plan.jobs)}")
    return chosen


def _states(plan: Plan, root: Path) -> dict[str, dict[str, Any]]:
    """How each job stands, by its folder and by what the last call wrote down."""
    path = root / STATUS
    before = {job["job"]: job for job in json.loads(path.read_text())["jobs"]} if path.is_file() else {}
    states = {}
    for job in plan.jobs:
        names = {"job": job.name, "source": job.source, "sampling": job.sampling, "model": job.label, "seed": job.seed}
        state = {key: before.get(job.name, {}).get(key, value) for key, value in NOT_STARTED.items()}
        if is_done(root / job.name):
            state |= {"state": "finished", "exit_code": 0, "reason": ""}
        elif state["state"] == "finished":
            state |= NOT_STARTED
        states[job.name] = {**names, **state}
    return states


def _order(job: Job, root: Path, device: str, threads: int | None) -> Order:
    folder, stop = str(root / job.name), str(root / STOP)
    return Order(folder, job.config.resolved(), device, os.getcwd(), stop, threads)  # noqa: PTH109 (plain text)


class _Record:
    """Keeps benchmark.json up to date, and says on standard error how far the jobs are."""

    def __init__(self, root: Path, states: dict[str, dict[str, Any]], todo: list[str]) -> None:
        self.path, self.stop = root / STATUS, root / STOP
        self.states, self.num_todo, self.num_ended = states, len(todo), 0
        for name in todo:
            states[name] |= NOT_STARTED
        self.stop.unlink(missing_ok=True)
        self._say(f"{root.name}: {len(states)} jobs, {len(todo)} to do")
        self._save()

    def ended(self, name: str, outcome: Outcome) -> None:
        self.states[name] |= outcome._asdict()
        self.num_ended += 1
        reason = f": {outcome.reason}" if outcome.reason else ""
        self._say(f"[{self.num_ended}/{self.num_todo}] {name}: {outcome.state} after {outcome.seconds:.0f} s{reason}")
        self._save()

    def _save(self) -> None:
        write_json(self.path, {"name": self.path.parent.name, "jobs": list(self.states.values())})

    @staticmethod
    def _say(text: str) -> None:
        print(text, file=sys.stderr, flush=True)


def _work(executor: Executor, orders: dict[str, Order], record: _Record, request: StopRequest) -> None:
    """Have the jobs done; a request to stop is passed on to them by a file that they all look for."""
    names: dict[Future[Outcome], str] = {executor.submit(run_job, order): name for name, order in orders.items()}
    pending = set(names)
    try:
        while pending:
            ended, pending = wait(pending, POLL_SECONDS, FIRST_COMPLETED)
            if request.made:
                record.stop.touch()
            for future in ended:
                record.ended(names[future], _take(future.result))
    except BaseException:
        # The executor waits for its jobs, so they have to hear of it.
        with suppress(OSError):
            record.stop.touch()
        raise


def _take(result: Callable[[], Outcome]) -> Outcome:
    """A job's outcome; one whose worker was lost has failed."""
    try:
        return result()
    except (Exception, CancelledError) as error:
        first = (str(error).splitlines() or [""])[0]
        return Outcome("failed", 1, f"{type(error).__name__}: {first}", 0.0)
