"""Forecasters, one file a family, and the table that names them."""

import torch

from fieldcast.errors import ConfigError
from fieldcast.models.base import Forecaster, ModelRow, ModelSettings, count_parameters
from fieldcast.models.baselines.climatology import Climatology
from fieldcast.models.baselines.lagrangian_persistence import LagrangianPersistence
from fieldcast.models.baselines.linear_interpolation import LinearInterpolation
from fieldcast.models.baselines.optical_flow import OpticalFlow, OpticalFlowSettings
from fieldcast.models.baselines.persistence import Persistence
from fieldcast.models.baselines.ridge_regression import RidgeRegression, RidgeRegressionSettings
from fieldcast.models.conv1d import Conv1D, Conv1DSettings
from fieldcast.models.convlstm import (
    CONVLSTM_PRESETS,
    CONVLSTM_STACK_PRESETS,
    ConvLSTM,
    ConvLSTMSettings,
    ConvLSTMStack,
    ConvLSTMStackSettings,
)
from fieldcast.models.encoder_forecaster import (
    ATTENTION_ODE_DEFAULTS,
    ATTENTION_PRESETS,
    CONVGRU_PRESETS,
    ODE_DEFAULTS,
    ODE_PRESETS,
    TRAJGRU_PRESETS,
    ConvGRUSettings,
    EncoderForecaster,
    TrajGRUAttentionSettings,
    TrajGRUSettings,
)
from fieldcast.models.latent_ode import LATENT_ODE_PRESETS, LatentODE, LatentODESettings
from fieldcast.models.ode2vae import ODE2VAE, ODE2VAE_PRESETS, ODE2VAESettings
from fieldcast.models.runoff_convlstm import RUNOFF_CONVLSTM_PRESETS, RunoffConvLSTM, RunoffConvLSTMSettings
from fieldcast.models.vid_ode import VID_ODE_PRESETS, VidODE, VidODESettings
from fieldcast.settings import look_up, merge_tables, read_settings

THESIS = "the thesis on spatiotemporal sequence prediction, chapter 4"

MODELS = {
    "persistence": ModelRow(Persistence, ModelSettings, {}, "the last frame"),
    "climatology": ModelRow(Climatology, ModelSettings, {}, "the mean by hour of day or time of year"),
    "lagrangian-persistence": ModelRow(
        LagrangianPersistence, ModelSettings, {}, "Germann and Zawadzki 2002, Mon. Wea. Rev. 130, 2859"
    ),
    "linear-interpolation": ModelRow(LinearInterpolation, ModelSettings, {}, "a straight line between two inputs"),
    "optical-flow": ModelRow(OpticalFlow, OpticalFlowSettings, {}, "pysteps, Pulkkinen et al. 2019, GMD 12, 4185"),
    "ridge-regression": ModelRow(
        RidgeRegression, RidgeRegressionSettings, {}, "Hoerl and Kennard 1970, Technometrics 12, 55"
    ),
    "convgru": ModelRow(EncoderForecaster, ConvGRUSettings, CONVGRU_PRESETS, "Shi et al. 2017, arXiv:1706.03458"),
    "trajgru": ModelRow(EncoderForecaster, TrajGRUSettings, TRAJGRU_PRESETS, "Shi et al. 2017, arXiv:1706.03458"),
    "trajgru-attention": ModelRow(EncoderForecaster, TrajGRUAttentionSettings, ATTENTION_PRESETS, THESIS),
    "trajgru-ode": ModelRow(EncoderForecaster, TrajGRUAttentionSettings, ODE_PRESETS, THESIS, ODE_DEFAULTS),
    "trajgru-attention-ode": ModelRow(
        EncoderForecaster, TrajGRUAttentionSettings, ODE_PRESETS, THESIS, ATTENTION_ODE_DEFAULTS
    ),
    "convlstm": ModelRow(ConvLSTM, ConvLSTMSettings, CONVLSTM_PRESETS, "Shi et al. 2015, arXiv:1506.04214"),
    "convlstm-stack": ModelRow(
        ConvLSTMStack, ConvLSTMStackSettings, CONVLSTM_STACK_PRESETS, "OpenSTL, Tan et al. 2023, arXiv:2306.11249"
    ),
    "conv1d": ModelRow(Conv1D, Conv1DSettings, {}, "convolutions over time, at each pixel alone"),
    "vid-ode": ModelRow(VidODE, VidODESettings, VID_ODE_PRESETS, "Park et al. 2021, arXiv:2010.08188"),
    "latent-ode": ModelRow(LatentODE, LatentODESettings, LATENT_ODE_PRESETS, "Rubanova et al. 2019, arXiv:1907.03907"),
    "ode2vae": ModelRow(ODE2VAE, ODE2VAESettings, ODE2VAE_PRESETS, "Yildiz et al. 2019, arXiv:1905.10994"),
    "runoff-convlstm": ModelRow(
        RunoffConvLSTM, RunoffConvLSTMSettings, RUNOFF_CONVLSTM_PRESETS, "Boergel et al. 2025, GMD 18, 2005"
    ),
}


def model_settings(values: dict) -> tuple[str, ModelSettings]:
    """Read a [model] table: ``key``, perhaps ``preset``, and settings that override the preset's and the defaults.

    Raises:
        ConfigError: for an unknown model, preset or setting.
    """
    values = dict(values)
    if "key" not in values:
        raise ConfigError("missing key 'model.key'")
    key, preset = values.pop("key"), values.pop("preset", None)
    row: ModelRow = look_up(MODELS, key, "model")
    published = look_up(row.presets, preset, f"preset of {key}") if preset is not None else {}
    values = merge_tables(merge_tables(row.defaults, published), values)
    return key, read_settings(row.settings, values, "model", ("key", "preset"))


def build(key: str, preset: str | None = None, num_channels: int = 1, **settings) -> Forecaster:
    """Make a forecaster by name.

    Args:
        key: a name of ``MODELS``.
        preset: published settings to start from.
        num_channels: C of the frames.
        settings: override the preset, checked strictly.

    Raises:
        ConfigError: for an unknown name or setting.
    """
    if type(num_channels) is not int or num_channels < 1:
        raise ConfigError(f"num_channels = {num_channels!r}: a whole number from 1")
    chosen = {**settings, "key": key} | ({"preset": preset} if preset is not None else {})
    _, checked = model_settings(chosen)
    model = MODELS[key].forecaster(checked, num_channels)
    model.ignore_times = checked.ignore_times
    return model


def num_parameters(key: str, preset: str | None = None, num_channels: int = 1) -> int:
    """How many weights a model has, counted without making them."""
    with torch.device("meta"):
        return count_parameters(build(key, preset, num_channels))


__all__ = [
    "MODELS",
    "Forecaster",
    "ModelRow",
    "ModelSettings",
    "build",
    "count_parameters",
    "model_settings",
    "num_parameters",
]
