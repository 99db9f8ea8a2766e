"""Samples and batches: their times, what is missing, crops, several files."""

import numpy as np
import pytest
import torch
from conftest import radar_dataset

from fieldcast.data import source_settings
from fieldcast.data.batch import collate
from fieldcast.data.dataset import make_samples
from fieldcast.data.netcdf import NetCDFConfig, open_frames
from fieldcast.data.normalize import Normalizer, NormalizerSettings, Transform
from fieldcast.data.splits import SplitSettings
from fieldcast.data.times import decode_time
from fieldcast.data.windows import WindowSettings
from fieldcast.errors import DataError

MINUTE = 60 * 10**9
SPLITS = SplitSettings(train=0.5, validation=0.25, test=0.25)


def samples(dataset, normalizer=None, **windows):
    source = open_frames(dataset, NetCDFConfig(paths="unused", variables=("rain",)))
    settings = WindowSettings(**{"num_inputs": 3, "num_targets": 2, **windows})
    return make_samples(source, settings, SPLITS, normalizer or Normalizer((Transform("scale", 0.0, 8.0),)))


def test_a_batch():
    dataset = radar_dataset(60)
    batch = samples(dataset)["train"].batch([4, 0])
    assert batch.inputs.shape == (2, 3, 1, 16, 16)
    assert batch.targets.shape == batch.valid.shape == (2, 2, 1, 16, 16)
    assert batch.input_times.tolist() == [[-2, -1, 0]] * 2
    assert batch.target_times.tolist() == [[1, 2]] * 2
    assert batch.origin.tolist() == [decode_time("2018-05-10T00:30"), decode_time("2018-05-10T00:10")]
    assert batch.valid.all()
    expected = torch.from_numpy(dataset["rain"].values[4:9] / 8)
    assert torch.equal(torch.cat([batch.inputs, batch.targets], 1)[0, :, 0], expected)


def test_physical_truth():
    dataset = radar_dataset(60, missing=0.2)
    batch, truth = samples(dataset)["train"].batch_and_truth([7])
    assert np.array_equal(truth[0, :, 0].numpy(), dataset["rain"].values[10:12], equal_nan=True)
    assert torch.equal(batch.valid, ~torch.isnan(truth))


def test_missing_pixels():
    dataset = radar_dataset(60, missing=0.3)
    batch = samples(dataset, NormalizerSettings(transform="log-rate"))["train"].batch(range(5))
    assert torch.isfinite(batch.inputs).all()
    assert torch.isfinite(batch.targets).all()
    assert 0.6 < float(batch.valid.float().mean()) < 0.8
    assert (batch.targets[~batch.valid] == 0).all()
    missing = np.isnan(dataset["rain"].values[:3])
    assert (batch.inputs[0, :, 0].numpy()[missing] == 0).all()


def test_missing_frames_are_times_that_are_not_there():
    part = samples(radar_dataset(60).drop_isel(time=[2, 4]), max_gap="10 min")["train"]
    batch = part.batch([0])
    assert batch.input_times.tolist() == [[-3, -2, 0]]
    assert batch.target_times.tolist() == [[2, 3]]
    assert batch.origin.tolist() == [decode_time("2018-05-10T00:15")]


def test_times_stay_exact_far_from_1970():
    dataset = radar_dataset(60).assign_coords(time=radar_dataset(60)["time"] + np.timedelta64(200 * 365, "D"))
    batch = samples(dataset)["train"].batch([0, 9])
    assert batch.input_times.tolist() == [[-2, -1, 0]] * 2


def test_crops():
    dataset = radar_dataset(60)
    part = samples(dataset, crop=6)["train"]
    batch = part.batch([0, 3], [(10, 0), (2, 5)])
    assert batch.inputs.shape == (2, 3, 1, 6, 6)
    rain = torch.from_numpy(dataset["rain"].values / 8)
    assert torch.equal(batch.inputs[0, :, 0], rain[:3, 10:16, 0:6])
    assert torch.equal(batch.targets[1, :, 0], rain[6:8, 2:8, 5:11])
    assert part.batch([0]).inputs.shape == (1, 3, 1, 16, 16)


def test_crop_larger_than_the_map():
    with pytest.raises(DataError, match=r"windows\.crop = 17 is larger than the map 16 x 16"):
        samples(radar_dataset(60), crop=17)


def test_each_sample_alone_is_the_same():
    part = samples(radar_dataset(60, missing=0.1))["validation"]
    numbers = list(range(len(part)))
    together, alone = part.batch(numbers), collate([part.batch([number]) for number in numbers])
    assert torch.equal(together.inputs, alone.inputs)
    assert torch.equal(together.valid, alone.valid)
    assert torch.equal(together.origin, alone.origin)
    assert torch.equal(together[1:3].targets, part.batch([1, 2]).targets)


def test_several_files_are_one_archive(tmp_path):
    dataset = radar_dataset(60)
    for number, part in enumerate((slice(40, 60), slice(0, 40))):
        dataset.isel(time=part).to_netcdf(tmp_path / f"{number}.nc", engine="h5netcdf")
    settings = source_settings({"key": "netcdf", "paths": str(tmp_path / "*.nc"), "variables": ["rain"]})
    windows = WindowSettings(num_inputs=3, num_targets=2)
    parts = make_samples(settings.open(0), windows, SPLITS, settings.normalizer)
    whole = samples(dataset, NormalizerSettings())
    assert {split: len(part) for split, part in parts.items()} == {split: len(part) for split, part in whole.items()}
    for split in parts:
        assert torch.equal(parts[split].batch([0, 1]).inputs, whole[split].batch([0, 1]).inputs)


def test_generated_sequences(tiny_config):
    config = tiny_config()
    source = config.source.open(0)
    parts = make_samples(source, config.windows, config.splits, config.source.normalizer)
    batch = parts["train"].batch(range(10))
    assert batch.inputs.shape == (10, 3, 1, 32, 32)
    assert 0.3 < float(batch.inputs.max()) <= 1  # of 255, whatever the digits
    assert len({frames.numpy().tobytes() for frames in batch.inputs}) == 10
    again = make_samples(config.source.open(0), config.windows, config.splits, config.source.normalizer)
    assert torch.equal(again["train"].batch(range(10)).inputs, batch.inputs)


def test_sequences_that_are_too_short(tiny_config):
    config = tiny_config(**{"windows.num_targets": 4})
    with pytest.raises(DataError, match="a sample needs 7 frames, this source makes sequences of 6"):
        make_samples(config.source.open(0), config.windows, config.splits, config.source.normalizer)


def test_too_few_frames_name_the_longest_run():
    dataset = radar_dataset(60).drop_isel(time=range(3, 60, 4))
    with pytest.raises(DataError, match=r"0 train samples: one needs 5 frames .* above 301\.5 s, the longest run .* 3"):
        samples(dataset)
