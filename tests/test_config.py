"""Configurations: what is accepted, and what a user is told about each mistake."""

import dataclasses
import json
from pathlib import Path

import pytest

from fieldcast.config import differences, load_config, read_config, read_toml
from fieldcast.data.sampling import SamplingSettings
from fieldcast.errors import ConfigError
from fieldcast.settings import nearest

TEXT = """
name = "radar"
seed = 3

[source]
key = "netcdf"
paths = "radar/*.nc"
variables = ["rain"]
transform = "log-rate"

[windows]
num_inputs = 4
num_targets = 4

[splits]
train = ["2018-05-10", "2018-05-16"]
validation = ["2018-05-16", "2018-05-19"]
test = ["2018-05-19", "2018-05-21"]

[model]
key = "trajgru"
preset = "thesis-radar"
widths = [16, 24, 32]

[loss]
mse = 1.0

[training]
num_steps = 20
learning_rate = 1e-3

[training.validation]
every = 5
"""


@pytest.fixture
def write(tmp_path):
    def to_file(text: str | bytes) -> Path:
        path = tmp_path / "run.toml"
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return path

    return to_file


def message(path: Path, *overrides: str) -> str:
    with pytest.raises(ConfigError) as caught:
        load_config(path, overrides)
    assert caught.value.exit_code == 2
    assert str(caught.value).startswith(str(path)) or overrides
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_a_config(write):
    config = load_config(write(TEXT))
    assert (config.name, config.seed, config.model_key) == ("radar", 3, "trajgru")
    assert config.model.widths == (16, 24, 32)
    assert config.model.num_links == 11
    assert config.model.up_widths == (64, 96, 96)
    assert config.training.validation.every == 5
    assert config.training.batch_size == 4
    assert config.source.normalizer.transform == "log-rate"


def test_resolved_reads_back_to_the_same(write):
    config = load_config(write(TEXT))
    plain = config.resolved()
    again = read_config(json.loads(json.dumps(plain)))
    assert again.resolved() == plain
    assert dataclasses.replace(again, values=config.values) == config
    assert plain["training"]["schedule"]["shape"] == "constant"


@pytest.mark.parametrize("source", ["digits", "radar"])
@pytest.mark.parametrize("model", ["convgru", "trajgru", "convlstm", "convlstm-stack"])
def test_every_model_and_source_reads_back(source, model, tiny_config):
    config = tiny_config(source, model)
    assert read_config(json.loads(json.dumps(config.resolved()))).resolved() == config.resolved()


def test_byte_order_mark_and_line_ends(write):
    wanted = load_config(write(TEXT))
    assert load_config(write(b"\xef\xbb\xbf" + TEXT.encode())) == wanted
    assert load_config(write(TEXT.replace("\n", "\r\n"))) == wanted
    assert load_config(write(b"\xef\xbb\xbf" + TEXT.replace("\n", "\r\n").encode())) == wanted


@pytest.mark.parametrize("mark", [b"", b"\xef\xbb\xbf"])
def test_not_utf8_names_the_byte(write, mark):
    text = mark + b'name = "K\xf6ln"\n'
    assert f"not UTF-8 at byte {text.index(0xF6)}: save it as UTF-8" in message(write(text))


def test_utf16_is_refused(write):
    assert "not UTF-8 at byte 0" in message(write(TEXT.encode("utf-16")))


