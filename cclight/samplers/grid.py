r"""Grid: at which times a sampler calls the network.

Progress u runs along the path from noise (0) to data (1); ρ = σ/α is the noise-to-signal ratio.

| spacing     | even in                                                     |
|-------------|-------------------------------------------------------------|
| `uniform`   | u, the paper's choice                                       |
| `quadratic` | √(1 - u): shorter steps toward data                         |
| `logsnr`    | ln ρ                                                        |
| `karras`    | ρ^(1/7): Karras et al., NeurIPS 2022, equation 5             |
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor

from cclight.paths.gaussian import GaussianPath

Spacing = Literal["uniform", "quadratic", "logsnr", "karras"]
SPACINGS: tuple[Spacing, ...] = ("uniform", "quadratic", "logsnr", "karras")

# Far beyond any use: a thousand steps are many, and more than this would not end.
MOST_STEPS = 100_000

# Where the ratio is 0 or infinite, at the ends of the OT path, the last two spacings reach this far and then jump to the end.
_RATIOS = (2e-3, 150.0)


@dataclass(frozen=True)
class Grid:
    """A time grid, whatever the path.

    Args:
        steps: the number of steps, 1 to 100,000.
        t_start: progress at which sampling begins, in [0, 1).
        t_end: progress at which it ends, in (t_start, 1]; None takes the path's `last_progress`.
        spacing: a row of the table above.

    Raises:
        ValueError: for values outside those ranges.
    """

    steps: int = 5
    t_start: float = 0.6
    t_end: float | None = None
    spacing: Spacing = "uniform"

    def __post_init__(self) -> None:
        if not self.steps >= 1:
            raise ValueError(f"steps must be at least 1, got {self.steps}.")
        if self.steps > MOST_STEPS:
            raise ValueError(f"steps must be at most {MOST_STEPS}, got {self.steps}.")
        if not 0 <= self.t_start < (1.0 if self.t_end is None else self.t_end) <= 1:
            raise ValueError(
                f"t_start and t_end are progress from noise (0) to data (1) with 0 <= t_start < t_end <= 1, "
                f"got t_start={self.t_start} and t_end={self.t_end}."
            )
        if self.spacing not in SPACINGS:
            raise ValueError(f"Unknown spacing of time steps {self.spacing!r}: choose one of {', '.join(SPACINGS)}.")

    def times(self, path: GaussianPath, first: float = 0.0) -> Tensor:
        """The path's times between steps, from noise toward data: (steps + 1,), float64, on the CPU.

        Args:
            path: the path.
            first: progress before which it cannot begin: `GaussianPath.first_progress` where something is divided by α.

        Raises:
            ValueError: where the path ends before t_start.
        """
        start = max(self.t_start, first)
        end = path.last_progress if self.t_end is None else self.t_end
        if start >= end:
            raise ValueError(f"t_start={self.t_start} lies beyond the end {end} of the {type(path).__name__}: choose less.")
        fraction = torch.linspace(0, 1, self.steps + 1, dtype=torch.float64)
        ends = path.time(torch.tensor([start, end], dtype=torch.float64))
        if self.spacing == "uniform":
            return path.time(start + (end - start) * fraction)
        if self.spacing == "quadratic":
            first, last = (1 - start) ** 0.5, (1 - end) ** 0.5
            return path.time(1 - (first + (last - first) * fraction) ** 2)
        first, last = path.ratio(ends).clamp(*_RATIOS).tolist()
        if self.spacing == "logsnr":
            ratio = first * (last / first) ** fraction
        else:
            ratio = (first ** (1 / 7) + (last ** (1 / 7) - first ** (1 / 7)) * fraction) ** 7
        times = path.time_at_ratio(ratio)
        times[0], times[-1] = ends
        return times

    def times_from_to(self, first: float, last: float, path: GaussianPath) -> Tensor:
        """As `times`, with the first call no later, and the last call no earlier, than where σ/α has the given values.

        A single call stays where it is.

        Args:
            first: ratio of noise to signal, >= 0.
            last: ratio of noise to signal, > 0.
            path: the path.
        """
        if self.steps == 1:
            return self.times(path, path.first_progress)
        ratios = path.time_at_ratio(torch.tensor([first, last], dtype=torch.float64).clamp(*_RATIOS))
        earliest, reached = ((ratios - path.t_noise) / (path.t_data - path.t_noise)).tolist()
        start = max(min(self.t_start, earliest), path.first_progress)
        usual = replace(self, t_start=start).times(path)
        before, end = ((usual[-2:] - path.t_noise) / (path.t_data - path.t_noise)).tolist()
        if not before < reached < end:
            return usual
        return torch.cat([Grid(self.steps - 1, start, reached, self.spacing).times(path), usual[-1:]])
