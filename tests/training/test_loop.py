"""The loop: what is optimised, when it stops, what it writes."""

import csv
import json
import math

import numpy as np
import pytest
import torch
from conftest import radar_dataset
from pydantic import ValidationError

from fieldcast.checkpoint import checkpoints, load_checkpoint
from fieldcast.errors import ConfigError, DataError, TrainingDiverged
from fieldcast.processes import Processes, choose_device
from fieldcast.run import HISTORY, Run
from fieldcast.training import loop
from fieldcast.training.draws import crop_corners, sample_numbers, teaching_mask
from fieldcast.training.loop import load_batch, resume, train, train_step, validate
from fieldcast.training.session import OPTIMIZERS, open_session
from fieldcast.training_settings import ScheduleSettings


def opened(config, folder):
    folder.mkdir(exist_ok=True)
    return open_session(config, folder, choose_device("cpu"), Processes())


def validation_losses(monkeypatch, *losses):
    """Makes the validations of the next run give these losses."""
    waiting = iter(losses)
    monkeypatch.setattr(loop, "validate", lambda session: next(waiting))


def test_loss_goes_down_on_what_can_be_learned(tiny_config, tmp_path):
    dataset = radar_dataset()
    wave = np.arange(16)[:, None] + np.arange(16) - np.arange(60)[:, None, None]
    dataset["rain"].values = 1 + np.sin(2 * np.pi * wave / 16)
    dataset.to_netcdf(tmp_path / "wave.nc", engine="h5netcdf")
    changes = {"training.num_steps": 60, "training.learning_rate": 0.01, "training.validation.every": 20}
    config = tiny_config("radar", **changes, **{"source.paths": str(tmp_path / "wave.nc")})
    untrained = validate(opened(config, tmp_path / "untrained"))
    losses = [row["validation_loss"] for row in train(config, tmp_path / "run").history()]
    assert untrained > losses[0] > losses[2]
    assert losses[2] < untrained / 3


@pytest.mark.parametrize("model", ["convgru", "convlstm-stack"])
def test_mixed_precision_lowers_the_loss(model, tiny_config, tmp_path):
    changes = {"training.num_steps": 30, "training.learning_rate": 0.01, "training.validation.every": 15}
    run = train(tiny_config("radar", model, **changes, **{"training.precision": "bf16-mixed"}), tmp_path / "run")
    first, last = run.history()
    assert last["validation_loss"] < first["validation_loss"]
    assert all(
        tensor.dtype == torch.float32
        for tensor in load_checkpoint(checkpoints(run.checkpoint_folder)[0]).model.values()
    )


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_every_optimizer_moves_every_weight(optimizer, tiny_config, tmp_path):
    session = opened(tiny_config(**{"training.optimizer": optimizer, "training.weight_decay": 0.01}), tmp_path)
    before = {name: weight.detach().clone() for name, weight in session.model.named_parameters()}
    losses = [train_step(session, load_batch(session, step), step) for step in range(2)]
    assert all(math.isfinite(loss) for loss in losses)
    assert all(not torch.equal(weight, before[name]) for name, weight in session.model.named_parameters())


