"""The command line: each command is a few lines over the Python API.

Results go to standard output, messages to standard error. Nothing here imports torch before a command runs.
"""

import json
import os
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer

from fieldcast.errors import FieldcastError, OutOfResources

app = typer.Typer(
    help="Learn, forecast, verify and explain fields that move.",
    no_args_is_help=True,
    invoke_without_command=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)

RunFolder = Annotated[Path, typer.Argument(help="Folder of a run, such as runs/demo.", metavar="RUN")]
Device = Annotated[str, typer.Option(envvar="FIELDCAST_DEVICE", help="auto, cpu, cuda or cuda:N.")]
Output = Annotated[Path | None, typer.Option("--output", "-o", help="Folder of the run; default runs/NAME.")]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON document.")]


@app.callback()
def _everywhere(
    version: Annotated[bool, typer.Option("--version", help="Show the version and exit.")] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Show where an error came from, on any command.")] = False,
) -> None:
    if version:
        from importlib.metadata import version as installed_version

        print(installed_version("fieldcast"))
        raise typer.Exit


@app.command()
def demo(output: Annotated[Path, typer.Option("--output", "-o")] = Path("runs/demo"), device: Device = "auto",
         overwrite: Annotated[bool, typer.Option(help="Replace an earlier demo.")] = False) -> None:  # fmt: skip
    """Train on real radar rain that ships with the package, verify, forecast, and write a report."""
    from fieldcast.demo import demo as run_demo
    from fieldcast.run import remove_run

    if overwrite:
        remove_run(output)
    run = run_demo(output, device)
    _print_scores(run, "fieldcast", False)
    print(f"\nreport:   {run.folder / 'report.html'}\nforecast: {run.folder / 'forecast.nc'}")


@app.command()
def train(
    config: Annotated[Path, typer.Argument(help="A TOML file, such as configs/radar/convgru.toml.")],
    output: Output = None,
    device: Device = "auto",
    set_: Annotated[list[str] | None, typer.Option("--set", help="table.key=value, instead of the file's.")] = None,
) -> None:
    """Train a model as a TOML file says."""
    from fieldcast.training.loop import train as run_training

    print(run_training(config, output, device, tuple(set_ or ())).folder)


@app.command()
def resume(run: RunFolder, device: Device = "auto") -> None:
    """Go on with a run that was stopped or killed."""
    from fieldcast.training.loop import resume as resume_training

    print(resume_training(run, device).folder)


@app.command()
def evaluate(
    run: RunFolder,
    split: Annotated[str, typer.Option(help="test, validation or train.")] = "test",
    convention: Annotated[str, typer.Option(help="fieldcast, thesis or openstl.")] = "fieldcast",
    num_samples: Annotated[int | None, typer.Option(help="Only so many, spread over the split.")] = None,
    device: Device = "auto",
    as_json: Json = False,
) -> None:
    """Score a run and the baselines, for each lead time and overall."""
    from fieldcast.evaluate import evaluate as run_evaluation
    from fieldcast.metrics.conventions import CONVENTIONS
    from fieldcast.run import Run
    from fieldcast.settings import look_up

    look_up(CONVENTIONS, convention, "convention")
    opened = Run(run)
    run_evaluation(opened, split, num_samples, device)
    _print_scores(opened, convention, as_json)


