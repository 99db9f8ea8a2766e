"""What a benchmark's file means, and what is wrong with it."""

import re
from functools import cache
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fieldcast.benchmark.plan import load_plan, read_plan
from fieldcast.config import differences, read_toml
from fieldcast.errors import ConfigError
from fieldcast.settings import merge_tables

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


def with_samplings(values: dict) -> dict:
    """A benchmark of two samplings, the second of which has irregular inputs."""
    thin = {"sampling": {"input_interval": [1, 5]}}
    return values | {"samplings": [{"name": "dense"}, {"name": "thin", **thin}]}


def test_a_model_runs_in_the_samplings_it_names(small_benchmark):
    values = with_samplings(small_benchmark())
    first, second = values["models"]
    blind = {**second, "samplings": ["thin"], "model": {**second["model"], "ignore_times": True}}
    values["models"] = [{**first, "samplings": ["dense"]}, {**second, "samplings": ["dense"]}, blind]
    jobs = [job for job in read_plan(values, "here").jobs if job.seed == 0]
    assert [(job.sampling, job.model, job.label) for job in jobs] == [
        ("dense", "convgru", "convgru"),
        ("dense", "trajgru", "trajgru"),
        ("thin", "trajgru", "trajgru (times ignored)"),
    ]


def test_a_model_that_cannot_take_a_sampling_is_refused_before_anything_starts(small_benchmark):
    values = with_samplings(small_benchmark())
    with pytest.raises(ConfigError) as caught:
        read_plan(values, "here")
    text = str(caught.value)
    assert "job thin--convgru: 'convgru' takes inputs one cadence apart only: name the model's samplings" in text
    assert "job thin--trajgru" in text
    assert "dense" not in text
    values["common"]["model"] = {"ignore_times": True}
    assert len(read_plan(values, "here").jobs) == 8
    # What a model can take depends on what it is made of.
    values["common"]["model"] = {"evolution": "decay"}
    assert len(read_plan(values, "here").jobs) == 8


@pytest.mark.parametrize(
    ("sampling", "reason"),
    [
        ({"jitter": 0.5}, "takes inputs one cadence apart only"),
        ({"task": "interpolate"}, "does not interpolate"),
        ({"real_numbers": True, "target_interval": [4, 9]}, "forecasts at whole cadences only"),
        ({"target_interval": [4, 9]}, None),
        ({"preset": "thesis-regular"}, None),
    ],
)
def test_what_settings_tell_of_times(sampling, reason, small_benchmark):
    values = small_benchmark("digits") | {"samplings": [{"name": "own", "sampling": sampling}]}
    if reason is None:
        assert len(read_plan(values, "here").jobs) == 4
    else:
        with pytest.raises(ConfigError, match=reason):
            read_plan(values, "here")


@pytest.fixture
def budgeted(small_benchmark):
    """A benchmark of two samplings with a budget that has something to say of every part."""
    values = small_benchmark() | {
        "samplings": [{"name": "dense"}, {"name": "thin", "windows": {"num_inputs": 2}}],
        "budgets": {
            "quick": {
                "seeds": [7],
                "training": {"num_steps": 2, "learning_rate": 0.5},
                "model": {"widths": [2, 2]},
                "samplings": {"thin": {"training": {"num_steps": 3}, "windows": {"stride": "10 min"}}},
                "models": {"*gru": {"model": {"head_width": 3}}, "traj*": {"training": {"num_steps": 4}}},
            },
            "none": {},
        },
    }
    values["models"][1]["training"] = {"learning_rate": 0.25, "batch_size": 2}
    return values


def test_a_budget_comes_over_everything(budgeted):
    plan = read_plan(budgeted, "here", "quick")
    assert plan.name == "small-quick"
    assert [job.name for job in plan.jobs] == [
        f"{sampling}--{model}--seed7" for sampling in ("dense", "thin") for model in ("convgru", "trajgru")
    ]
    found = [
        (config.training.num_steps, config.training.learning_rate, config.training.batch_size, config.windows.stride)
        for config in (job.config for job in plan.jobs)
    ]
    assert found == [
        (2, 0.5, 4, None),
        (4, 0.5, 2, None),
        (3, 0.5, 4, "10 min"),
        (4, 0.5, 2, "10 min"),
    ]
    assert {(job.config.model.widths, job.config.model.head_width) for job in plan.jobs} == {((2, 2), 3)}
    assert {job.config.windows.num_inputs for job in plan.jobs if job.sampling == "thin"} == {2}


