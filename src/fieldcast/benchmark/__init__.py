"""Benchmarks: models, sources, samplings and seeds, each trained and scored as a run of its own, in one table."""
