"""One job of a benchmark, in a process of its own: train or go on, score, measure.

``python -m fieldcast.benchmark.job FOLDER DEVICE`` does the job whose settings are in FOLDER/job.json. Whoever starts
it holds its standard input open: when that ends, the job saves and leaves with 75.
"""

import json
import os
import signal
import sys
import threading
import traceback
from pathlib import Path

from fieldcast.benchmark.measure import MEASURES, measure
from fieldcast.config import read_config
from fieldcast.errors import FieldcastError
from fieldcast.evaluation import evaluate, load_scores
from fieldcast.run import Run
from fieldcast.training.loop import resume, train

ORDER = "job.json"


def do_job(folder: Path, device: str) -> Run:
    """Do what is not done yet of a job.

    Raises:
        FieldcastError: one of its kinds, as ``train`` and ``evaluate`` do.
    """
    if (folder / "config.json").is_file():
        run = Run(folder)
        if run.status().get("state") != "finished":
            run = resume(folder, device)
    else:
        run = train(read_config(json.loads((folder / ORDER).read_text()), str(folder / ORDER)), folder, device)
    if load_scores(run) is None:
        evaluate(run, "test", device=device)
    if not (folder / MEASURES).is_file():
        measure(run, device)
    return run


def is_done(folder: Path) -> bool:
    """Whether nothing is left to do of a job."""
    wanted = ("config.json", "scores.nc", MEASURES)
    return all((folder / name).is_file() for name in wanted) and Run(folder).status().get("state") == "finished"


def _leave_when_alone() -> None:
    """Ask this process to stop when nobody holds its standard input any more."""
    # Not sys.stdin: the interpreter can't end while a thread waits in it.
    while os.read(0, 1024):
        pass
    os.kill(os.getpid(), signal.SIGTERM)


def main() -> None:
    """Do the job that the command line names; the last line of standard error says what went wrong."""
    folder, device = sys.argv[1:]
    threading.Thread(target=_leave_when_alone, daemon=True).start()
    try:
        do_job(Path(folder), device)
    except FieldcastError as error:
        print(f"error: {error}", file=sys.stderr)
        raise SystemExit(error.exit_code) from None
    except Exception as error:
        traceback.print_exc()
        first = str(error).splitlines()[0] if str(error) else ""
        print(f"error: {type(error).__name__}: {first}", file=sys.stderr)
        raise SystemExit(1) from None


if __name__ == "__main__":
    main()
