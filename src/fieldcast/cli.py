"""The command line: each command is a few lines over the Python API.

Results go to standard output, messages to standard error. Nothing here imports torch before a command runs.
"""

import json
import re
import sys
import warnings
from pathlib import Path
from typing import Annotated, Any

import typer

from fieldcast.errors import ConfigError
from fieldcast.plain_errors import plain_errors
from fieldcast.printing import print_benchmark, print_fidelity, print_scores, print_table

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
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace the output file.")]
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
    print_scores(run, "fieldcast", False)
    print(f"\nreport:   {run.folder / 'report.html'}\nforecast: {run.folder / 'forecast.nc'}")


@app.command()
def train(
    config: Annotated[Path, typer.Argument(help="A TOML file, such as configs/radar/convgru.toml.")],
    output: Output = None,
    device: Device = "auto",
    set_: Annotated[list[str] | None, typer.Option("--set", help="table.key=value, instead of the file's.")] = None,
) -> None:
    """Train a model as a TOML file says, then score it on the validation split and write its report."""
    from fieldcast.training.loop import train as run_training

    run = run_training(config, output, device, tuple(set_ or ()))
    _report_training(run, device)
    print(run.folder)


@app.command()
def resume(run: RunFolder, device: Device = "auto") -> None:
    """Go on with a run that was stopped or killed, then score and report it as ``train`` does."""
    from fieldcast.training.loop import resume as resume_training

    resumed = resume_training(run, device)
    _report_training(resumed, device)
    print(resumed.folder)


@app.command()
def evaluate(
    run: RunFolder,
    split: Annotated[str, typer.Option(help="test, validation or train.")] = "test",
    convention: Annotated[str, typer.Option(help="fieldcast, thesis, openstl, hko7, srivastava or shi.")] = "fieldcast",
    num_samples: Annotated[int | None, typer.Option(help="Only so many, spread over the split.")] = None,
    device: Device = "auto",
    as_json: Json = False,
) -> None:
    """Score a run and the baselines, for each lead time and overall, with intervals, and write the report."""
    from fieldcast.evaluation import evaluate as run_evaluation
    from fieldcast.metrics.conventions import CONVENTIONS
    from fieldcast.processes import is_first_process
    from fieldcast.report.run_report import report as write_report
    from fieldcast.run import Run
    from fieldcast.settings import look_up

    look_up(CONVENTIONS, convention, "convention")
    opened = Run(run)
    run_evaluation(opened, split, num_samples, device)
    if is_first_process():
        write_report(opened, split)
        print_scores(opened, convention, as_json)


@app.command()
def forecast(
    run: RunFolder,
    inputs: Annotated[Path, typer.Argument(help="NetCDF file or Zarr folder with past frames.", metavar="INPUT.nc")],
    minutes: Annotated[list[float] | None, typer.Option(help="Lead times: --minutes 5 10 30.")] = None,
    at: Annotated[list[str] | None, typer.Option(help="Times, UTC: --at 2018-05-20T10:07 2018-05-20T10:30.")] = None,
    members: Annotated[int | None, typer.Option(help="So many random forecasts, of a model that draws.")] = None,
    output: Annotated[Path, typer.Option("--output", "-o", help="NetCDF file to write.")] = Path("forecast.nc"),
    device: Device = "auto",
    overwrite: Overwrite = False,
) -> None:
    """Forecast from the last frames of a file, past frames only, at lead times or at times of day."""
    from fieldcast.forecast import forecast as run_forecast
    from fieldcast.forecast import save_forecast
    from fieldcast.run import Run

    if not minutes and not at:
        raise ConfigError("forecast needs --minutes or --at: `fieldcast forecast --help` tells more")
    _check_output(output, overwrite)
    print(save_forecast(run_forecast(Run(run), inputs, minutes or (), device, at or (), members), output))


@app.command()
def fill(
    run: RunFolder,
    inputs: Annotated[Path, typer.Argument(help="NetCDF file or Zarr folder with gaps.", metavar="INPUT.nc")],
    longest: Annotated[
        str | None, typer.Option(help='Longer gaps stay: --longest "30 min"; default: as the run was trained to fill.')
    ] = None,
    output: Annotated[Path, typer.Option("--output", "-o", help="NetCDF file to write.")] = Path("filled.nc"),
    device: Device = "auto",
    overwrite: Overwrite = False,
) -> None:
    """Fill the frames that are missing between others, by a model that interpolates, and flag them."""
    from fieldcast.fill import fill as run_fill
    from fieldcast.forecast import save_forecast
    from fieldcast.run import Run

    _check_output(output, overwrite)
    print(save_forecast(run_fill(Run(run), inputs, device, longest), output))