# The ten commonest mistakes: each with what it says.
MISTAKES = {
    "a misspelt key": ("num_steps = 20", "num_step = 20", "unknown key 'training.num_step': did you mean 'num_steps'?"),
    "a misspelt key below": ("every = 5", "evry = 5", "unknown key 'training.validation.evry': did you mean 'every'?"),
    "a misspelt table": ("[loss]", "[los]", "unknown key 'los': did you mean 'loss'?"),
    "a misspelt model": ('"trajgru"', '"trajgur"', "unknown model 'trajgur': did you mean 'trajgru'?"),
    "a misspelt source": ('"netcdf"', '"netcfd"', "unknown source 'netcfd': did you mean 'netcdf'?"),
    "a misspelt preset": (
        "thesis-radar",
        "thesis-rader",
        "unknown preset of trajgru 'thesis-rader': did you mean 'thesis-r",
    ),
    "a number as text": (
        "num_steps = 20",
        'num_steps = "20"',
        "'training.num_steps' = '20': input should be a valid int",
    ),
    "a missing key": ("num_steps = 20", "", "missing key 'training.num_steps'"),
    "a missing table": ("[loss]\nmse = 1.0", "", "missing table [loss]"),
    "a number out of range": ("1e-3", "-1e-3", "'training.learning_rate' = -0.001: input should be greater than 0"),
    "not a number": ("1e-3", "nan", "'training.learning_rate' = nan: input should be a finite number"),
    "a choice that is none": (
        '"log-rate"',
        '"lograte"',
        "'source.transform' = 'lograte': input should be 'identity', 's",
    ),
    "a half number": (
        "num_inputs = 4",
        "num_inputs = 4.5",
        "'windows.num_inputs' = 4.5: input should be a valid",
    ),
    "a wrong item": ("[16, 24, 32]", '[16, "24", 32]', "'model.widths.1' = '24': input should be a valid integer"),
    "unequal depths": ("[16, 24, 32]", "[16, 24]", "'model': strides has 3 entries, widths has 2: one for each layer"),
    "no loss": (
        "mse = 1.0",
        "mse = 0.0",
        "'loss': every weight is 0; set at least one of mse, mae",
    ),
    "a negative seed": ("seed = 3", "seed = -3", "'seed' = -3: a whole number from 0"),
    "a path as name": ('"radar"', '"runs/radar"', "'name' = 'runs/radar': a short text without '/'"),
    "a syntax error": ("num_inputs = 4", "num_inputs = ", "Invalid value (at line 12, column 14)"),
    "a key twice": ("seed = 3", "seed = 3\nseed = 4", "Cannot overwrite a value (at line 4, column 9)"),
    "a bad duration": (
        "num_inputs = 4",
        'num_inputs = 4\nmax_gap = "5 m"',
        "'windows': '5 m' is not a duration: write",
    ),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_mistake(mistake, write):
    right, wrong, said = MISTAKES[mistake]
    assert right in TEXT
    assert said in message(write(TEXT.replace(right, wrong, 1)))


def test_all_mistakes_at_once(write):
    text = TEXT
    for mistake in (
        "a misspelt key below",
        "a misspelt model",
        "a number as text",
        "a negative seed",
        "a missing table",
    ):
        right, wrong, _ = MISTAKES[mistake]
        text = text.replace(right, wrong, 1)
    said = message(write(text))
    for part in (
        "'training.validation.evry'",
        "model 'trajgur'",
        "'training.num_steps' = '20'",
        "'seed' = -3",
        "[loss]",
    ):
        assert part in said


def test_empty_file_names_every_table(write):
    said = message(write(""))
    for table in ("source", "windows", "splits", "model", "loss", "training"):
        assert f"missing table [{table}]" in said
    assert "'name' = None" in said


def test_missing_file(tmp_path):
    assert "can't be read (No such file or directory)" in message(tmp_path / "none.toml")
    assert "can't be read (Is a directory)" in message(tmp_path)


def test_overrides(write):
    overrides = ("training.num_steps=3", "model.widths=[2, 2, 2]", "name=other", "training.validation.stop=rises")
    config = load_config(
        write(TEXT), (*overrides, "splits.train=['2018-05-01', '2018-05-02']", "windows.stride=10 min")
    )
    assert config.training.num_steps == 3
    assert config.model.widths == (2, 2, 2)
    assert config.name == "other"
    assert config.training.validation.stop == "rises"
    assert config.training.validation.every == 5
    assert config.splits.train == ("2018-05-01", "2018-05-02")
    assert config.windows.stride == "10 min"
    assert load_config(write(TEXT), ("training.schedule.shape=cosine",)).training.schedule.shape == "cosine"


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("training.num_step=3", "unknown key 'training.num_step': did you mean 'num_steps'?"),
        ("num_steps=3", "unknown key 'num_steps'"),
        ("training.num_steps", "'training.num_steps': an override is table.key=value"),
        ("training.num_steps=many", "'training.num_steps' = 'many': input should be a valid integer"),
        ("seed.value=3", "'seed.value=3': 'seed' is no table"),
    ],
)
def test_wrong_overrides(write, override, said):
    assert said in message(write(TEXT), override)


