"""Curves of training, of one run and of a benchmark's many."""

import warnings

import pytest

from fieldcast.report.figures import png, training_figure


def history(loss):
    return [
        {"step": step, "train_loss": loss / step, "validation_loss": loss, "learning_rate": 0.1, "seconds": step}
        for step in (1.0, 2.0)
    ]


@pytest.mark.parametrize("num_runs", [1, 3, 4, 20])
def test_the_curves_keep_their_room_however_many_names_there_are(num_runs):
    histories = {f"irregular--trajgru-attention-ode--seed{number}": history(1.0 + number) for number in range(num_runs)}
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        figure = training_figure(histories)
        png(figure)
    upper = figure.axes[0].get_window_extent()
    assert upper.width > 2 * figure.dpi and upper.height > 1.5 * figure.dpi
