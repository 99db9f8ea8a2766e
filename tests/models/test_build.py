"""What ``build`` accepts, and what it says of what it refuses."""

import pytest
import torch

from fieldcast.errors import ConfigError
from fieldcast.models import MODELS, build, model_settings


@pytest.mark.parametrize(("options", "words"), [
    ({"key": "trajgr"}, ["model 'trajgr'", "did you mean 'trajgru'?", "persistence"]),
    ({"key": "zzz"}, ["model 'zzz'", "allowed: ", *MODELS]),
    ({"key": "trajgru", "preset": "thesis-minst"}, ["of trajgru 'thesis-minst'", "did you mean 'thesis-mnist'?"]),
    ({"key": "convgru", "preset": "shi2015"}, ["preset of convgru 'shi2015'", "thesis-radar"]),
    ({"key": "persistence", "preset": "thesis-mnist"}, ["preset of persistence 'thesis-mnist'"]),
    ({"key": "trajgru", "num_link": 3}, ["'model.num_link'", "did you mean 'num_links'?"]),
    ({"key": "convgru", "num_links": 3}, ["'model.num_links'", "allowed: "]),
    ({"key": "convgru", "widths": "wide"}, ["'model.widths'", "'wide'"]),
    ({"key": "convgru", "widths": [4.5, 4, 4]}, ["'model.widths.0'", "4.5"]),
    ({"key": "convgru", "head_width": "16"}, ["'model.head_width'", "'16'"]),
    ({"key": "convgru", "memory": "relu"}, ["'model.memory'", "'relu'", "'tanh' or 'leaky'"]),
    ({"key": "convlstm", "peephole": "pixel"}, ["'model.peephole'", "'pixel'", "'none' or 'channel'"]),
    ({"key": "convgru", "widths": [4, 4]}, ["strides has 3 entries, widths has 2", "one for each layer"]),
    ({"key": "convgru", "strides": [1, 2]}, ["strides has 2 entries, widths has 3"]),
    ({"key": "trajgru", "up_widths": [4]}, ["up_widths has 1 entries, widths has 3"]),
    ({"key": "trajgru", "down_widths": [4] * 4}, ["down_widths has 4 entries, widths has 3"]),
    ({"key": "convgru", "widths": [4, 0, 4]}, ["'model.widths.1' = 0", "greater than or equal to 1"]),
    ({"key": "convgru", "strides": [1, 0, 2]}, ["'model.strides.1' = 0"]),
    ({"key": "convgru", "widths": [], "strides": []}, ["'model.widths'"]),
    ({"key": "convgru", "state_kernel": 4}, ["'model.state_kernel'", "4 is even"]),
    ({"key": "trajgru", "num_links": 0}, ["'model.num_links' = 0"]),
    ({"key": "convlstm", "patch": -4}, ["'model.patch' = -4"]),
    ({"key": ["convgru"]}, ["unknown model"]),
    ({"key": "convgru", "num_channels": 0}, ["num_channels = 0: a whole number from 1"]),
    ({"key": "persistence", "num_channels": -2}, ["num_channels = -2"]),
])  # fmt: skip
def test_a_wrong_name_or_setting_is_named_with_what_is_allowed(options, words):
    with pytest.raises(ConfigError) as caught:
        build(**options)
    for word in words:
        assert word in str(caught.value)


def test_every_fault_is_named_at_once():
    with pytest.raises(ConfigError) as caught:
        build("trajgru", num_link=3, memory="relu")
    assert "model.num_link" in str(caught.value)
    assert "model.memory" in str(caught.value)


def test_a_table_without_a_key_is_refused():
    with pytest.raises(ConfigError, match=r"missing key 'model\.key'"):
        model_settings({"preset": "thesis-mnist"})


def test_a_setting_beside_a_preset_overrides_it():
    published = model_settings({"key": "trajgru", "preset": "thesis-radar"})[1]
    key, settings = model_settings({"key": "trajgru", "preset": "thesis-radar", "num_links": 3, "widths": [4, 5, 6]})
    assert key == "trajgru"
    assert settings.num_links == 3
    assert settings.widths == (4, 5, 6)
    assert (settings.up_widths, settings.strides) == (published.up_widths, published.strides)
    model = build("trajgru", "thesis-radar", num_links=3, widths=[4, 5, 6])
    assert model.settings == settings


def test_building_changes_no_preset():
    before = {key: {name: dict(preset) for name, preset in row.presets.items()} for key, row in MODELS.items()}
    build("convgru", "thesis-mnist", widths=[2, 2, 2], head_width=2)
    assert before == {key: row.presets for key, row in MODELS.items()}


@pytest.mark.parametrize(("key", "preset"), [(key, preset) for key, row in MODELS.items() for preset in row.presets])
def test_every_preset_is_valid_by_itself(key, preset):
    with torch.device("meta"):
        model = build(key, preset, num_channels=3)
    assert model.ignore_times is False


def test_ignore_times_reaches_the_model():
    assert build("convgru", widths=[2, 2, 2], ignore_times=True).ignore_times is True
