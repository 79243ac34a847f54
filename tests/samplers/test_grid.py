"""Time grids: their ends, their direction, and what each is even in."""

from __future__ import annotations

import pytest
import torch

from cclight import OTPath, VPPath
from cclight.samplers.grid import SPACINGS, Grid


@pytest.mark.parametrize("path", [VPPath(), OTPath()], ids=repr)
@pytest.mark.parametrize("spacing", SPACINGS)
@pytest.mark.parametrize(("t_start", "t_end"), [(0.0, None), (0.6, None), (0.2, 0.9)])
def test_runs_from_start_to_end(path, spacing, t_start, t_end):
    times = Grid(7, t_start, t_end, spacing).times(path)
    assert times.dtype == torch.float64
    ends = path.time(torch.tensor([t_start, path.last_progress if t_end is None else t_end], dtype=torch.float64))
    torch.testing.assert_close(times[[0, -1]], ends)
    assert bool((times.diff() * (path.t_data - path.t_noise) > 0).all())


def test_the_papers_grid():
    expected = 1 - torch.linspace(0.6, 0.999, 6, dtype=torch.float64)
    torch.testing.assert_close(Grid(5, 0.6, None).times(VPPath()), expected)


def test_logsnr_and_karras_are_even_where_they_say():
    path = VPPath()
    ratio = path.ratio(Grid(6, 0.2, 0.99, "logsnr").times(path))
    torch.testing.assert_close(ratio.log().diff().diff(), torch.zeros(5, dtype=torch.float64), atol=1e-9, rtol=0)
    ratio = path.ratio(Grid(6, 0.2, 0.99, "karras").times(path))
    torch.testing.assert_close((ratio ** (1 / 7)).diff().diff(), torch.zeros(5, dtype=torch.float64), atol=1e-9, rtol=0)


def test_a_start_beyond_the_default_end_is_refused():
    with pytest.raises(ValueError, match=r"t_start=0\.9995 lies beyond the end 0\.999 of the VPPath"):
        Grid(5, 0.9995, None).times(VPPath())


def test_more_steps_than_would_ever_end_are_refused():
    with pytest.raises(ValueError, match="steps must be at most 100000, got 100000001"):
        Grid(steps=100_000_001)
    Grid(steps=100_000)
