"""What a trained forecaster looks at: its linear kernels, how faithful they are, and other attributions."""

from fieldcast.explain.run_explain import ExplainSettings, explain
from fieldcast.explain.targets import Place

__all__ = ["ExplainSettings", "Place", "explain"]
