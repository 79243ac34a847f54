r"""Time grids: at which times a sampler calls the network.

Progress u runs along the path from noise (0) to data (1); ρ = σ/α is the noise-to-signal ratio.

| spacing     | even in                                                     |
|-------------|-------------------------------------------------------------|
| `uniform`   | u, the paper's choice                                       |
| `quadratic` | √(1 - u): shorter steps toward data                         |
| `logsnr`    | ln ρ                                                        |
| `karras`    | ρ^(1/7): Karras et al., NeurIPS 2022, equation 5             |
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from cclight.paths.gaussian import GaussianPath

Spacing = Literal["uniform", "quadratic", "logsnr", "karras"]
SPACINGS: tuple[Spacing, ...] = ("uniform", "quadratic", "logsnr", "karras")

# Where the ratio is 0 or infinite, at the ends of the OT path, the last two spacings reach this far and then jump to the end.
_RATIOS = (2e-3, 150.0)


def check_grid(steps: int, t_start: float, t_end: float | None, spacing: str) -> None:
    """Refuse settings that make no grid; see `timesteps`.

    Raises:
        ValueError: naming the value and the expectation.
    """
    if steps < 1:
        raise ValueError(f"steps must be at least 1, got {steps}.")
    if not 0 <= t_start < (1.0 if t_end is None else t_end) <= 1:
        raise ValueError(
            f"t_start and t_end are progress from noise (0) to data (1) with 0 <= t_start < t_end <= 1, "
            f"got t_start={t_start} and t_end={t_end}."
        )
    if spacing not in SPACINGS:
        raise ValueError(f"Unknown spacing of time steps {spacing!r}: choose one of {', '.join(SPACINGS)}.")


def timesteps(path: GaussianPath, steps: int, t_start: float, t_end: float | None, spacing: Spacing = "uniform") -> Tensor:
    """The path's times between steps, from noise toward data.

    Args:
        path: the path.
        steps: the number of steps, at least 1.
        t_start: progress at which sampling begins, in [0, 1).
        t_end: progress at which it ends, in (t_start, 1]; None takes the path's `last_progress`.
        spacing: a row of the table above.

    Returns:
        steps + 1 times, float64, on the CPU.

    Raises:
        ValueError: for values outside those ranges.
    """
    check_grid(steps, t_start, t_end, spacing)
    if t_end is None:
        t_end = path.last_progress
        if t_start >= t_end:
            raise ValueError(f"t_start={t_start} lies beyond the end {t_end} of the {type(path).__name__}: choose less.")
    fraction = torch.linspace(0, 1, steps + 1, dtype=torch.float64)
    ends = path.time(torch.tensor([t_start, t_end], dtype=torch.float64))
    if spacing == "uniform":
        return path.time(t_start + (t_end - t_start) * fraction)
    if spacing == "quadratic":
        first, last = (1 - t_start) ** 0.5, (1 - t_end) ** 0.5
        return path.time(1 - (first + (last - first) * fraction) ** 2)
    first, last = path.ratio(ends).clamp(*_RATIOS).tolist()
    if spacing == "logsnr":
        ratio = first * (last / first) ** fraction
    else:
        ratio = (first ** (1 / 7) + (last ** (1 / 7) - first ** (1 / 7)) * fraction) ** 7
    times = path.time_at_ratio(ratio)
    times[0], times[-1] = ends
    return times
