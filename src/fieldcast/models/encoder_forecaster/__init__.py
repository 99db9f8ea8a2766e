"""The encoder-forecaster of Shi et al. 2017 and of the thesis, put together from parts."""

from fieldcast.models.encoder_forecaster.model import EncoderForecaster
from fieldcast.models.encoder_forecaster.settings import (
    ATTENTION_PRESETS,
    CONVGRU_PRESETS,
    ODE_PRESETS,
    TRAJGRU_PRESETS,
    ConvGRUSettings,
    TrajGRUAttentionODESettings,
    TrajGRUAttentionSettings,
    TrajGRUODESettings,
    TrajGRUSettings,
)

__all__ = [
    "ATTENTION_PRESETS",
    "CONVGRU_PRESETS",
    "ODE_PRESETS",
    "TRAJGRU_PRESETS",
    "ConvGRUSettings",
    "EncoderForecaster",
    "TrajGRUAttentionODESettings",
    "TrajGRUAttentionSettings",
    "TrajGRUODESettings",
    "TrajGRUSettings",
]
