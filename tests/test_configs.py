"""Every configuration in configs/ is whole, and trains for two steps when it is made small."""

import shutil
from pathlib import Path

import pytest
from hko7_fixtures import write_hko7
from river_fixtures import write_rivers

from fieldcast.config import load_config, read_toml
from fieldcast.data.samples import radar_sample_path
from fieldcast.training.loop import train

FOLDER = Path(__file__).parents[1] / "configs"
# Those of benchmarks are plans of many runs, which have tests of their own.
CONFIGS = sorted(path for path in FOLDER.rglob("*.toml") if path.parent.name != "benchmarks")
SMALL = (
    "training.num_steps=2",
    "training.batch_size=2",
    "training.validation.every=2",
    "training.validation.num_samples=1",
)
NARROW = {"head_width": 4, "flow_width": 4, "num_links": 2}
ODES = ("ode", "encoder_ode", "decoder_ode")


def shrink(path, digits_file, folder) -> tuple[str, ...]:
    """What to set so that two steps take a moment and need no data from elsewhere."""
    values, config = read_toml(path), load_config(path)
    found = list(SMALL)
    if hasattr(config.model, "widths"):
        found.append(f"model.widths={[4] * len(config.model.widths)}")
    found += [f"model.{name}={value}" for name, value in NARROW.items() if hasattr(config.model, name)]
    found += [f"model.{name}.width=4" for name in ODES if getattr(config.model, name, None) is not None]
    if values["source"]["key"] == "netcdf":
        found += [f"source.paths='{radar_sample_path()}'", "windows.crop=32"]
    elif values["source"]["key"].startswith("moving-mnist"):
        found += [f"source.digits='{digits_file}'", "source.subset=40", "source.size=32"]
        found += ["splits.train=4", "splits.validation=1", "splits.test=1"]
    elif values["source"]["key"] == "hko7":
        found += [f"source.{name}='{value}'" for name, value in write_hko7(folder, num_frames=25).items()]
        found += ["model.down_widths=[4, 4, 4]", "model.up_widths=[4, 4, 4]"]
    elif values["source"]["key"] == "runoff":
        weather, flow = write_rivers(folder)
        found += [f"source.paths='{weather}'", f"source.flow='{flow}'", "source.variables=['rain', 'warmth']"]
        found += [f"source.{name}='flow'" for name in ("flow_variable", "usual_variable") if name in values["source"]]
        found += ["splits.train=0.5", "splits.validation=0.25", "splits.test=0.25", "windows.num_inputs=5"]
        found += ["model.hidden_width=3", "model.head_widths=[4, 4]", "training.precision='float32'"]
        found += ["model.map_size=[5, 6]", "model.num_stations=4"]
    else:
        pytest.fail(f"{path} has a source that this test does not know: say here where small data come from")
    return tuple(found)


def test_there_are_not_too_many():
    assert 1 <= len(CONFIGS) <= 20


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: str(path.relative_to(FOLDER)))
class TestEach:
    def test_it_is_whole(self, path):
        config = load_config(path)
        assert config.name == "-".join(path.relative_to(FOLDER).with_suffix("").parts)
        assert path.read_text().startswith("#"), "the first line says what it is for"

    def test_two_steps(self, path, digits_file, tmp_path):
        run = train(path, tmp_path / "run", "cpu", shrink(path, digits_file, tmp_path))
        assert [row["step"] for row in run.history()] == [2]
        assert run.status()["state"] == "finished"
        shutil.rmtree(run.folder)
