"""Tables on standard output. Nothing here imports torch before something is printed."""

import json
from typing import Any


def print_scores(run: Any, convention: str, as_json: bool) -> None:
    """Print the scores that a run has, in the words and scale of a convention."""
    from fieldcast.evaluation import (
        difference_rows,
        lead_rows,
        load_scores,
        metrics_of,
        plain_numbers,
        score_rows,
        scores_document,
        station_rows,
    )
    from fieldcast.metrics import METRICS

    scores = load_scores(run)
    assert scores is not None
    if as_json:
        document = {**scores_document(scores), "convention": convention, "overall": score_rows(scores, convention),
                    "differences": difference_rows(scores), "stations": station_rows(scores)}  # fmt: skip
        print(json.dumps(plain_numbers(document), indent=1, allow_nan=False))
        return
    print(f"split {scores.attrs['split']}, {scores.attrs['num_samples']} samples, {scores.attrs['precision']}; "
          f"data range {scores.attrs['data_range']}; unit: {scores.attrs['unit_space']}")  # fmt: skip
    print(f"intervals of {scores.attrs['confidence']:.0%} from {scores.attrs['num_blocks']} independent blocks of "
          f"{scores.attrs['block_length']}")  # fmt: skip
    rows = score_rows(scores, convention)
    print_table([_with_intervals(row) for row in rows], False)
    if rivers := station_rows(scores):
        print("\nover the stations (each one's score is in scores.nc); a win is one whose whole interval is above zero")
        for metric in dict.fromkeys(row["metric"] for row in rivers):
            print_table([row for row in rivers if row["metric"] == metric], False)
    print(f"\nby lead time, {'physical' if convention == 'fieldcast' else 'unit'} space")
    print_table(lead_rows(scores, convention), False)
    if differences := difference_rows(scores):
        print("\nagainst the baselines: a win is one whose whole interval is below zero")
        print_table([{**row, "interval": "[{:.4g}, {:.4g}]".format(*row["interval"])} for row in differences], False)
    if scores.attrs["left_out"]:
        print(f"\nleft out: {scores.attrs['left_out']}")
    if convention == "fieldcast":
        print("\nconventions (`fieldcast metrics` has them too)")
        for name in metrics_of(scores):
            print(f"  {METRICS[name].long_name}: {METRICS[name].convention}")


def print_fidelity(kernels: Any, as_json: bool) -> None:
    """Print how well each surrogate reproduces the network and what was observed, output by output."""
    from fieldcast.evaluation import plain_numbers
    from fieldcast.explain.fidelity import NETWORK, failed

    own, rows = kernels.attrs["surrogate"], []
    fails = failed(kernels, own, kernels.attrs["threshold"])
    for output in kernels.output.values:
        for surrogate in kernels.surrogate.values:
            for against in kernels.against.values:
                at = {"output": output, "surrogate": surrogate, "against": against}
                r2, nse = (float(kernels[name].sel(at)) for name in ("r2", "nse"))
                wrong = surrogate == own and against == NETWORK and bool(fails.sel(output=output))
                row = {**{key: str(word) for key, word in at.items()}, "r2": r2, "nse": nse}
                rows.append({**row, "": "surrogate fails" if wrong else ""})
    if as_json:
        print(json.dumps(plain_numbers(rows), indent=1, allow_nan=False))
        return
    print(f"how much of the variance linear kernels explain, on held-out sequences ({own} is what the kernels are of)")
    print_table(rows, False)


def print_benchmark(result: Any, convention: str, as_json: bool) -> None:
    """Print the table of a benchmark, in the words and scale of a convention, which gets files of its own."""
    from fieldcast.benchmark.table import printed_rows, restated_rows, save_table

    rows = result.rows
    if convention != "fieldcast":
        rows = restated_rows(rows, convention)
        save_table(result.folder, rows, f"table-{convention}")
    if as_json:
        print(json.dumps(rows, indent=1))
    elif convention == "fieldcast":
        print_table(printed_rows(rows), False)
    else:
        _print_blocks(rows)


def _print_blocks(rows: list[dict[str, Any]]) -> None:
    """Print restated rows as the thesis prints its tables: a block for each source and sampling."""
    for group in dict.fromkeys((row["source"], row["sampling"]) for row in rows):
        source, sampling = group
        parts = (f"Source: {source}" * bool(source), f"Sampling assumption: {sampling}" * bool(sampling))
        if heading := "; ".join(filter(None, parts)):
            print(heading)
        print_table([_block_row(row) for row in rows if (row["source"], row["sampling"]) == group], False)
        print()
    for label in rows[0]["scores"]:
        short, _, convention = label.partition(" (")
        print(f"{short}: {convention.removesuffix(')')}")


def _block_row(row: dict[str, Any]) -> dict[str, str]:
    from fieldcast.benchmark.table import spread_text

    cells = {"Model": str(row["model"]), "Seeds": "" if row["baseline"] else f"{row['done']}/{row['seeds']}"}
    for label, score in row["scores"].items():
        text = "" if score["mean"] is None else f"{score['mean']:#.5g}"
        spread = f" ± {spread_text(score['spread'])}" if score["spread"] else ""
        cells[label.partition(" (")[0]] = text + spread
    return cells


def _with_intervals(row: dict[str, Any]) -> dict[str, Any]:
    """A row in which each score stands before its interval, and the convention is left to the legend."""
    shown = {}
    for name, value in row.items():
        if name != "convention" and not name.endswith(" interval"):
            low, high = row.get(f"{name} interval", (None, None))
            known = low is not None and low == low  # NaN is not
            shown[name] = f"{value:.4g} [{low:.4g}, {high:.4g}]" if known else value
    return shown


def print_table(rows: list[dict[str, Any]], as_json: bool) -> None:
    """Print rows that have the same columns."""
    if as_json:
        print(json.dumps(rows, indent=1))
        return
    from rich.console import Console
    from rich.table import Table

    table = Table(box=None, pad_edge=False)
    for name in rows[0]:
        table.add_column(name, overflow="fold")
    for row in rows:
        table.add_row(*(_shown(value) for value in row.values()))
    console = Console(soft_wrap=False)
    if not console.is_terminal:
        console = Console(width=200)
    console.print(table)


def _shown(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:,.0f}" if abs(value) >= 1000 and value.is_integer() else f"{value:.5g}"
    return str(value)
