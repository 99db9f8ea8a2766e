"""The colour and the dashes of each model, the same in every figure."""

from collections.abc import Sequence
from typing import NamedTuple

from fieldcast.report.contents import BASELINES

# After Okabe and Ito: colours that the colour-blind can tell apart and that hold on light and dark ground.
MODEL_COLOURS = ("#1f83c7", "#d55e00", "#009e73", "#cc79a7", "#c88a00", "#56b4e9")
BASELINE_COLOUR = "#808080"
BASELINE_DASHES = ("6 3", "1.5 2.5", "7 2 1.5 2", "12 3", "3 1.5", "9 2 3 2")
OBSERVED_CLASS = "observation"


class Stroke(NamedTuple):
    """How a model is drawn: colour, dashes as in SVG ("" where the line is whole), and the name of its style."""

    colour: str
    dashes: str
    style: str


def strokes(trained: Sequence[str], baselines: Sequence[str]) -> dict[str, Stroke]:
    """A stroke for each model: colours for the trained ones, grey dashes for baselines."""
    drawn = {}
    for number, model in enumerate(dict.fromkeys(trained)):
        number %= len(MODEL_COLOURS)
        drawn[model] = Stroke(MODEL_COLOURS[number], "", f"model-{number}")
    others = [model for model in dict.fromkeys(baselines) if model not in BASELINES]
    for model in dict.fromkeys(baselines):
        number = BASELINES.index(model) if model in BASELINES else len(BASELINES) + others.index(model)
        number %= len(BASELINE_DASHES)
        drawn[model] = Stroke(BASELINE_COLOUR, BASELINE_DASHES[number], f"baseline-{number}")
    return drawn


def stroke_styles() -> str:
    """The strokes as a style sheet: lines, their bands and points, and swatches of keys."""
    rules = [f".model-{number} {{ color: {colour}; }}" for number, colour in enumerate(MODEL_COLOURS)]
    for number, dashes in enumerate(BASELINE_DASHES):
        rules.append(f".baseline-{number} {{ color: {BASELINE_COLOUR}; }}")
        rules.append(f".baseline-{number} .line {{ stroke-dasharray: {dashes}; }}")
    return "\n".join(rules) + "\n"
