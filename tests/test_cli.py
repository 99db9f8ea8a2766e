"""Every command on a tiny run: what goes to standard output, and how what goes wrong is said."""

import importlib
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import xarray as xr
from forecast_fixtures import make_rain, rain_file, run_values, shared_run, tiny_run  # noqa: F401

from fieldcast.cli import _values_apart, main
from fieldcast.data import SOURCES
from fieldcast.metrics import METRICS
from fieldcast.models import MODELS, build
from fieldcast.run import Run

ABILITIES = ("input times", "target times", "interpolates", "draws")


@pytest.fixture
def call(monkeypatch, capsys):
    """Run a command line in this process: (exit code, standard output, standard error)."""

    def run(*words):
        monkeypatch.setattr(sys, "argv", ["fieldcast", *map(str, words)])
        code = 0
        try:
            main()
        except SystemExit as error:
            code = error.code or 0
        written = capsys.readouterr()
        return code, written.out, written.err

    return run


@pytest.fixture
def toml(tmp_path, rain_file):  # noqa: F811
    """A configuration in a file."""

    def text(value):
        return json.dumps(value)

    values = run_values(rain_file)
    validation = values["training"].pop("validation")
    lines = [f"name = {text(values['name'])}"]
    for table in ("source", "windows", "splits", "model", "loss", "training"):
        lines += [f"[{table}]", *(f"{key} = {text(value)}" for key, value in values[table].items())]
    lines += ["[training.validation]", *(f"{key} = {text(value)}" for key, value in validation.items())]
    path = tmp_path / "tiny.toml"
    path.write_text("\n".join(lines) + "\n")
    return path


def refused(result, code, *words):
    """One line on standard error with these words, no traceback, and nothing on standard output."""
    came, out, err = result
    assert came == code, err
    assert out == ""
    assert err.startswith("error: ")
    assert err.count("\n") == 1, err
    for word in words:
        assert word in err


