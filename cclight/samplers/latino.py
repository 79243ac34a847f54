r"""LATINO and InLatents: restoring images with a prior of latents.

LATINO keeps an image x. At a time t of the prior's path, with E and D the autoencoder and ρ_t = λ σ_y² α_t²/σ_t²,

    z_t = α_t E(x) + σ_t ε,     u = D(ẑ_0(z_t)),     x' = argmin_v ‖y - H v‖² + ρ_t ‖v - u‖² = u + D_t (H⁺y - P u)

no gradient passes the network or the decoder. The data step is DiffPIR's, D_t its gain (the paper fixes a weight per step and
task instead of ρ_t); it is exact where σ_y = 0. `InLatents` samples latents instead, under the operator H ∘ D, and
pays for the gradient through D.

Reference:
    Spagnoletti, Prost, Almansa, Papadakis, Pereyra, LATINO-PRO: LAtent consisTency INverse sOlver with PRompt Optimization,
    ICCV 2025, https://arxiv.org/abs/2503.12615.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from torch import Tensor

from cclight.data.noise import standard_normal
from cclight.operators.base import Operator
from cclight.operators.latent import LatentDecoding
from cclight.priors.latent import Latent
from cclight.priors.stable_diffusion import StableDiffusion
from cclight.problem import Problem
from cclight.samplers.base import Sampler
from cclight.samplers.diffpir import gain_rows
from cclight.samplers.grid import Spacing


@dataclass(frozen=True)
class LATINO(Sampler):
    """LATINO (Spagnoletti et al. 2025): eight network evaluations without gradients, for a Latent prior.

    Args:
        steps: network evaluations.
        prior_weight: λ > 0, how much the decoded estimate weighs against a noisy measurement.
        timesteps: how the steps are spaced, see `cclight.samplers.grid`.
        t_start: progress from noise (0) to data (1) at which sampling begins.
        t_end: progress at which it ends; None for the path's own end.

    Raises:
        ValueError: for values outside these ranges.
    """

    steps: int = 8
    prior_weight: float = 1.0
    timesteps: Spacing = "uniform"
    t_start: float = 0.0
    t_end: float | None = None

    divides_by_alpha = False
    reference = """@inproceedings{spagnoletti2025latino,
  title = {{LATINO-PRO}: {LA}tent consis{T}ency {IN}verse s{O}lver with {PR}ompt {O}ptimization},
  author = {Spagnoletti, Alessio and Prost, Jean and Almansa, Andr{\\'e}s and Papadakis, Nicolas and Pereyra, Marcelo},
  booktitle = {IEEE/CVF International Conference on Computer Vision},
  year = {2025}
}"""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.prior_weight <= 0:
            raise ValueError(f"prior_weight weighs the decoded estimate and is positive, got {self.prior_weight}.")

    def check(self, problem: Problem) -> None:
        super().check(problem)
        check_latent(type(self).__name__, problem)

    def begin(self, problem: Problem) -> Tensor:
        return problem.guess()

    def step(self, problem: Problem, n: int, state: Tensor) -> Tensor:
        latent, now, spectrum = problem.prior, problem.at(n), problem.spectrum
        assert isinstance(latent, Latent)
        gain = spectrum.prepare(gain_rows(latent.path, tuple(problem.times), spectrum.gains, self.prior_weight))[n]
        z = now.alpha * latent.autoencoder.encode(state) + now.sigma * latent_noise(problem, latent)
        decoded = latent.autoencoder.decode(problem.denoise(z, now.t))
        return decoded + spectrum.damp(gain, spectrum.measured(problem) - spectrum.seen(problem, decoded))


@dataclass(frozen=True)
class InLatents(Sampler):
    """A sampler in the latents of a Latent prior, under the decoder composed with the operator; what comes out is decoded.

    Args:
        sampler: one that takes any differentiable operator, such as DPS or REDDiff.
    """

    reference = StableDiffusion.reference

    sampler: Sampler
    steps: int = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "steps", self.sampler.steps)
        if self.sampler.requires is not Operator:
            raise ValueError(
                f"InLatents needs a sampler that takes any operator, and {type(self.sampler).__name__} needs a "
                f"{self.sampler.requires.__name__}: choose DPS or REDDiff."
            )
        super().__post_init__()

    def check(self, problem: Problem) -> None:
        super().check(problem)
        check_latent(type(self).__name__, problem)
        self.sampler.check(self._within(problem))

    def iterate(self, problem: Problem) -> Iterator[Tensor]:
        latent, within = problem.prior, self._within(problem)
        assert isinstance(latent, Latent)
        for z in self.sampler.iterate(within):
            problem.nfe = within.nfe
            yield latent.autoencoder.decode(z)

    def step(self, problem: Problem, n: int, state: Tensor) -> Tensor:
        return self.sampler.step(problem, n, state)

    def _within(self, problem: Problem) -> Problem:
        """The same problem, of latents."""
        latent = problem.prior
        assert isinstance(latent, Latent)
        operator = LatentDecoding(problem.operator, latent.autoencoder)
        noise = latent_noise(problem, latent)
        prior = self.sampler.along(latent.prior)
        return Problem(prior, operator, problem.y, noise, problem.noise_std, problem.generators, problem.label)


def latent_noise(problem: Problem, latent: Latent) -> Tensor:
    """Fresh standard normal latents, (B, c, h, w), each image's from its own generator."""
    assert problem.generators is not None
    shape = latent.latent_shape(tuple(problem.noise.shape[1:]))
    return standard_normal(shape, problem.generators, problem.noise.dtype, problem.noise.device)


def check_latent(name: str, problem: Problem) -> None:
    """Refuse a prior of images.

    Args:
        name: the sampler that asks.
        problem: its problem.

    Raises:
        TypeError: naming the prior and the remedy.
    """
    if not isinstance(problem.prior, Latent):
        raise TypeError(
            f"{name} needs a Latent prior, and {type(problem.prior).__name__} denoises images: choose Conjugate, PiGDM or DPS."
        )
