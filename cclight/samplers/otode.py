r"""OT-ODE: training-free linear image inversion via flows.

The ΠGDM-guided ODE of a flow with the weight of the likelihood itself, ω = w/r², solved by Euler steps from the pseudoinverse
plus noise at t = 0.2. On `OTPath` with velocity v,

    ẋ = v + w ((1 - t)/t) (∂x̂_0/∂x)ᵀ Hᵀ (r² H Hᵀ + σ_y² I)⁻¹ (y - H x̂_0),     r² = (1 - t)²/((1 - t)² + t²),

A prior on another path is seen along this one (`cclight.priors.retimed`): Euler steps on the curved path of diffusion leave the
range of images. It is `PiGDM` under other settings: this class is their name.

Reference:
    Pokle, Muckley, Chen, Karrer, Training-free Linear Image Inversion via Flows, TMLR 2024 (algorithm 1).
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from cclight.paths.gaussian import OTPath
from cclight.paths.parameterization import Velocity
from cclight.priors.base import Prior
from cclight.priors.retimed import Retimed
from cclight.problem import Problem
from cclight.samplers.base import Sampler
from cclight.samplers.grid import Spacing
from cclight.samplers.pigdm import PiGDM


@dataclass(frozen=True)
class OTODE(Sampler):
    """OT-ODE (Pokle et al. 2024). One network evaluation and one VJP a step.

    Args:
        steps: network evaluations.
        guidance: w >= 0; 1 is the paper's.
        t_start: progress from noise (0) to data (1) at which sampling begins.
        timesteps: how the steps are spaced, see `cclight.samplers.grid`.
        t_end: progress at which it ends; None for the path's own end.
    """

    steps: int = 100
    guidance: float = 1.0
    t_start: float = 0.2
    timesteps: Spacing = "uniform"
    t_end: float | None = None

    reference = """@article{pokle2024trainingfree,
  title = {Training-free Linear Image Inverses via Flows},
  author = {Pokle, Ashwini and Muckley, Matthew J. and Chen, Ricky T. Q. and Karrer, Brian},
  journal = {Transactions on Machine Learning Research},
  year = {2024}
}"""

    def __post_init__(self) -> None:
        super().__post_init__()
        _ = self.pigdm

    @property
    def pigdm(self) -> PiGDM:
        """The sampler that this one is."""
        return PiGDM(
            self.steps,
            self.guidance,
            t_start=self.t_start,
            t_end=self.t_end,
            schedule="inverse_variance",
            integrator="euler",
            timesteps=self.timesteps,
        )

    def along(self, prior: Prior) -> Prior:
        return prior if isinstance(prior.path, OTPath) else Retimed(prior, OTPath(), Velocity())

    def step(self, problem: Problem, n: int, state: Tensor) -> Tensor:
        return self.pigdm.step(problem, n, state)
