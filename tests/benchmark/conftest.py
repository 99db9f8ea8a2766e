"""Benchmarks whose jobs train in a second."""

import pytest


@pytest.fixture
def small_benchmark(tiny_values):
    """Makes plain values of a benchmark of two models and two seeds on one source; keys are of ``tiny_values``."""

    def make(source: str = "radar", **changes) -> dict:
        quick = {"evaluation.baselines": ["persistence"], "evaluation.num_resamples": 50}
        common = tiny_values(source, "convgru", **quick, **changes)
        models = {key: tiny_values(source, key)["model"] for key in ("convgru", "trajgru")}
        del common["name"], common["model"]
        return {
            "name": "small",
            "seeds": [0, 1],
            "common": common,
            "models": [{"name": name, "model": model} for name, model in models.items()],
        }

    return make