def test_what_is_scored_may_be_left_out_and_has_defaults_by_units(write):
    evaluation = load_config(write(TEXT)).evaluation
    assert evaluation.events_of("mm/h") == ((0.5, 2, 5, 10, 30), (1, 1, 2, 5, 10, 30))
    assert evaluation.events_of("K") == ((), ())
    named = load_config(write(TEXT), ("evaluation.thresholds=[1.0, 4.0]",)).evaluation
    assert named.events_of("mm/h") == named.events_of("K") == ((1.0, 4.0), ())


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("evaluation.baselines=['persistance']", "unknown baseline 'persistance': did you mean 'persistence'?"),
        ("evaluation.baselines=['convgru']", "unknown baseline 'convgru'"),
        ("evaluation.thresholds=[2.0, 1.0]", "thresholds = [2.0, 1.0]: ascending, each once"),
        ("evaluation.weights=[1.0]", "one more than thresholds"),
        ("evaluation.scales=[4]", "4 is even"),
        ("evaluation.event=above", "evaluation.event"),
        ("evaluation.block_length=long", "long"),
        ("evaluation.confidence=1.5", "evaluation.confidence"),
        ("evaluation.treshold=[1.0]", "unknown key 'evaluation.treshold': did you mean 'thresholds'?"),
    ],
)
def test_wrong_evaluation(write, override, said):
    assert said in message(write(TEXT), override)


SAMPLING = """
[sampling]
preset = "thesis-irregular"
input_interval = [1, 6]
target_interval = [7, 12]
num_sets = 8
jitter = 0.25
seed = 4

[sampling.gaps]
rate = 0.25
"""


def test_sampling_may_be_left_out(write):
    config = load_config(write(TEXT))
    assert config.sampling == SamplingSettings()
    assert read_config({**config.resolved(), "sampling": {}}).sampling == config.sampling


def test_sampling_reads_back_with_its_preset_filled_in(write):
    path = write(TEXT + SAMPLING)
    config = load_config(path, ("windows.max_gap=20 min",))
    plain = config.resolved()["sampling"]
    assert (plain["input_interval"], plain["num_sets"], plain["gaps"]) == (
        [1, 6],
        8,
        {"rate": 0.25, "mean_length": None},
    )
    again = read_config(json.loads(json.dumps(config.resolved())))
    assert again.sampling == config.sampling
    thesis = load_config(
        path, ("windows.max_gap=20 min", "sampling.gaps.rate=0.5", "sampling.num_sets='fresh'")
    ).sampling
    assert (thesis.gaps.rate, thesis.num_sets) == (0.5, "fresh")


@pytest.mark.parametrize(
    ("override", "said"),
    [
        (
            "sampling.preset=thesis-iregular",
            "'sampling': unknown preset 'thesis-iregular': did you mean 'thesis-irregular'",
        ),
        ("sampling.num_set=3", "unknown key 'sampling.num_set': did you mean 'num_sets'?"),
        ("sampling.num_sets=1000000", "sampling.num_sets = 1000000: the intervals have 60 distinct sets"),
        ("windows.num_inputs=7", "sampling.input_interval = [1, 6] holds 6 frames, fewer than windows.num_inputs = 7"),
        ("sampling.task=interpolate", "sampling.target_interval = [7, 12]: to interpolate, within [2, 5]"),
        ("windows.stride=5 min", "sampling: gaps and bursts need windows.max_gap"),
    ],
)
def test_wrong_sampling(write, override, said):
    others = () if override.startswith("windows.stride") else ("windows.max_gap=20 min",)
    assert said in message(write(TEXT + SAMPLING), override, *others)


def test_differences():
    before = {"a": 1, "b": {"c": [1], "d": None}, "e": {"f": 1}}
    after = {"a": 1, "b": {"c": [2], "d": None}, "e": 3, "g": 4}
    assert differences(before, after) == {"b.c", "e", "g"}
    assert differences(before, before) == set()


def test_values_are_plain(write):
    assert read_toml(write(TEXT))["splits"]["train"] == ["2018-05-10", "2018-05-16"]


def test_of_very_many_names_a_message_lists_some():
    rivers = [f"river {number:03}" for number in range(226)]
    said = nearest("rivr 017", rivers)
    assert said.startswith("did you mean 'river 017'? (allowed: river 000, ") and said.endswith(" and 166 more)")
    assert nearest("b", ["a", "c"]) == "allowed: a, c"