class TestCommands:
    def test_train_and_resume(self, call, toml, tmp_path):
        folder = tmp_path / "run"
        code, out, err = call("train", toml, "-o", folder, "--device", "cpu", "--set", "training.num_steps=2")
        assert (code, out) == (0, f"{folder}\n")
        assert "step 2" in err
        assert json.loads((folder / "config.json").read_text())["training"]["num_steps"] == 2
        assert json.loads((folder / "status.json").read_text())["state"] == "finished"
        assert f"report of the validation split: {folder / 'report.html'}" in err
        assert (folder / "report.html").is_file()
        refused(call("train", toml, "-o", folder), 2, "holds a run already", f"fieldcast resume {folder}")
        weights = {path.name: path.read_bytes() for path in folder.glob("checkpoints/*/model.safetensors")}
        assert call("resume", folder, "--device", "cpu")[:2] == (0, f"{folder}\n")
        assert weights == {path.name: path.read_bytes() for path in folder.glob("checkpoints/*/model.safetensors")}

    def test_train_goes_to_runs_by_default(self, call, toml, tmp_path, monkeypatch):
        monkeypatch.chdir(tmp_path)
        monkeypatch.setattr("fieldcast.cli._report_training", lambda run, device: None)
        code, out, _ = call("train", toml, "--device", "cpu", "--set", "training.num_steps=1")
        assert (code, out) == (0, "runs/tiny\n")

    @pytest.mark.parametrize("convention", ["fieldcast", "thesis"])
    def test_evaluate_as_json(self, call, tiny_run, convention):  # noqa: F811
        code, out, _ = call("evaluate", tiny_run.folder, "--json", "--num-samples", 2, "--convention", convention)
        assert code == 0
        document = json.loads(out)
        assert document["convention"] == convention
        assert document["attributes"]["num_samples"] == 2
        assert document["lead_time_seconds"] == [300, 600, 900]
        assert {"convgru", "persistence", "metric", "space", "units"} <= set(document["overall"][0])
        low, high = document["overall"][0]["convgru interval"]
        assert low is None or low <= document["overall"][0]["convgru"] <= high
        assert document["scores"]["mse"]["physical"]["persistence"]["overall"] > 0

    def test_evaluate_as_a_table(self, call, tiny_run):  # noqa: F811
        code, out, err = call("evaluate", tiny_run.folder, "--split", "validation", "--convention", "fieldcast")
        assert (code, err) == (0, "")
        assert "split validation" in out
        assert "(mm/h)^2" in out
        assert [line.split()[0] for line in out.splitlines() if line.startswith("+")] == ["+5", "+10", "+15"]
        assert "independent blocks" in out
        assert "against the baselines" in out
        assert "left out: ms-ssim needs frames of 176 x 176" in out
        assert "validation" in (tiny_run.folder / "report.html").read_text()

    @pytest.mark.filterwarnings("always")
    def test_forecast(self, call, tiny_run, rain_file, tmp_path):  # noqa: F811
        path = tmp_path / "out.nc"
        words = ("forecast", tiny_run.folder, rain_file, "--minutes", 5, 10, 30, "-o", path, "--device", "cpu")
        warning = "warning: 30 min is beyond the 15 min that the model was trained for\n"
        assert call(*words) == (0, f"{path}\n", warning)
        with xr.open_dataset(path, engine="h5netcdf", decode_timedelta=True) as result:
            assert (result.lead_time / 60e9).astype(int).values.tolist() == [5, 10, 30]
        refused(call(*words), 2, "exists", "--overwrite")
        assert call(*words, "--overwrite")[0] == 0

    def test_forecast_at_a_time(self, call, tiny_run, rain_file, tmp_path):  # noqa: F811
        path, times = tmp_path / "out.nc", ("2018-05-10T06:05", "2018-05-10T06:10")
        words = ("forecast", tiny_run.folder, rain_file, "-o", path, "--device", "cpu", "--at", *times)
        assert call(*words, "--minutes", 5)[0] == 0
        with xr.open_dataset(path, engine="h5netcdf", decode_timedelta=True) as result:
            assert (result.lead_time / 60e9).astype(int).values.tolist() == [5, 10, 15]
        early = call(*words, "2018-05-10T06:20", "2018-05-10T05:00", "--overwrite")
        refused(early, 2, "at = '2018-05-10T05:00'", "last input is of 2018-05-10T05:55:00")
        refused(call(*words, "2018-05-10T06:12", "--overwrite"), 3, "whole multiples", "17 min", "trajgru-ode")
        refused(call(*words, "--members", 3, "--overwrite"), 2, "convgru has one forecast", "latent-ode")

    def test_fill(self, call, tiny_run, tmp_path, monkeypatch):  # noqa: F811
        make_rain(20).isel(time=[*range(5), *range(7, 20)]).to_netcdf(tmp_path / "gappy.nc", engine="h5netcdf")
        path = tmp_path / "out.nc"
        words = ("fill", tiny_run.folder, tmp_path / "gappy.nc", "-o", path, "--device", "cpu")
        refused(call(*words), 2, "convgru forecasts only what comes after its inputs", "vid-ode")
        monkeypatch.setattr(Run, "model", lambda run, device="cpu": build("linear-interpolation"))
        refused(call(*words), 2, "learnt to fill no gap", "--longest")
        refused(call(*words, "--longest", "5min"), 2, "longest = '5min'", "longer than the cadence of 5 min")
        words += ("--longest", "15 min")
        code, out, err = call(*words)
        assert (code, out) == (0, f"{path}\n")
        assert [line.split(": ")[0] for line in err.splitlines()] == ["warning"] * 2
        with xr.open_dataset(path, engine="h5netcdf") as result:
            assert result.rain_filled.values.tolist() == [0] * 5 + [1] * 2 + [0] * 13
        refused(call(*words), 2, "exists", "--overwrite")
        assert call(*words, "--overwrite")[0] == 0
        refused(call(*words[:3], "-o", tmp_path / "no" / "out.nc"), 2, "does not exist")
        assert "longer than 10 min and stay" in call(*words, "--overwrite", "--longest", "10 min")[2]

    def test_report(self, call, tiny_run):  # noqa: F811
        code, out, _ = call("report", tiny_run.folder)
        assert (code, out) == (0, f"{tiny_run.folder / 'report.html'}\n")
        assert (tiny_run.folder / "report.html").stat().st_size > 10_000

    def test_a_report_scores_again_after_more_training(self, call, tiny_run, monkeypatch):  # noqa: F811
        from fieldcast.evaluation import evaluate, load_scores, run_tally
        from fieldcast.evaluation.files import save_scores

        shown = []
        module = importlib.import_module("fieldcast.report.run_report")
        monkeypatch.setattr(module, "write_report", lambda contents, folder: shown.append(contents) or folder)
        scores = evaluate(tiny_run, device="cpu")
        stale = scores.assign_attrs(step=scores.attrs["step"] - 1)
        stale["mse"] = scores.mse * 0
        save_scores(tiny_run, stale, run_tally(tiny_run))
        assert call("report", tiny_run.folder)[0] == 0
        xr.testing.assert_identical(load_scores(tiny_run), scores)
        xr.testing.assert_identical(shown[0].parts[0].scores, scores)

    def test_metrics(self, call):
        code, out, _ = call("metrics", "--json")
        assert code == 0
        rows = {row["metric"]: row for row in json.loads(out)}
        assert set(rows) == set(METRICS)
        assert rows["csi"]["for each"] == "threshold"
        assert rows["mse"]["units"] == "(field)^2"
        assert rows["frequency-bias"]["better"] == "nearest to 1"
        assert call("metrics")[1].startswith("metric")

    def test_models(self, call):
        code, out, _ = call("models", "--json")
        assert code == 0
        rows = json.loads(out)
        assert {row["model"] for row in rows} == set(MODELS)
        parameters = {row["preset"]: row["live parameters"] for row in rows if row["model"] == "convlstm-stack"}
        assert parameters["openstl-mnist"] == "11,675,648"
        abilities = {row["model"]: [row[name] for name in ABILITIES] for row in rows}
        assert abilities["convgru"] == ["regular", "regular", "-", "-"]
        assert abilities["trajgru-ode"] == ["any", "any", "-", "-"]
        assert abilities["vid-ode"] == ["any", "any", "yes", "-"]
        assert abilities["latent-ode"] == ["any", "any", "yes", "yes"]
        code, out, err = call("models")
        assert (code, err) == (0, "")
        for key in MODELS:
            assert key in out

    def test_sources(self, call):
        rows = json.loads(call("sources", "--json")[1])
        assert [row["source"] for row in rows] == list(SOURCES)
        assert all(row["what"] and row["settings"] for row in rows)
        assert "moving-mnist" in call("sources")[1]

    def test_doctor(self, call, tmp_path, monkeypatch):
        monkeypatch.setenv("FIELDCAST_CACHE", str(tmp_path / "not" / "yet"))
        found = json.loads(call("doctor", "--json")[1])
        assert {"fieldcast", "python", "torch", "threads", "device", "extras", "$OMP_NUM_THREADS"} <= set(found)
        assert str(tmp_path) in found["cache folder"]
        for extra, state in found["extras"].items():
            assert state == "installed" or f"fieldcast[{extra}]" in state
        assert "extra video" in call("doctor")[1]

    def test_the_version(self, call):
        code, out, _ = call("--version")
        assert code == 0
        assert out.strip()[0].isdigit()