def test_history_and_files(tiny_config, tmp_path):
    changes = {"training.num_steps": 5, "training.schedule.shape": "cosine"}
    config = tiny_config(**changes)
    run = train(config, tmp_path / "run")
    with (run.folder / "history.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert tuple(rows[0]) == HISTORY
    assert [row["step"] for row in rows] == ["2", "4", "5"]
    for row, step in zip(rows, (1, 3, 4), strict=True):
        assert float(row["learning_rate"]) == pytest.approx(1e-3 * config.training.schedule.scale(step, 5))
        assert 0 < float(row["train_loss"]) < 2
        assert 0 < float(row["validation_loss"]) < 2
    assert run.status() == {"state": "finished", "exit_code": 0, "reason": "", "checkpoint": "step-00000005"}
    assert json.loads((run.folder / "config.json").read_text()) == config.resolved()
    assert json.loads((run.folder / "environment.json").read_text())["torch"] == torch.__version__
    assert run.history() == [{key: float(value) for key, value in row.items()} for row in rows]
    best = min(rows, key=lambda row: float(row["validation_loss"]))
    assert run.best.state["progress"]["step"] == int(best["step"])
    assert not run.model().training


def test_train_loss_is_the_mean_of_the_steps(tiny_config, tmp_path, monkeypatch):
    losses = []
    step = loop.train_step
    monkeypatch.setattr(loop, "train_step", lambda *args: (losses.append(step(*args)), losses[-1])[1])
    run = train(tiny_config(**{"training.num_steps": 4}), tmp_path / "run")
    assert [row["train_loss"] for row in run.history()] == pytest.approx([np.mean(losses[:2]), np.mean(losses[2:])])


@pytest.mark.parametrize("learning_rate", [1e20, 1e38])
def test_divergence(learning_rate, tiny_config, tmp_path):
    changes = {"training.optimizer": "sgd", "training.validation.every": 1}
    config = tiny_config(**changes, **{"training.learning_rate": learning_rate})
    with pytest.raises(TrainingDiverged) as caught:
        train(config, tmp_path / "run")
    assert caught.value.exit_code == 5
    run = Run(tmp_path / "run")
    assert run.status()["exit_code"] == 5
    for path in checkpoints(run.checkpoint_folder):
        assert all(torch.isfinite(tensor).all() for tensor in load_checkpoint(path).model.values())


def test_divergence_names_step_and_samples(tiny_config, tmp_path, monkeypatch):
    config = tiny_config(**{"training.num_steps": 6, "training.validation.every": 2})
    load = loop.load_batch

    def load_poisoned(session, step):
        batch = load(session, step)
        if step == 4:
            batch.inputs[1, 0, 0, 0, 0] = math.nan
        return batch

    monkeypatch.setattr(loop, "load_batch", load_poisoned)
    with pytest.raises(TrainingDiverged) as caught:
        train(config, tmp_path / "run")
    assert f"at step 5, samples {sample_numbers(0, 4, 4, 10)}: stopped before the weights were changed" in str(
        caught.value
    )
    assert "Try a lower learning_rate" in str(caught.value)
    run = Run(tmp_path / "run")
    assert run.status()["reason"] == str(caught.value)
    assert [path.name for path in checkpoints(run.checkpoint_folder)] == ["step-00000004", "step-00000002"]
    monkeypatch.setattr(loop, "load_batch", load)
    whole = train(config, tmp_path / "whole")
    gone_on = resume(run.folder)
    paths = [checkpoints(one.checkpoint_folder)[0] for one in (whole, gone_on)]
    assert all(map(torch.equal, *(load_checkpoint(path).model.values() for path in paths)))


@pytest.mark.parametrize(
    ("settings", "losses", "last"),
    [
        ({"stop": "rises"}, (5, 6, 4, 5, 6), 5),
        ({"stop": "rises"}, (5, 6, 6, 7, 6, 7), 7),
        ({"stop": "rises"}, (5, math.nan, 6, 7, 8), 5),
        ({"stop": "patience", "patience": 2}, (5, 4, 4.5, 4.2), 4),
        ({"stop": "patience", "patience": 3}, (5, 4, 4.5, 4.2, 3, 4, math.nan), 7),
        ({"stop": "never"}, (1, 2, 3, 4, 5, 6, 7), 7),
    ],
)
def test_early_stopping(settings, losses, last, tiny_config, tmp_path, monkeypatch):
    validation_losses(monkeypatch, *losses, *[9.0] * 7)
    # From 7 validations at most; a rise needs one before it, and NaN is neither a rise nor a best.
    config = tiny_config(**{"training.num_steps": 7, "training.validation": {"every": 1, **settings}})
    run = train(config, tmp_path / "run")
    assert [row["step"] for row in run.history()] == list(range(1, last + 1))
    assert run.status()["state"] == "finished"
    resume(run.folder)
    assert len(Run(run.folder).history()) == last


def test_nan_is_never_best(tiny_config, tmp_path, monkeypatch, capfd):
    validation_losses(monkeypatch, math.nan, 3.0, math.nan, 2.0, math.nan, math.nan)
    run = train(tiny_config(**{"training.validation.every": 1}), tmp_path / "run")
    assert run.best.state["progress"]["step"] == 4
    assert capfd.readouterr().err.count("not finite: never the best") == 4


def test_only_nan(tiny_config, tmp_path, monkeypatch):
    validation_losses(monkeypatch, math.nan, math.nan, math.nan)
    run = train(tiny_config(), tmp_path / "run")
    assert run.best.state["progress"]["step"] == 6
    assert run.best.state["progress"]["best_step"] == 0


def test_validation_without_any_pixel_is_nan(tiny_config, tmp_path):
    dataset = radar_dataset()
    dataset["rain"][30:45] = np.nan
    dataset.to_netcdf(tmp_path / "gap.nc", engine="h5netcdf")
    session = opened(tiny_config("radar", **{"source.paths": str(tmp_path / "gap.nc")}), tmp_path / "run")
    assert math.isnan(validate(session))


def test_validation_is_the_mean_over_the_split(tiny_config, tmp_path):
    session = opened(tiny_config("radar", **{"training.batch_size": 3}), tmp_path)
    samples = session.samples["validation"]
    batch = samples.batch(range(len(samples)))
    with torch.no_grad():
        frames = session.model.eval()(batch.inputs, batch.input_times, batch.target_times)
    errors = (frames - batch.targets)[batch.valid].double()
    assert validate(session) == pytest.approx(float(errors.square().mean() + errors.abs().mean()), rel=1e-6)


def test_max_minutes(tiny_config, tmp_path):
    config = tiny_config(**{"training.max_minutes": 1e-6, "training.validation.every": 100})
    run = train(config, tmp_path / "run")
    assert [row["step"] for row in run.history()] == [1]
    assert run.status()["state"] == "finished"
    assert [row["step"] for row in resume(run.folder).history()] == [1]


def test_schedules():
    constant = ScheduleSettings(warmup_steps=4)
    assert [constant.scale(step, 100) for step in (0, 1, 3, 4, 99)] == [0.25, 0.5, 1, 1, 1]
    cosine = ScheduleSettings(shape="cosine", floor=0.2)
    assert [cosine.scale(step, 100) for step in (0, 25, 50, 100)] == pytest.approx(
        [1, 0.2 + 0.8 * (2 + math.sqrt(2)) / 4, 0.6, 0.2]
    )
    steps = ScheduleSettings(shape="steps")  # the thesis
    assert [steps.scale(step, 200_000) for step in (0, 7999, 8000, 16000)] == pytest.approx([1, 1, 0.99, 0.9801])
    assert ScheduleSettings(shape="steps", every=1, factor=0.5).scale(10, 20) == 0.1
    with pytest.raises(ValidationError):
        ScheduleSettings(warmup_steps=-1)


def gradients(config, folder):
    session = opened(config, folder)
    loss = train_step(session, load_batch(session, 0), 0)
    return loss, {name: weight.grad.clone() for name, weight in session.model.named_parameters()}


@pytest.mark.parametrize("accumulate", [2, 4])
@pytest.mark.parametrize("ssim", [0.0, 0.5])
def test_micro_batches_add_to_the_whole(accumulate, ssim, tiny_config, tmp_path):
    dataset = radar_dataset(extent=20)
    dataset["rain"][::3, :12] = np.nan  # so that samples have very different numbers of pixels
    dataset["rain"][20:24] = np.nan
    dataset.to_netcdf(tmp_path / "uneven.nc", engine="h5netcdf")
    changes = {"source.paths": str(tmp_path / "uneven.nc"), "training.optimizer": "sgd", "loss.ssim": ssim}
    loss, whole = gradients(tiny_config("radar", **changes), tmp_path / "whole")
    other, parts = gradients(tiny_config("radar", **changes, **{"training.accumulate": accumulate}), tmp_path / "parts")
    assert other == pytest.approx(loss, rel=1e-6)
    scale = max(float(gradient.abs().max()) for gradient in whole.values())
    for name, gradient in whole.items():
        assert float((parts[name] - gradient).abs().max()) <= 1e-6 * max(scale, 1), name


def test_gradients_are_clipped(tiny_config, tmp_path):
    _, clipped = gradients(tiny_config(**{"training.clip_norm": 0.01}), tmp_path)
    norm = math.sqrt(sum(float(gradient.square().sum()) for gradient in clipped.values()))
    assert norm == pytest.approx(0.01, rel=1e-3)


def test_same_seed_same_weights_other_seed_others(tiny_config, tmp_path):
    models = [opened(tiny_config(seed=seed), tmp_path / f"{number}").model for number, seed in enumerate((3, 3, 4))]
    first, second, third = ([weight.detach() for weight in model.parameters()] for model in models)
    assert all(map(torch.equal, first, second))
    assert not any(torch.equal(a, b) for a, b in zip(first, third, strict=True) if a.ndim > 1)


def test_every_sample_once_before_any_again():
    drawn = [number for step in range(15) for number in sample_numbers(0, step, 4, 10)]
    for epoch in range(6):
        assert sorted(drawn[10 * epoch : 10 * epoch + 10]) == list(range(10))
    assert drawn[:10] != drawn[10:20]
    assert sample_numbers(0, 3, 4, 10) != sample_numbers(1, 3, 4, 10)
    assert sorted(sample_numbers(0, 0, 7, 3))[:1] == [0]


def test_crop_corners_reach_every_place():
    drawn = {corner for step in range(60) for corner in crop_corners(0, step, 4, (6, 5), 4)}
    assert drawn == {(row, column) for row in range(3) for column in range(2)}
    assert crop_corners(0, 0, 2, (4, 4), 4) == [(0, 0), (0, 0)]


def test_teaching_falls_linearly():
    shares = [float(teaching_mask(0, step, (200, 50), 10).float().mean()) for step in range(10)]
    assert shares == pytest.approx([1 - step / 10 for step in range(10)], abs=0.02)
    assert teaching_mask(0, 10, (2, 2), 10) is None
    assert teaching_mask(0, 0, (2, 2), 0) is None


def test_teaching_changes_the_gradient(tiny_config, tmp_path):
    _, taught = gradients(tiny_config("digits", "convlstm-stack", **{"training.teacher_steps": 5}), tmp_path / "taught")
    _, own = gradients(tiny_config("digits", "convlstm-stack"), tmp_path / "own")
    assert any(not torch.equal(taught[name], own[name]) for name in own)


def test_a_model_without_teacher_is_refused(tiny_config, tmp_path):
    with pytest.raises(ConfigError, match=r"training\.teacher_steps: the model 'convgru' feeds nothing back"):
        train(tiny_config(**{"training.teacher_steps": 5}), tmp_path / "run")


def test_a_batch_that_cannot_be_shared_is_refused(tiny_config, tmp_path):
    with pytest.raises(ConfigError, match=r"batch_size = 4 can't be shared by 1 processes x 3 micro-batches: .*of 3"):
        train(tiny_config(**{"training.accumulate": 3}), tmp_path / "run")


def test_a_model_without_weights_is_refused(tiny_values, tmp_path):
    from fieldcast.config import read_config

    values = tiny_values()
    values["model"] = {"key": "persistence"}
    with pytest.raises(ConfigError, match="persistence is not trained; it is a baseline"):
        train(read_config(values), tmp_path / "run")


def test_ssim_needs_frames_as_large_as_its_window(tiny_config, tmp_path):
    with pytest.raises(DataError, match="11"):
        train(tiny_config("radar", **{"windows.crop": 8, "loss.ssim": 0.1}), tmp_path / "run")


def test_batch_larger_than_the_split(tiny_config, tmp_path):
    run = train(tiny_config(**{"training.batch_size": 12, "training.num_steps": 2}), tmp_path / "run")
    assert len(run.history()) == 1


def test_tensorboard(tiny_config, tmp_path):
    pytest.importorskip("tensorboard")
    run = train(tiny_config(**{"training.tensorboard": True, "training.num_steps": 2}), tmp_path / "run")
    (path,) = (run.folder / "tensorboard").iterdir()
    assert path.stat().st_size > 100


def test_unknown_device(tiny_config, tmp_path):
    with pytest.raises(ConfigError, match="device 'tpu': allowed are auto, cpu, cuda"):
        train(tiny_config(), tmp_path / "run", device="tpu")


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_missing_cuda(tiny_config, tmp_path):
    with pytest.raises(ConfigError, match=r"no CUDA device \(torch .* sees none\): use --device cpu"):
        train(tiny_config(), tmp_path / "run", device="cuda")


@pytest.mark.parametrize("there", [True, False])
def test_mixed_precision_without_instructions_for_it_is_said(tiny_config, tmp_path, monkeypatch, capsys, there):
    monkeypatch.setattr("fieldcast.training.session.bf16_in_hardware", lambda device: there)
    config = tiny_config(**{"training.precision": "bf16-mixed", "training.num_steps": 1})
    train(config, tmp_path / "run", "cpu")
    assert ("many times slower" in capsys.readouterr().err) is not there
