r"""OT-ODE: training-free linear image inversion via flows.

The ΠGDM-guided ODE of a flow with the weight of the likelihood itself, ω = w/r², solved by Euler steps from the pseudoinverse
plus noise at t = 0.2. On `OTPath` with velocity v,

    ẋ = v + w ((1 - t)/t) (∂x̂_0/∂x)ᵀ Hᵀ (r² H Hᵀ + σ_y² I)⁻¹ (y - H x̂_0),     r² = (1 - t)²/((1 - t)² + t²),

and on every other path the same in its own α, σ. It is `PiGDM` under other settings: this class is their name.

Reference:
    Pokle, Muckley, Chen, Karrer, Training-free Linear Image Inversion via Flows, TMLR 2024 (algorithm 1).
"""

from __future__ import annotations

from collections.abc import Iterator

from torch import Tensor

from cclight.samplers.base import Problem, Sampler
from cclight.samplers.pigdm import PiGDM
from cclight.samplers.timesteps import Spacing


class OTODE(Sampler):
    """OT-ODE (Pokle et al. 2024). One network evaluation and one VJP a step. Noisy measurements need a SpectralOperator.

    Args:
        steps: network evaluations.
        guidance: w >= 0; 1 is the paper's.
        t_start: progress from noise (0) to data (1) at which sampling begins.
        timesteps: how the steps are spaced, see `cclight.samplers.timesteps`.

    Raises:
        ValueError: for values outside these ranges.
    """

    reference = """@article{pokle2024trainingfree,
  title = {Training-free Linear Image Inverses via Flows},
  author = {Pokle, Ashwini and Muckley, Matthew J. and Chen, Ricky T. Q. and Karrer, Brian},
  journal = {Transactions on Machine Learning Research},
  year = {2024}
}"""

    def __init__(self, steps: int = 100, guidance: float = 1.0, t_start: float = 0.2, timesteps: Spacing = "uniform") -> None:
        self.pigdm = PiGDM(
            steps=steps,
            guidance=guidance,
            t_start=t_start,
            schedule="inverse_variance",
            integrator="euler",
            timesteps=timesteps,
        )

    def check(self, problem: Problem) -> None:
        super().check(problem)
        self.pigdm.check(problem)

    def iterate(self, problem: Problem) -> Iterator[Tensor]:
        yield from self.pigdm.iterate(problem)