def _check_output(output: Path, overwrite: bool) -> None:
    """Refuse a file that can't be written, before the work is done."""
    if output.exists() and not overwrite:
        raise ConfigError(f"{output} exists: name another --output, or add --overwrite")
    if not output.absolute().parent.is_dir():
        raise ConfigError(f"{output}: the folder {output.absolute().parent} does not exist")


@app.command()
def explain(
    run: RunFolder,
    station: Annotated[
        list[str] | None, typer.Option(help="A river by name, several times for several; none: all.")
    ] = None,
    pixel: Annotated[str | None, typer.Option(help="Of a map: --pixel ROW,COLUMN, counted from 0.")] = None,
    region: Annotated[str | None, typer.Option(help="Of a map, its mean: --region 10:20,30:50.")] = None,
    variable: Annotated[str | None, typer.Option(help="Which variable of a map; default the first.")] = None,
    minutes: Annotated[list[float] | None, typer.Option(help="Lead times: --minutes 30 60.")] = None,
    surrogate: Annotated[
        str | None, typer.Option(help="average, local, reference, 'best sequence', optimal, 'least squares'.")
    ] = None,
    at: Annotated[str | None, typer.Option(help="The sequence of the test split that ends then, UTC.")] = None,
    sequences: Annotated[int | None, typer.Option(help="Training sequences that kernels are made of; 100.")] = None,
    compare: Annotated[bool, typer.Option("--compare", help="Make and judge every surrogate.")] = False,
    attribute: Annotated[
        bool, typer.Option("--attribute", help="Integrated gradients and occlusion beside the kernels.")
    ] = False,
    precision: Annotated[str | None, typer.Option(help="float32, the default, or bf16.")] = None,
    output: Annotated[Path | None, typer.Option("--output", "-o", help="NetCDF file; default RUN/kernels.nc.")] = None,
    device: Device = "auto",
    overwrite: Overwrite = False,
    as_json: Json = False,
) -> None:
    """Tell which field, where and how long ago, moves a river, a pixel or a region, by linear kernels, on a page."""
    from fieldcast.explain.kernel_file import FILE
    from fieldcast.explain.run_explain import ExplainSettings
    from fieldcast.explain.run_explain import explain as run_explain
    from fieldcast.explain.targets import read_place
    from fieldcast.forecast import save_forecast
    from fieldcast.processes import is_first_process
    from fieldcast.report.kernels import write_kernels_page
    from fieldcast.run import Run
    from fieldcast.settings import read_settings

    opened, path = Run(run), output or run / FILE
    _check_output(path, overwrite)
    chosen = {"surrogate": surrogate, "at": at, "num_sequences": sequences, "precision": precision}
    given = {name: value for name, value in chosen.items() if value is not None}
    settings = read_settings(ExplainSettings, {**given, "compare": compare, "attribute": attribute}, "explain")
    place = read_place(pixel, region, variable)
    kernels = run_explain(opened, station, place, minutes or (), settings, device)
    if is_first_process():
        save_forecast(kernels, path)
        page = write_kernels_page(kernels, path.with_suffix(".html"))
        print_fidelity(kernels, as_json)
        print(f"kernels: {path}\npage:    {page}", file=sys.stderr)


@app.command()
def report(run: RunFolder, split: Annotated[str, typer.Option(help="test, validation or train.")] = "test") -> None:
    """Write report.html and its figures into a run."""
    from fieldcast.report.run_report import report as write
    from fieldcast.run import Run

    print(write(Run(run), split))


@app.command()
def benchmark(
    config: Annotated[Path, typer.Argument(help="A TOML file, such as configs/benchmarks/radar-sample.toml.")],
    output: Annotated[Path | None, typer.Option("--output", "-o", help="Folder; default runs/NAME.")] = None,
    budget: Annotated[str | None, typer.Option(help="A [budgets.NAME] table of the file, such as small.")] = None,
    workers: Annotated[int, typer.Option(help="Jobs at a time on this machine.")] = 1,
    scheduler: Annotated[str | None, typer.Option(help="Address of a Dask scheduler that does the jobs.")] = None,
    only: Annotated[str | None, typer.Option(help="Only jobs of this pattern, such as '*trajgru*'.")] = None,
    convention: Annotated[str, typer.Option(help="fieldcast; thesis: as its tables; openstl, ...")] = "fieldcast",
    device: Device = "auto",
    set_: Annotated[list[str] | None, typer.Option("--set", help="common.source.digits=..., over the file's.")] = None,
    as_json: Json = False,
) -> None:
    """Train, score and measure models x sources x samplings x seeds, in one table and report."""
    from fieldcast.benchmark.report import report_benchmark
    from fieldcast.benchmark.run_benchmark import benchmark as run_benchmark
    from fieldcast.config import read_toml
    from fieldcast.metrics.conventions import CONVENTIONS
    from fieldcast.settings import look_up

    look_up(CONVENTIONS, convention, "convention")
    values = read_toml(config, tuple(set_)) if set_ else config
    result = run_benchmark(values, output, scheduler or workers, only, device, budget)
    print_benchmark(result, convention, as_json)
    if any(row["done"] for row in result.rows if not row["baseline"]):
        print(f"report: {report_benchmark(result)}", file=sys.stderr)
    if result.exit_code:
        raise SystemExit(result.exit_code)