def test_an_empty_budget_changes_the_name_alone(budgeted):
    plain, empty = read_plan(budgeted, "here"), read_plan(budgeted, "here", "none")
    assert (plain.name, empty.name) == ("small", "small-none")
    assert [job.config for job in plain.jobs] == [job.config for job in empty.jobs]


def test_an_unknown_budget(budgeted, small_benchmark):
    with pytest.raises(ConfigError, match=r"here: unknown budget 'quik': did you mean 'quick'\? .*none, quick"):
        read_plan(budgeted, "here", "quik")
    with pytest.raises(ConfigError, match=r"unknown budget 'small': the file has no table \[budgets.small\]"):
        read_plan(small_benchmark(), "here", "small")


BUDGET_FAULTS = {
    "a model": ({"models": {"convgur": {}}}, "budgets.quick.models: 'convgur' fits none .*did you mean 'convgru'"),
    "a pattern": ({"samplings": {"x*": {}}}, r"budgets.quick.samplings: 'x\*' fits none of the samplings"),
    "a source": ({"sources": {"near": {}}}, "budgets.quick.sources: 'near' fits none of the sources"),
    "a table": ({"trainig": {}}, "unknown key 'budgets.quick.trainig': did you mean 'training'"),
    "a model's table": (
        {"models": {"convgru": {"modle": {}}}},
        "unknown key 'budgets.quick.models.convgru.modle': did you mean 'model'",
    ),
    "seeds": ({"seeds": []}, "'budgets.quick.seeds'"),
    "no table": ({"models": 3}, "'budgets.quick.models' = 3"),
}


@pytest.mark.parametrize("fault", BUDGET_FAULTS)
def test_a_budget_is_checked_chosen_or_not(fault, small_benchmark):
    change, message = BUDGET_FAULTS[fault]
    for budget in (None, "quick"):
        with pytest.raises(ConfigError, match=message):
            read_plan(small_benchmark() | {"budgets": {"quick": change}}, "here", budget)


def test_a_budget_that_makes_jobs_wrong(budgeted):
    budgeted["budgets"]["quick"]["models"]["convgru"] = {"model": {"num_links": 2}}
    assert len(read_plan(budgeted, "here").jobs) == 8
    with pytest.raises(ConfigError, match=r"job dense--convgru: unknown key 'model\.num_links'"):
        read_plan(budgeted, "here", "quick")


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
    "a folder's name of a budget": ({"budgets": {"a b": {}}}, "'a b': letters, digits"),
    "no name": ({"sources": [{"source": {}}]}, r"missing key 'sources\[0\].name'"),
    "an unknown table": ({"sources": [{"name": "a", "window": {}}]}, r"'sources\[0\].window': did you mean 'windows'"),
    "an unknown common table": ({"common": {"modle": {}}}, r"unknown key 'common.modle': did you mean 'model'"),
}


def test_models_with_one_name_share_no_sampling(small_benchmark):
    values = with_samplings(small_benchmark())
    values["models"] = [{**values["models"][0], "samplings": names} for names in (["dense"], ["thin", "dense"])]
    with pytest.raises(ConfigError, match="models: the name 'convgru' comes 2 times in the sampling 'dense'"):
        read_plan(values, "here")
    values["models"][1]["samplings"] = ["thick"]
    with pytest.raises(ConfigError, match=r"models\[1\].samplings: no sampling 'thick': .*dense, thin"):
        read_plan(values, "here")
    values["models"][1]["samplings"] = []
    with pytest.raises(ConfigError, match=r"'models\[1\].samplings'"):
        read_plan(values, "here")


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


