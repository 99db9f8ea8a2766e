"""Published parameter counts, exact; what a published total holds beyond ours can never receive a gradient."""

import pytest
import torch
from torch import nn

from fieldcast.models import MODELS, build, count_parameters


def conv(inputs, outputs, kernel):
    return inputs * outputs * kernel**2 + outputs


# The input convolutions of the top forecaster cell, which takes no input.
DEAD_CONVGRU = conv(128, 3 * 128, 3)
DEAD_TRAJGRU = conv(128, 3 * 128, 3) + conv(128, 128, 3)

# key, preset: live, dead, published
COUNTS = {
    ("convgru", "thesis-mnist"): (3_252_801, DEAD_CONVGRU, 3_695_553),
    ("convgru", "thesis-radar"): (3_924_801, DEAD_CONVGRU, 4_367_553),
    ("trajgru", "thesis-mnist"): (4_268_845, DEAD_TRAJGRU, 4_859_181),
    ("trajgru", "thesis-radar"): (5_576_517, DEAD_TRAJGRU, 6_166_853),
    ("convgru", "hko7-mnist-k5"): (4_767_505, 0, 4_767_505),
    ("convgru", "hko7-mnist-k7"): (8_011_537, 0, 8_011_537),
    ("convgru", "hko7-mnist-k3-d2"): (2_604_817, 0, 2_604_817),
    ("trajgru", "hko7-mnist-l5"): (2_842_157, 0, 2_842_157),
    ("trajgru", "hko7-mnist-l9"): (3_421_277, 0, 3_421_277),
    ("trajgru", "hko7-mnist-l13"): (4_000_397, 0, 4_000_397),
    ("trajgru", "hko7-mnist-l17"): (4_579_517, 0, 4_579_517),
    ("convlstm", "shi2015-1-layer"): (13_524_496, 0, 13_524_496),
    ("convlstm", "shi2015-2-layers"): (10_042_896, 0, 10_042_896),
    ("convlstm", "shi2015"): (7_585_296, 0, 7_585_296),
    ("convlstm", "shi2015-local-2-layers"): (11_550_224, 0, 11_550_224),
    ("convlstm", "shi2015-local"): (8_830_480, 0, 8_830_480),
    ("convlstm-stack", "openstl-mnist"): (11_675_648, 0, 11_675_648),
    ("trajgru-attention", "thesis-mnist"): (6_668_173, DEAD_TRAJGRU, 7_258_509),
    ("trajgru-attention", "thesis-radar"): (8_746_341, DEAD_TRAJGRU, 9_336_677),
    ("trajgru-ode", "thesis-mnist"): (8_254_349, DEAD_TRAJGRU, 8_844_685),
    ("trajgru-ode", "thesis-radar"): (10_591_077, DEAD_TRAJGRU, 11_181_413),
    ("trajgru-attention-ode", "thesis-mnist"): (9_267_501, DEAD_TRAJGRU, 9_857_837),
    ("trajgru-attention-ode", "thesis-radar"): (11_993_637, DEAD_TRAJGRU, 12_583_973),
    # Published for three channels: 1,915,718, see test_vid_ode.py.
    ("vid-ode", "park2021"): (1_897_060, 16_928, 1_913_988),
    # Published for four channels: 27,800,089, see test_runoff_convlstm.py.
    ("runoff-convlstm", "boergel2025"): (27_794_797, 0, 27_794_797),
}
# Their papers encode other frames, by other networks, and give no counts.
UNPUBLISHED = ("latent-ode", "ode2vae")


def test_dead_weights_are_those_of_the_facts():
    assert (DEAD_CONVGRU, DEAD_TRAJGRU) == (442_752, 590_336)


def test_every_preset_has_a_published_count():
    presets = {(key, preset) for key, row in MODELS.items() if key not in UNPUBLISHED for preset in row.presets}
    assert set(COUNTS) == presets


@pytest.mark.parametrize(("key", "preset"), COUNTS)
def test_live_and_dead_weights_add_up_to_the_published_count(key, preset):
    live, dead, published = COUNTS[key, preset]
    with torch.device("meta"):
        model = build(key, preset)
    assert count_parameters(model) == live
    assert live + dead == published


@pytest.mark.parametrize("preset", ["thesis-mnist", "thesis-radar"])
@pytest.mark.parametrize("key", ["convgru", "trajgru"])
def test_the_dead_weights_are_the_missing_input_of_the_top_forecaster_cell(key, preset):
    with torch.device("meta"):
        model = build(key, preset)
        top = model.forecaster[-1]
        assert top.input_gates is None
        missing = [nn.Conv2d(128, 3 * 128, 3)] + [nn.Conv2d(128, 128, 3)] * (key == "trajgru")
    assert sum(count_parameters(part) for part in missing) == COUNTS[key, preset][1]
