import pytest
import torch

from fieldcast.errors import ConfigError
from fieldcast.explain.outputs import join_outputs, pixel_output, region_output, station_outputs

SHAPE = (2, 3, 4, 5)


def test_a_station_at_each_lead_time():
    outputs = station_outputs(["Fraser", "Bow"], [2, 0], num_stations=4, leads=[0, 1.5])
    assert outputs.names == ("Fraser +0", "Fraser +1.5", "Bow +0", "Bow +1.5")
    forecast = torch.randn(3, 2, 1, 4)
    expected = torch.stack([forecast[:, lead, 0, number] for number in (2, 0) for lead in (0, 1)], dim=1)
    assert torch.equal(outputs.of(forecast), expected)
    assert station_outputs(["Bow"], [1], num_stations=2).names == ("Bow",)


def test_a_pixel_and_a_region_together():
    region = torch.zeros(4, 5)
    region[1:3, 2:] = 1
    region[0, 0] = 0.5
    outputs = join_outputs(
        [pixel_output("gauge", SHAPE, (1, 2, 3, 4)), region_output("basin", SHAPE, 0, 1, region), region_output(
            "flagged", SHAPE, 0, 1, region == 1)]
    )  # fmt: skip
    assert outputs.names == ("gauge", "basin", "flagged") and len(outputs) == 3
    forecast = torch.randn(2, *SHAPE)
    basin = (forecast[:, 0, 1] * region).sum((1, 2)) / region.sum()
    flagged = forecast[:, 0, 1, 1:3, 2:].mean((1, 2))
    torch.testing.assert_close(outputs.of(forecast), torch.stack([forecast[:, 1, 2, 3, 4], basin, flagged], dim=1))


def test_places_outside_are_refused():
    with pytest.raises(ConfigError, match="station 4: there are 4, counted from 0"):
        station_outputs(["Bow"], [4], num_stations=4)
    with pytest.raises(ConfigError, match="column 5: the forecast has 5, counted from 0"):
        pixel_output("gauge", SHAPE, (1, 2, 3, 5))
    with pytest.raises(ConfigError, match="target -1: the forecast has 2"):
        region_output("basin", SHAPE, -1, 0, torch.ones(4, 5))
    with pytest.raises(ConfigError, match=r"region of \(5, 4\) pixels: the forecast has \(4, 5\)"):
        region_output("basin", SHAPE, 0, 0, torch.ones(5, 4))
    for region in (torch.zeros(4, 5), -torch.ones(4, 5), torch.full((4, 5), torch.nan)):
        with pytest.raises(ConfigError, match="one of them at least is above"):
            region_output("basin", SHAPE, 0, 0, region)
