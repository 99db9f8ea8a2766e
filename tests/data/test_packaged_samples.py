"""Samples that ship inside the package are named by "packaged:"."""

import pytest

from fieldcast.data.files import find_files
from fieldcast.data.netcdf import NetCDF, NetCDFConfig
from fieldcast.data.samples import radar_sample_path
from fieldcast.errors import DataError


def test_a_sample_is_found_from_anywhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert find_files(["packaged:radar_dwd_yw.nc"]) == [radar_sample_path()]
    source = NetCDF(NetCDFConfig(paths="packaged:radar_dwd_yw.nc", variables=["rainfall_amount"]))
    assert source.shape == (128, 128)


def test_a_slip_in_its_name_is_understood():
    with pytest.raises(DataError, match=r"packaged:radar.nc: no such file in the package: .*packaged:radar_dwd_yw.nc"):
        find_files("packaged:radar.nc")
