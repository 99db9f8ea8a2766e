"""Model x split x metrics: sums, scores, intervals, and the table of them."""

from fieldcast.evaluation.baselines import leave_out, with_baselines
from fieldcast.evaluation.files import load_scores, run_tally
from fieldcast.evaluation.forecasts import predict
from fieldcast.evaluation.scoring import evaluate
from fieldcast.evaluation.spaces import UNIT
from fieldcast.evaluation.table import (
    COMPARED,
    difference_rows,
    lead_rows,
    make_table,
    metrics_of,
    plain_numbers,
    score_rows,
    scores_document,
    station_rows,
    wins,
)
from fieldcast.evaluation.tally import Tally, merge, rename
from fieldcast.evaluation.verify import verify

__all__ = [
    "COMPARED",
    "UNIT",
    "Tally",
    "difference_rows",
    "evaluate",
    "lead_rows",
    "leave_out",
    "load_scores",
    "make_table",
    "merge",
    "metrics_of",
    "plain_numbers",
    "predict",
    "rename",
    "run_tally",
    "score_rows",
    "scores_document",
    "station_rows",
    "verify",
    "wins",
    "with_baselines",
]