@app.command()
def models(as_json: Json = False) -> None:
    """List the models, their presets and their sizes, and which times they take."""
    import torch

    from fieldcast.models import MODELS, build, count_parameters

    rows = []
    for key, row in MODELS.items():
        for preset in tuple(row.presets) or (None,):
            with torch.device("meta"):  # of which only the sizes are there
                model = build(key, preset)
            rows.append(
                {
                    "model": key,
                    "preset": preset or "(default)",
                    "live parameters": f"{count_parameters(model):,}",
                    "forecasts": "stations" if model.forecasts_stations else "maps",
                    "input times": "any" if model.irregular_inputs else "regular",
                    "target times": "any" if model.irregular_targets else "regular",
                    "interpolates": "yes" if model.interpolates else "-",
                    "draws": "yes" if model.draws else "-",
                    "paper": row.paper,
                }
            )
    print_table(rows, as_json)


@app.command()
def metrics(as_json: Json = False) -> None:
    """List the scores: what each is, its units, and which value is better."""
    from fieldcast.metrics import METRICS

    better = {"zero": "nearest to 0", "one": "nearest to 1", "none": "a description"}
    rows = [
        {
            "metric": name,
            "family": metric.family,
            "what": metric.long_name,
            "better": better.get(metric.orientation, metric.orientation),
            "units": metric.units.format(units="field"),
            "for each": ", ".join(metric.dimensions) or "-",
            "convention": metric.convention,
        }
        for name, metric in METRICS.items()
    ]
    print_table(rows, as_json)


@app.command()
def sources(as_json: Json = False) -> None:
    """List the places that frames can come from."""
    from fieldcast.data import SOURCES

    rows = [
        {"source": key, "what": row.about, "settings": ", ".join(row.settings.model_fields)}
        for key, row in SOURCES.items()
    ]
    print_table(rows, as_json)


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


def _report_training(run: Any, device: str) -> None:
    """Scores and report of the validation split: to look at the test split after every training is to train on it."""
    from fieldcast.errors import DataError
    from fieldcast.evaluation import evaluate as run_evaluation
    from fieldcast.processes import is_first_process
    from fieldcast.report.run_report import report as write_report

    try:
        run_evaluation(run, "validation", run.config.training.validation.num_samples, device)
        if is_first_process():
            print(f"report of the validation split: {write_report(run, 'validation')}", file=sys.stderr)
    except DataError as error:
        print(f"warning: trained, but without scores: {error}", file=sys.stderr)


def main() -> None:
    """Run the command line."""
    arguments = _values_apart(sys.argv[1:])
    debug = "--debug" in arguments
    warnings.showwarning = lambda message, *where, **more: print(f"warning: {message}", file=sys.stderr)
    with plain_errors(debug):
        words = [argument for argument in arguments if argument != "--debug"]
        if code := app(words, prog_name="fieldcast", standalone_mode=False):
            raise SystemExit(code)


def _values_apart(arguments: list[str]) -> list[str]:
    """Let ``--minutes 5 10 30`` stand for ``--minutes 5 --minutes 10 --minutes 30``, which is all that click takes."""
    result: list[str] = []
    option = None
    for argument in arguments:
        fits = option is not None and re.fullmatch(LISTED[option], argument) is not None
        if fits and result[-1] != option:
            result.append(str(option))
        elif not fits:
            option = argument if argument in LISTED else None
        result.append(argument)
    return result


# Options that take several values, and what those look like.
LISTED = {
    "--minutes": r"[+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d+)?|[+-]?(inf|nan)",
    "--at": r"\d{4,}-\d\d-\d\d([T ][\d:.]+)?Z?",
}


if __name__ == "__main__":
    main()