class TestErrors:
    def test_config(self, call, toml, tmp_path):
        out = ("-o", tmp_path / "run")
        refused(call("train", tmp_path / "none.toml", *out), 2, "none.toml", "can't be read")
        refused(call("train", toml, *out, "--set", "model.widhts=[4]"), 2, "model.widhts", "did you mean 'widths'")
        refused(call("train", toml, *out, "--set", "training.num_steps='5'"), 2, "training.num_steps")
        refused(call("train", toml, *out, "--set", "model.key='trajgur'"), 2, "did you mean 'trajgru'")
        toml.write_text("name = 'a'\nname = 'b'\n")
        refused(call("train", toml, *out), 2, "line 2")
        assert not (tmp_path / "run").exists()

    def test_data(self, call, toml, tmp_path):
        words = ("train", toml, "--device", "cpu", "-o")
        refused(call(*words, tmp_path / "a", "--set", "source.paths='none/*.nc'"), 3, "no file matches")
        refused(call(*words, tmp_path / "b", "--set", "source.variables=['snow']"), 3, "no variable 'snow'")
        refused(call(*words, tmp_path / "c", "--set", "windows.num_inputs=60"), 3, "samples")

    def test_forecast_inputs(self, call, shared_run, rain_file, tmp_path):  # noqa: F811
        def run(path, *minutes):
            return call("forecast", shared_run.folder, path, "--minutes", *minutes, "-o", tmp_path / "out.nc")

        (tmp_path / "text.nc").write_text("hello, I am no NetCDF")
        refused(run(tmp_path / "text.nc", 5), 3, "not NetCDF/HDF5")
        make_rain(spacing=500.0).to_netcdf(tmp_path / "fine.nc", engine="h5netcdf")
        refused(run(tmp_path / "fine.nc", 5), 3, "spacing of 500", "1000")
        refused(run(rain_file, -5, 5), 2, "minutes")
        refused(run(rain_file, 10, 5), 2, "ascending")
        refused(run(rain_file, 7), 3, "whole multiples")
        assert not (tmp_path / "out.nc").exists()
        words = ("forecast", shared_run.folder, rain_file, "--minutes", 5, "-o", tmp_path / "no" / "out.nc")
        refused(call(*words), 2, "does not exist")

    def test_checkpoints(self, call, tiny_run, tmp_path):  # noqa: F811
        refused(call("evaluate", tmp_path), 4, "is no run")
        for path in tiny_run.checkpoint_folder.glob("*/model.safetensors"):
            path.write_bytes(path.read_bytes()[:-100])
        refused(call("evaluate", tiny_run.folder), 4, "cut short")

    def test_names(self, call, shared_run):  # noqa: F811
        refused(call("evaluate", shared_run.folder, "--split", "tset"), 2, "did you mean 'test'")
        refused(call("evaluate", shared_run.folder, "--convention", "thesys"), 2, "did you mean 'thesis'")
        refused(call("evaluate", shared_run.folder, "--device", "gpu"), 2, "gpu")

    @pytest.mark.parametrize(
        ("words", "part"),
        [
            (("modles",), "models"),
            (("evaluate",), "RUN"),
            (("evaluate", "run", "--splt", "test"), "--split"),
            (("evaluate", "run", "--num-samples", "many"), "--num-samples"),
            (("forecast", "run", "in.nc"), "--minutes"),
        ],
        ids=lambda value: " ".join(value) if isinstance(value, tuple) else value,
    )
    def test_usage(self, call, words, part):
        refused(call(*words), 2, part, "--help")

    def test_no_command_is_a_question_for_help(self, call):
        code, out, err = call()
        assert code == 2
        assert "forecast" in out + err

    @pytest.mark.parametrize("words", [("--debug", "evaluate"), ("evaluate", "--debug")])
    def test_debug_shows_where(self, call, tmp_path, words):
        with pytest.raises(ValueError, match="is no run"):
            call(*words, tmp_path)

    def test_a_fault_of_ours_is_one_line_too(self, call, monkeypatch):
        import fieldcast.doctor

        monkeypatch.setattr(fieldcast.doctor, "examine", lambda: 1 / 0)
        refused(call("doctor"), 1, "ZeroDivisionError", "--debug")

    def test_out_of_memory(self, call, monkeypatch):
        import fieldcast.doctor

        def exhaust():
            raise MemoryError

        monkeypatch.setattr(fieldcast.doctor, "examine", exhaust)
        refused(call("doctor"), 6, "out of memory", "batch_size")

    def test_ctrl_c(self, call, monkeypatch):
        import fieldcast.doctor

        def interrupt():
            raise KeyboardInterrupt

        monkeypatch.setattr(fieldcast.doctor, "examine", interrupt)
        assert call("doctor")[0] == 130