FILES = sorted(FOLDER.glob("*.toml"))
THESIS_FILES = [path for path in FILES if path.name.startswith("ssp-")]
BLIND = "trajgru (times ignored)"
plan_of = cache(load_plan)
SEEING = ["vid-ode", "trajgru-attention", "trajgru-ode", "trajgru-attention-ode"]


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_each_file_is_whole(path):
    assert plan_of(path, None).name == path.stem
    assert path.read_text().startswith("#"), "the first line says what it is for"
    for budget in read_toml(path).get("budgets", {}):
        assert plan_of(path, budget).name == f"{path.stem}-{budget}"


@pytest.mark.parametrize("path", THESIS_FILES, ids=lambda path: path.stem)
def test_the_thesis_and_its_small_budget(path):
    whole, small = (plan_of(path, budget).jobs for budget in (None, "small"))
    assert {(job.group, job.label) for job in whole} == {(job.group, job.label) for job in small}
    assert len(small) == 2 * len(whole), "two seeds"
    shrunk = {job.name: job.config for job in small}
    for job in whole:
        config, training = job.config, job.config.training
        assert (training.num_steps, training.batch_size, training.optimizer) == (25 * 8000, 4, "adam")
        assert (training.learning_rate, training.validation.every, training.validation.stop) == (1e-4, 8000, "rises")
        scales = [training.schedule.scale(step, training.num_steps) for step in (7999, 8000, 8000 * 1000)]
        assert scales == pytest.approx([1, 0.99, 0.1])
        assert (config.windows.num_inputs, config.windows.num_targets) == (10, 10)
        other = shrunk[job.name]
        changed = differences(config.resolved(), other.resolved())
        kept = {place for place in changed if place.startswith(("loss", "splits.train", "sampling.num_sets"))}
        assert kept <= {"splits.train"}
        parts = ("zigzag", "encoder_attention", "decoder_attention", "evolution", "ignore_times")
        assert all(getattr(config.model, part, None) == getattr(other.model, part, None) for part in parts)
        assert bool(getattr(config.model, "ode", None)) == bool(getattr(other.model, "ode", None))


def in_sampling(name: str) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for job in plan_of(FOLDER / f"{name}.toml", None).jobs:
        found.setdefault(job.sampling, []).append(job.label)
    return found


@pytest.mark.parametrize("name", ["ssp-moving-mnist", "ssp-moving-mnist-pp"])
def test_tables_5_4_and_5_6(name):
    assert in_sampling(name) == {
        "regular": ["convgru", "trajgru", *SEEING],
        "irregular-inputs": [BLIND, *SEEING],
        "irregular-targets": SEEING,
        "irregular": SEEING,
    }
    jobs = plan_of(FOLDER / f"{name}.toml", None).jobs
    counts = {job.sampling: job.config.splits.counts for job in jobs}
    rest = {"validation": 2000, "test": 5000}
    assert counts.pop("regular") == {"train": 10000, **rest}
    assert list(counts.values()) == [{"train": 32000, **rest}] * 3


@pytest.mark.parametrize("name", ["ssp-hko7", "ssp-kth"])
def test_tables_5_7_and_5_8(name):
    assert in_sampling(name) == {"regular": ["trajgru", *SEEING], "irregular": SEEING}


def test_table_b_1():
    found = {job.model: job.config.model for job in plan_of(FOLDER / "ssp-attention-layers.toml", None).jobs}
    assert len(found) == 6
    for name, chosen in found.items():
        layers = [sorted(int(layer) for layer in digits) for digits in re.findall(r"_a(\d+)", name)]
        assert layers == [list(chosen.encoder_attention), list(chosen.decoder_attention)]
        assert chosen.zigzag


def test_table_b_2():
    found = [job.config.loss.weights() for job in plan_of(FOLDER / "ssp-losses.toml", None).jobs]
    assert found == [{"mse": 1}, {"mse": 1, "mae": 1}, {"mse": 1, "mae": 1, "ssim": 0.05}]


def test_the_sample_benchmark_compares_models_and_nothing_else():
    jobs = [job for job in load_plan(FOLDER / "radar-sample.toml").jobs if job.seed == 0]
    first, second = (job.config.resolved() for job in jobs)
    assert {place.split(".")[0] for place in differences(first, second)} == {"name", "model"}
    assert all(job.config.source.open(0).shape == (128, 128) for job in jobs)
