"""Frames from files and generators, cut into samples; and the table that names the sources."""

from functools import partial
from typing import Any, NamedTuple

from fieldcast.data.batch import Batch
from fieldcast.data.dataset import Samples, make_samples
from fieldcast.data.hko7 import HKO7, HKO7Config
from fieldcast.data.kth import KTH, KTHConfig
from fieldcast.data.mackey_glass import MackeyGlass, MackeyGlassConfig
from fieldcast.data.moving_mnist import KEYS, MovingMNIST, MovingMNISTConfig
from fieldcast.data.netcdf import NetCDF, NetCDFConfig
from fieldcast.data.normalize import Normalizer, NormalizerSettings
from fieldcast.data.runoff import Runoff, RunoffConfig
from fieldcast.data.source import Source
from fieldcast.data.video import Video, VideoConfig
from fieldcast.errors import ConfigError
from fieldcast.settings import Settings, look_up, read_settings


class SourceRow(NamedTuple):
    """A row of the table of sources: its settings, how to open it with them and a seed, and what it is."""

    settings: type[Settings]
    open: Any  # (settings, seed) -> Source
    about: str


SOURCES = {
    "netcdf": SourceRow(NetCDFConfig, lambda settings, seed: NetCDF(settings), "NetCDF or Zarr files, lazily"),
    "runoff": SourceRow(RunoffConfig, lambda settings, seed: Runoff(settings), "weather maps, with the flow of rivers"),
    "hko7": SourceRow(HKO7Config, lambda settings, seed: HKO7(settings), "radar of Hong Kong, on lists of rain days"),
    "kth": SourceRow(KTHConfig, lambda settings, seed: KTH(settings), "persons in motion, split by person"),
    "video": SourceRow(VideoConfig, lambda settings, seed: Video(settings), "video files that PyAV reads"),
    "mackey-glass": SourceRow(MackeyGlassConfig, MackeyGlass, "a chaotic series, by its delay equation, at any time"),
    **{
        key: SourceRow(MovingMNISTConfig, partial(MovingMNIST, default_preset=preset), about)
        for (key, preset), about in zip(
            KEYS.items(),
            (
                "two digits that bounce (thesis; presets of Srivastava 2015 and Shi 2015)",
                "three digits that also rotate, grow and shine (thesis, HKO-7)",
                "two digits at 1, 2 or 3 times the speed (ARMA paper)",
            ),
            strict=True,
        )
    },
}


class SourceSettings(NamedTuple):
    """A [source] table, read."""

    key: str
    settings: Settings
    normalizer: NormalizerSettings

    def open(self, seed: int) -> Source:
        """Open the source; generators draw from the seed."""
        return SOURCES[self.key].open(self.settings, seed)


def source_settings(values: dict) -> SourceSettings:
    """Read a [source] table: ``key``, ``transform``, ``reflectivity``, and the source's own settings.

    Raises:
        ConfigError: for an unknown source or setting.
    """
    values = dict(values)
    if "key" not in values:
        raise ConfigError("missing key 'source.key'")
    key = values.pop("key")
    row = look_up(SOURCES, key, "source")
    shared = {name: values.pop(name) for name in NormalizerSettings.model_fields if name in values}
    own = read_settings(row.settings, values, "source", ("key", *NormalizerSettings.model_fields))
    return SourceSettings(key, own, read_settings(NormalizerSettings, shared, "source"))


__all__ = ["SOURCES", "Batch", "Normalizer", "Samples", "Source", "SourceSettings", "make_samples", "source_settings"]