class TestProcess:
    def test_help_is_quick_and_needs_no_torch(self):
        script = (
            "import sys\nsys.argv = ['fieldcast', '--help']\nfrom fieldcast.cli import main\n"
            "try:\n    main()\nexcept SystemExit as error:\n    assert not error.code\n"
            "assert 'torch' not in sys.modules\nassert 'xarray' not in sys.modules\n"
        )
        best = float("inf")
        for _ in range(3):
            before = os.times().children_user
            found = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60)
            assert found.returncode == 0, found.stderr
            best = min(best, os.times().children_user - before)
            if best < 2:
                break
        for command in (
            "train",
            "resume",
            "evaluate",
            "forecast",
            "fill",
            "demo",
            "models",
            "sources",
            "doctor",
            "report",
        ):
            assert command in found.stdout
        # Time of the processor, since a test may share its machine.
        assert best < 2

    @pytest.mark.parametrize("command", ["metrics | head -1", "metrics --json | true"])
    def test_a_broken_pipe_is_quiet(self, command):
        found = subprocess.run(
            f"'{sys.executable}' -m fieldcast.cli {command}",
            shell=True,
            capture_output=True,
            text=True,
            timeout=120,
            executable="/bin/bash",
        )
        assert found.stderr == ""
        assert found.returncode == 0

    def test_an_error_is_one_line_and_a_code(self, tmp_path):
        words = [sys.executable, "-m", "fieldcast.cli", "train", str(tmp_path / "none.toml")]
        refused_process = subprocess.run(words, capture_output=True, text=True, timeout=120)
        refused((refused_process.returncode, refused_process.stdout, refused_process.stderr), 2, "none.toml")

    def test_the_script_is_installed(self):
        script = Path(sys.executable).with_name("fieldcast")
        if not script.exists():
            pytest.skip("fieldcast is on the path, not installed")
        found = subprocess.run([script, "--version"], capture_output=True, text=True, timeout=60)
        assert found.returncode == 0


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        (
            "forecast 10 in.nc --minutes 5 10 -2.5 1e1 -o 3 4",
            "forecast 10 in.nc --minutes 5 --minutes 10 --minutes -2.5 --minutes 1e1 -o 3 4",
        ),
        (
            "forecast --at 2018-05-20T10:07 2018-05-20T10:30:00Z --minutes 5 .5 run 2018-05-20.nc",
            "forecast --at 2018-05-20T10:07 --at 2018-05-20T10:30:00Z --minutes 5 --minutes .5 run 2018-05-20.nc",
        ),
        ("forecast --at 2018-05-20 2018-05-21 7", "forecast --at 2018-05-20 --at 2018-05-21 7"),
        ("forecast --at noon 2018-05-21", "forecast --at noon 2018-05-21"),
        ("forecast --minutes --at 2018-05-21", "forecast --minutes --at 2018-05-21"),
    ],
)
def test_several_values_without_repeating_the_option(line, expected):
    assert " ".join(_values_apart(line.split())) == expected
