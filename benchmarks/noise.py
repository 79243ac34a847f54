r"""How far the paper's first-order treatment of measurement noise drifts from the exact one as σ_y grows.

python benchmarks/noise.py

One Gaussian on 1×6×6 images, 2×2 average pooling: relative difference of the restorations under the two noise models, 20 steps.

The paper (appendix A.5) takes ρ_i = 1 - σ_y² / (r² s_i²) for the gain and expands the exponentials: b splits into b⁰ (ρ⁰ = 1 on
the range) and δ = ∫ γ s² (ρ - ρ⁰), and exp(±(a + b)) becomes exp(±(a + b⁰)) (1 ± δ). Where r² falls toward data that gain grows
without bound and guidance pushes away from the measurement, so that the restoration drifts off, soon for a large w.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from cclight import AveragePooling, Conjugate, GaussianMixture, Problem, VPPath
from cclight.paths.guidance import gamma, posterior_variance
from cclight.samplers.coefficients import NODES, quadrature
from cclight.samplers.conjugate import State, evaluate, terms

LEVELS = (0.01, 0.02, 0.05, 0.1, 0.2, 0.5)
WEIGHTS = (2.0, 6.0, 15.0)


def perturbed_gain(values: Tensor, noise_std: float, variance: Tensor) -> Tensor:
    """ρ_i to first order in σ_y², (m, K)."""
    return torch.where(values > 0, 1 - noise_std**2 / (variance[:, None] * values**2), 0.0)


@dataclass(frozen=True)
class Perturbed(Conjugate):
    """`Conjugate` of first order with the noise to first order, for spectral operators and λ = 0."""

    def step(self, problem: Problem, n: int, state: State) -> State:
        """One step with the expanded exponentials."""
        path, parameterization, spectrum = problem.prior.path, problem.prior.parameterization, problem.spectrum
        values, noise_std = spectrum.gains.values, spectrum.gains.noise_std
        nodes, weights, cumulative = quadrature(NODES)
        start, end = (torch.tensor(time, dtype=torch.float64) for time in problem.times[n : n + 2])
        dt = end - start
        t = start + dt * nodes
        p, q = parameterization.drift(path, t)
        s, o = parameterization.coefficients(path, t)
        rho = perturbed_gain(values, noise_std, posterior_variance(path, t))
        strength = gamma(self.schedule, self.guidance, path, t)
        pull = strength * s
        rate = (pull * s)[:, None] * (rho != 0) - p[:, None]
        delta = (pull * s)[:, None] * (rho - (rho != 0).double())
        growth, back = dt * (weights @ rate), 1 - dt * (weights @ delta)
        transform = (dt * (cumulative @ rate) - growth).exp() * (dt * weights)[:, None]
        transform = transform * (1 + dt * (cumulative @ delta)) * back
        factors = (q[:, None] - (pull * o)[:, None] * rho, pull[:, None] * rho, (strength * o)[:, None])
        phi = torch.stack([(-growth).exp() * back, *((transform * factor).sum(0) for factor in factors)])
        gain = perturbed_gain(values, noise_std, posterior_variance(path, start[None]))[0]
        now = evaluate(problem, spectrum.ready(gain), state.x, problem.times[n])
        return State(spectrum.combine(terms(spectrum, spectrum.ready(phi), now)))


def drift(guidance: float, noise_std: float) -> float:
    """||perturbation - exact|| / ||exact||."""
    generator = torch.Generator().manual_seed(0)

    def normal(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    factor = 0.3 * normal(36, 8)
    covariance = factor @ factor.T + 0.1 * torch.eye(36, dtype=torch.float64)
    prior = GaussianMixture(0.4 * normal(1, 36), covariance[None], path=VPPath(), image_shape=(1, 6, 6))
    operator = AveragePooling(2)
    y = operator(prior.sample(16, generator))
    y, noise = y + noise_std * normal(*y.shape), normal(16, 1, 6, 6)
    perturbed, exact = (
        kind(20, guidance).sample(prior, operator, y, noise, noise_std=noise_std).image for kind in (Perturbed, Conjugate)
    )
    return float((perturbed - exact).norm() / exact.norm())


def main() -> None:
    """The command."""
    print("σ_y   " + "".join(f"{f'w = {weight:g}':>12}" for weight in WEIGHTS))
    for level in LEVELS:
        print(f"{level:<6g}" + "".join(f"{drift(weight, level):12.3g}" for weight in WEIGHTS), flush=True)


if __name__ == "__main__":
    main()