@app.command()
def forecast(
    run: RunFolder,
    inputs: Annotated[Path, typer.Argument(help="NetCDF file or Zarr folder with past frames.", metavar="INPUT.nc")],
    minutes: Annotated[list[float], typer.Option(help="Lead times: --minutes 5 10 30.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="NetCDF file to write.")] = Path("forecast.nc"),
    device: Device = "auto",
    overwrite: Annotated[bool, typer.Option(help="Replace the output file.")] = False,
) -> None:
    """Forecast from the last frames of a file, past frames only."""
    from fieldcast.errors import ConfigError
    from fieldcast.forecast import forecast as run_forecast
    from fieldcast.forecast import save_forecast
    from fieldcast.run import Run

    if output.exists() and not overwrite:
        raise ConfigError(f"{output} exists: name another --output, or add --overwrite")
    if not output.absolute().parent.is_dir():
        raise ConfigError(f"{output}: the folder {output.absolute().parent} does not exist")
    print(save_forecast(run_forecast(Run(run), inputs, minutes, device), output))


@app.command()
def report(run: RunFolder, split: Annotated[str, typer.Option(help="test, validation or train.")] = "test") -> None:
    """Write report.html and its figures into a run."""
    from fieldcast.report.run_report import report as write
    from fieldcast.run import Run

    print(write(Run(run), split))


@app.command()
def models(as_json: Json = False) -> None:
    """List the models, their presets and their sizes."""
    from fieldcast.models import MODELS, num_parameters

    rows = [
        {
            "model": key,
            "preset": preset or "(default)",
            "live parameters": f"{num_parameters(key, preset):,}",
            "input times": "any" if row.forecaster.irregular_inputs else "regular",
            "target times": "any" if row.forecaster.irregular_targets else "regular",
            "paper": row.paper,
        }
        for key, row in MODELS.items()
        for preset in tuple(row.presets) or (None,)
    ]
    _print_table(rows, as_json)


@app.command()
def sources(as_json: Json = False) -> None:
    """List the places that frames can come from."""
    from fieldcast.data import SOURCES

    rows = [
        {"source": key, "what": row.about, "settings": ", ".join(row.settings.model_fields)}
        for key, row in SOURCES.items()
    ]
    _print_table(rows, as_json)


@app.command()
def doctor(as_json: Json = False) -> None:
    """Tell versions, devices, threads, and which extras are installed."""
    from fieldcast.doctor import examine

    found = examine()
    if as_json:
        print(json.dumps(found, indent=1))
        return
    extras = found.pop("extras")
    width = max(map(len, found))
    for name, value in found.items():
        print(f"{name:{width}}  {value if value != '' else '-'}")
    for name, state in extras.items():
        print(f"{'extra ' + name:{width}}  {state}")


def _print_scores(run: Any, convention: str, as_json: bool) -> None:
    from fieldcast.evaluate import lead_rows, load_scores, plain_numbers, score_rows, scores_document

    scores = load_scores(run)
    assert scores is not None
    if as_json:
        document = {**scores_document(scores), "convention": convention, "overall": score_rows(scores, convention)}
        print(json.dumps(plain_numbers(document), indent=1, allow_nan=False))
        return
    print(f"split {scores.attrs['split']}, {scores.attrs['num_samples']} samples, {scores.attrs['precision']}; "
          f"data range {scores.attrs['data_range']}; unit: {scores.attrs['unit_space']}")  # fmt: skip
    _print_table(score_rows(scores, convention), False)
    print(f"\nby lead time, {'physical' if convention == 'fieldcast' else 'unit'} space")
    _print_table(lead_rows(scores, convention), False)


def _print_table(rows: list[dict[str, Any]], as_json: bool) -> None:
    if as_json:
        print(json.dumps(rows, indent=1))
        return
    from rich.console import Console
    from rich.table import Table

    table = Table(box=None, pad_edge=False)
    for name in rows[0]:
        table.add_column(name, overflow="fold")
    for row in rows:
        table.add_row(*(f"{value:.5g}" if isinstance(value, float) else str(value) for value in row.values()))
    console = Console(soft_wrap=False)
    if not console.is_terminal:
        console = Console(width=200)
    console.print(table)


@contextmanager
def _plain_errors(debug: bool) -> Iterator[None]:
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


def main() -> None:
    """Run the command line."""
    arguments = _lead_times_apart(sys.argv[1:])
    debug = "--debug" in arguments
    warnings.showwarning = lambda message, *where, **more: print(f"warning: {message}", file=sys.stderr)
    with _plain_errors(debug):
        words = [argument for argument in arguments if argument != "--debug"]
        if code := app(words, prog_name="fieldcast", standalone_mode=False):
            raise SystemExit(code)


def _lead_times_apart(arguments: list[str]) -> list[str]:
    """Let ``--minutes 5 10 30`` stand for ``--minutes 5 --minutes 10 --minutes 30``, which is all that click takes."""
    result: list[str] = []
    open_option = False
    for argument in arguments:
        if open_option and result[-1] != "--minutes" and _is_number(argument):
            result.append("--minutes")
        elif argument == "--minutes":
            open_option = True
        elif not _is_number(argument):
            open_option = False
        result.append(argument)
    return result


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


if __name__ == "__main__":
    main()
