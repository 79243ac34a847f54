r"""GuidedODE: the guided ODE itself, integrated to a tolerance by torchdiffeq's adaptive Runge-Kutta method.

    ẋ = p x + q N + γ [ s r + o Jᵀ r ],      r = D_t (H⁺y - P x̂_0)

is what `Conjugate` and `PiGDM` approximate with few steps, under the same schedule and weight: as their steps grow many they
meet this answer. It takes as many network calls as the tolerance asks for, and counts them: the reference of tests and
benchmarks, not a sampler to be fast with. Each image is integrated by itself, so that its steps are its own.

References:
    Dormand and Prince, A Family of Embedded Runge-Kutta Formulae, J. Comp. Appl. Math. 1980 (dopri5).
    Chen, torchdiffeq, 2018.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor

from cclight.paths.guidance import Schedule, gamma, posterior_variance
from cclight.problem import Problem
from cclight.samplers.base import Sampler, check_guidance
from cclight.samplers.conjugate import Conjugate
from cclight.samplers.grid import Spacing
from cclight.samplers.pigdm import guide
from cclight.samplers.spectrum import weighted

_LEAST = 1e-12  # no number of double precision, and no solver's step, means anything nearer


@dataclass(frozen=True)
class GuidedODE(Sampler):
    """The ΠGDM-guided ODE to a tolerance, with as many network evaluations and vector-Jacobian products as that takes.

    Args:
        steps: into how many parts the time is cut; each is integrated adaptively. 1 is enough: more show the way there.
        guidance: the static guidance weight w, >= 0.
        t_start: progress from noise (0) to data (1) at which integration begins, from the pseudoinverse plus noise.
        t_end: progress at which it ends; None for the path's own end, which on the OT path is singular.
        schedule: how the guidance varies with time, see `cclight.paths.guidance`.
        timesteps: how the parts are spaced, see `cclight.samplers.grid`.
        tolerance: of a step's error, relative to the image's values and absolute, at most 1 and at least 1e-12;
            of images in float32 at least 1e-7.

    Raises:
        ValueError: for a tolerance out of range or below the images' own precision, which no solver would ever reach.
    """

    steps: int = 1
    guidance: float = 15.0
    t_start: float = 0.6
    t_end: float | None = 0.999
    schedule: Schedule = "alpha2"
    timesteps: Spacing = "uniform"
    tolerance: float = 1e-5

    reference = f"""{Conjugate.reference}
@misc{{chen2018torchdiffeq,
  title = {{torchdiffeq}},
  author = {{Chen, Ricky T. Q.}},
  howpublished = {{https://github.com/rtqichen/torchdiffeq}},
  year = {{2018}}
}}"""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_guidance(self.guidance, self.schedule)
        if not _LEAST <= self.tolerance <= 1:
            raise ValueError(f"tolerance is a number from {_LEAST:g} to 1, got {self.tolerance:g}.")

    def check(self, problem: Problem) -> None:
        super().check(problem)
        least = torch.finfo(problem.noise.dtype).eps / 2
        if self.tolerance < least:
            raise ValueError(
                f"tolerance {self.tolerance:g} is finer than images of {str(problem.noise.dtype).removeprefix('torch.')} are: "
                f"give {least:.0e} or more."
            )

    def step(self, problem: Problem, n: int, state: Tensor) -> Tensor:
        from torchdiffeq import odeint

        times = torch.tensor(problem.times[n : n + 2], dtype=torch.float64)
        begun, longest, images = problem.nfe, 0, []
        for place in range(state.shape[0]):
            one, x = problem.image(place), state[place : place + 1]
            # A step ends where the time does: beyond it, on the other side of data, there is no path.
            options: dict[str, Any] = {"rtol": self.tolerance, "atol": self.tolerance, "options": {"step_t": times[1:]}}
            images.append(odeint(partial(self._velocity, one), x, times, **options)[-1])
            longest = max(longest, one.nfe)
        problem.nfe = begun + longest
        return torch.cat(images)

    def _velocity(self, problem: Problem, t: Tensor, x: Tensor) -> Tensor:
        """ẋ of one image."""
        path, spectrum, level = problem.prior.path, problem.spectrum, problem.level(float(t))
        p, q = problem.prior.parameterization.drift(path, t)
        strength = float(gamma(self.schedule, self.guidance, path, t))
        gain = spectrum.ready(spectrum.gains(posterior_variance(path, t[None]))[0])
        network, residual, vjp = guide(problem, gain, x, level.t)
        terms = [(float(p), x), (float(q), network), (strength * level.s, residual), (strength * level.o, vjp)]
        return weighted(terms)
