"""The encoder-forecaster of Shi et al. 2017 and of the thesis, put together from parts."""

from fieldcast.models.encoder_forecaster.model import EncoderForecaster
from fieldcast.models.encoder_forecaster.settings import (
    ATTENTION_ODE_DEFAULTS,
    ATTENTION_PRESETS,
    CONVGRU_PRESETS,
    ODE_DEFAULTS,
    ODE_PRESETS,
    TRAJGRU_PRESETS,
    ConvGRUSettings,
    TrajGRUAttentionSettings,
    TrajGRUSettings,
)

__all__ = [
    "ATTENTION_ODE_DEFAULTS",
    "ATTENTION_PRESETS",
    "CONVGRU_PRESETS",
    "ODE_DEFAULTS",
    "ODE_PRESETS",
    "TRAJGRU_PRESETS",
    "ConvGRUSettings",
    "EncoderForecaster",
    "TrajGRUAttentionSettings",
    "TrajGRUSettings",
]
