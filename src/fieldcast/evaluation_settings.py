"""The [evaluation] table: what scores are taken of, and how sure they have to be."""

from itertools import pairwise
from typing import Literal

from pydantic import Field, model_validator

from fieldcast.data.times import parse_duration
from fieldcast.settings import Count, OddSize, Settings, TupleOf

RAIN_RATES = ("mm/h", "mm h-1")
# The evaluation of HKO-7, Shi et al. 2017 (arXiv:1706.03458).
RAIN_THRESHOLDS = (0.5, 2.0, 5.0, 10.0, 30.0)
RAIN_WEIGHTS = (1.0, 1.0, 2.0, 5.0, 10.0, 30.0)


class EvaluationSettings(Settings):
    """Events, neighbourhoods, baselines and intervals of a table of scores.

    ``thresholds`` begin events of ``variable`` (None: the first one), in its units, and ``weights`` are those of the
    classes between them; None: for a rain rate in mm/h those of HKO-7, otherwise no events. ``baselines`` that can't
    take the times of the samples are left out; persistence, and linear interpolation for times between the inputs,
    need not be named. ``num_members`` scores a model that draws as an ensemble of so many; None: its one forecast.
    ``block_length`` is a duration; None: from the data's autocorrelation.
    """

    variable: str | None = None
    thresholds: TupleOf[float] | None = None
    weights: TupleOf[float] | None = None
    scales: TupleOf[OddSize] = (1, 5, 17, 33)
    event: Literal["at-or-above", "below"] = "at-or-above"
    baselines: TupleOf[str] = ("persistence", "climatology", "optical-flow")
    num_members: int | None = Field(default=None, ge=2)
    block_length: str | None = None
    confidence: float = Field(default=0.95, gt=0.5, lt=1)
    num_resamples: Count = 2000

    @model_validator(mode="after")
    def _sensible(self) -> "EvaluationSettings":
        if self.thresholds is not None and any(low >= high for low, high in pairwise(self.thresholds)):
            raise ValueError(f"thresholds = {list(self.thresholds)}: ascending, each once")
        if self.weights is not None and (self.thresholds is None or len(self.weights) != len(self.thresholds) + 1):
            raise ValueError(
                f"{len(self.weights)} weights for {len(self.thresholds or ())} thresholds: one more than thresholds"
            )
        if self.block_length is not None:
            parse_duration(self.block_length)
        return self

    def events_of(self, units: str) -> tuple[tuple[float, ...], tuple[float, ...]]:
        """Thresholds and weights for a variable in these units."""
        if self.thresholds is not None:
            return self.thresholds, self.weights or ()
        return (RAIN_THRESHOLDS, RAIN_WEIGHTS) if units in RAIN_RATES else ((), ())
