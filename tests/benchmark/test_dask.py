"""A Dask cluster of two worker processes does the jobs."""

import pytest
from distributed import LocalCluster

from fieldcast.benchmark.run_benchmark import benchmark


@pytest.mark.whole
def test_two_workers(small_benchmark, tmp_path):
    with LocalCluster(
        n_workers=2,
        threads_per_worker=1,
        processes=True,
        dashboard_address=None,
        local_directory=str(tmp_path / "dask"),
    ) as cluster:
        values = small_benchmark("digits", **{"training.num_steps": 2})
        values["seeds"] = [0]
        values["models"][1]["training"] = {"learning_rate": 1e30, "num_steps": 3}
        result = benchmark(values, tmp_path / "small", workers=cluster.scheduler_address)
    assert [job["state"] for job in result.jobs] == ["finished", "failed"]
    assert [row["done"] for row in result.rows[:2]] == [1, 0]
    assert result.rows[0]["scores"]["ssim"]["mean"] is not None
