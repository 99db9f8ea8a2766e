"""fieldcast: learn, forecast, verify and explain fields that move."""
