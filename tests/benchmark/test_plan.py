"""What a benchmark's file means, and what is wrong with it."""

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fieldcast.benchmark.plan import load_plan, merge_tables, read_plan
from fieldcast.config import differences
from fieldcast.errors import ConfigError

FOLDER = Path(__file__).parents[2] / "configs" / "benchmarks"
PLAIN = st.recursive(
    st.dictionaries(st.sampled_from("abc"), st.integers(0, 3), max_size=3),
    lambda inner: st.dictionaries(st.sampled_from("abc"), st.integers(0, 3) | inner, max_size=3),
    max_leaves=8,
)


def leaves(table: dict, place: tuple = ()) -> dict:
    """Value by place, of a table of tables."""
    found = {}
    for key, value in table.items():
        found |= leaves(value, (*place, key)) if isinstance(value, dict) else {(*place, key): value}
    return found


@given(PLAIN, PLAIN)
@settings(max_examples=25, deadline=None)
def test_the_later_table_wins(first, second):
    merged, ours, theirs = leaves(merge_tables(first, second)), leaves(first), leaves(second)
    assert theirs.items() <= merged.items()
    assert merged.items() <= {**ours, **theirs}.items()
    kept = {place for place in ours if not any(place[: len(p)] == p or p[: len(place)] == place for p in theirs)}
    empty = {place for place, value in _tables(second) if not value}
    assert all(merged.get(place) == ours[place] for place in kept if not any(place[: len(e)] == e for e in empty))


def _tables(table: dict, place: tuple = ()):
    for key, value in table.items():
        if isinstance(value, dict):
            yield (*place, key), value
            yield from _tables(value, (*place, key))


def test_every_combination_is_a_job(small_benchmark):
    values = small_benchmark() | {
        "sources": [{"name": "near"}, {"name": "far", "source": {"tolerance": "3 s"}}],
        "samplings": [{"name": "dense"}, {"name": "thin", "windows": {"num_inputs": 2, "stride": "10 min"}}],
    }
    values["models"][1]["windows"] = {"num_targets": 4}
    plan = read_plan(values, "here")
    assert [job.name for job in plan.jobs] == [
        f"{source}--{sampling}--{model}--seed{seed}"
        for source in ("near", "far")
        for sampling in ("dense", "thin")
        for model in ("convgru", "trajgru")
        for seed in (0, 1)
    ]
    for job in plan.jobs:
        assert job.config.seed == job.seed
        assert job.config.model_key == job.model
        assert job.config.source.settings.tolerance == ("3 s" if job.source == "far" else None)
        assert job.config.windows.stride == ("10 min" if job.sampling == "thin" else None)
        assert job.config.windows.num_inputs == (2 if job.sampling == "thin" else 3)
        assert job.config.windows.num_targets == (4 if job.model == "trajgru" else 3)


def test_parts_that_are_not_there_have_no_name(small_benchmark):
    assert [job.name for job in read_plan(small_benchmark(), "here").jobs] == [
        *("convgru--seed0", "convgru--seed1", "trajgru--seed0", "trajgru--seed1")
    ]


FAULTS = {
    "unknown key": ({"modles": []}, r"here: unknown key 'modles': did you mean 'models'"),
    "no models": ({"models": []}, "'models'"),
    "a seed twice": ({"seeds": [1, 1]}, "'seeds': each seed once"),
    "a negative seed": ({"seeds": [-1]}, r"'seeds.0' = -1"),
    "a folder's name": ({"name": "a/b"}, "'name': 'a/b': letters, digits"),
    "a separator": ({"sources": [{"name": "a--b"}]}, r"'sources\[0\].name': 'a--b'"),
    "a name twice": ({"samplings": [{"name": "a"}, {"name": "a"}]}, "samplings: the name 'a' comes 2 times"),
    "no name": ({"sources": [{"source": {}}]}, r"missing key 'sources\[0\].name'"),
    "an unknown table": ({"sources": [{"name": "a", "window": {}}]}, r"'sources\[0\].window': did you mean 'windows'"),
    "an unknown common table": ({"common": {"modle": {}}}, r"unknown key 'common.modle': did you mean 'model'"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_is_named_with_its_place(fault, small_benchmark):
    change, message = FAULTS[fault]
    with pytest.raises(ConfigError, match=message):
        read_plan(small_benchmark() | change, "here")


def test_faults_of_all_jobs_are_told_at_once(small_benchmark):
    values = small_benchmark()
    values["models"][0]["model"]["width"] = 3
    values["models"][1]["training"] = {"learning_rate": -1.0}
    with pytest.raises(ConfigError) as caught:
        read_plan(values, "here")
    text = str(caught.value)
    assert text.startswith("here: job convgru: unknown key 'model.width': did you mean 'widths'")
    assert "; job trajgru: 'training.learning_rate' = -1.0" in text
    assert text.count("job ") == 2  # not once more for every seed


def test_a_baseline_is_no_model_of_a_benchmark(small_benchmark):
    values = small_benchmark()
    values["models"] = [{"name": "last", "model": {"key": "persistence"}}]
    with pytest.raises(ConfigError, match="job last: 'persistence' needs no training and is in every table anyway"):
        read_plan(values, "here")
    values = small_benchmark()
    values["models"][0]["name"] = "persistence"
    with pytest.raises(ConfigError, match="models: 'persistence' is a baseline's name"):
        read_plan(values, "here")


@pytest.mark.parametrize("path", sorted(FOLDER.glob("*.toml")), ids=lambda path: path.name)
def test_each_file_is_whole(path):
    plan = load_plan(path)
    assert plan.name == path.stem
    assert path.read_text().startswith("#"), "the first line says what it is for"


def test_the_sample_benchmark_compares_models_and_nothing_else():
    jobs = [job for job in load_plan(FOLDER / "radar-sample.toml").jobs if job.seed == 0]
    first, second = (job.config.resolved() for job in jobs)
    assert {place.split(".")[0] for place in differences(first, second)} == {"name", "model"}
    assert all(job.config.source.open(0).shape == (128, 128) for job in jobs)
