r"""The coefficient table of the conditional conjugate integrators, by Gauss-Legendre quadrature on each step.

With r_t = H⁺y - P x̂_0 and the gain ρ_i(t) of each singular direction (1 on the range and 0 on the null space when σ_y = 0), the
guided ODE reads, direction by direction,

    ẋ = (p - γ s² ρ) x + (q - γ s o ρ) N + γ s ρ H⁺y + γ o g,      g = Jᵀ D r.

x̄ = A_t x with A_t = exp(a + b), a = ∫ (λ - p), b = ∫ γ s² ρ, both from t_n anew in each step (the local form: no exponent is
large), turns it into

    dx̄/dt = λ x̄ + A [ (q - γ s o ρ) N + γ s ρ H⁺y + γ o g ].

Each row f of it has two integrals over a step, already brought back by E = exp(-(Δa + Δb)):

    Φ = E ∫ A f dt,      Φ' = E ∫ A f (t - t_n)/Δt_n dt,      and for λ x̄:  Φ = E (1 + λ Δt),  Φ' = E λ Δt / 2.

With them every scheme is a sum of Φ's over the values v = x, N, H⁺y, g, with r = Δt_n/Δt_{n-1}:

| scheme            | weight of v_n | of the other evaluation                                            |
|-------------------|---------------|--------------------------------------------------------------------|
| Euler             | Φ             |                                                                    |
| Adams-Bashforth 2 | Φ + r Φ'      | -r Φ' at t_{n-1}, whose x̄ the step before has brought into this frame |
| Heun              | Φ - Φ'        | Φ' at t_{n+1}                                                       |

Reference:
    Pandey, Yang, Mandt, Fast Samplers for Inverse Problems in Iterative Refinement Models, NeurIPS 2024
    (proposition 2, appendices A.5 and C).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property, lru_cache

import numpy as np
import torch
from torch import Tensor

from cclight.paths.gaussian import GaussianPath
from cclight.paths.guidance import Schedule, gamma, posterior_variance
from cclight.paths.parameterization import Parameterization
from cclight.samplers.grid import Grid
from cclight.samplers.spectrum import Gains

# Enough for rounding error on every step of every schedule, a step that ends close to the singular end of the VP path included.
NODES = 96
ROWS = ("x", "network", "target", "vjp")


@dataclass(frozen=True, eq=False)
class Table:
    """Φ and Φ' of every step, float64 on the CPU; K directions as in cclight.samplers.spectrum.

    Attributes:
        starts: (steps,), where each step begins: earlier than the one before ended under churn.
        spans: (steps,), Δt.
        phi: (steps, 4, K), Φ of x, N, H⁺y and g.
        slope: (steps, 4, K), their Φ'.
        decay: (steps, K), E.
        gain: (steps, K), ρ_i(t_n), for D_t inside the VJP.
    """

    starts: list[float]
    spans: Tensor
    phi: Tensor
    slope: Tensor
    decay: Tensor
    gain: Tensor

    @cached_property
    def adams_bashforth(self) -> tuple[Tensor, Tensor]:
        """The weights of v_n and v_{n-1}, each (steps, 4, K); the first step is Euler's."""
        ratio = torch.zeros_like(self.spans)
        ratio[1:] = self.spans[1:] / self.spans[:-1]
        before = -ratio[:, None, None] * self.slope
        now = self.phi - before
        before[1:, 0] *= self.decay[:-1]
        return now, before

    @cached_property
    def heun(self) -> tuple[Tensor, Tensor]:
        """The weights of v_n and of v at the step's end, each (steps, 4, K)."""
        return self.phi - self.slope, self.slope


@lru_cache(maxsize=4)
def quadrature(nodes: int) -> tuple[Tensor, Tensor, Tensor]:
    """Gauss-Legendre quadrature on [0, 1].

    Returns:
        The nodes (m,), the weights (m,), and the matrix (m, m) that gives ∫ from 0 to each node, exact for polynomials of
        degree m - 1; float64.
    """
    x, w = np.polynomial.legendre.leggauss(nodes)
    values = np.polynomial.legendre.legvander(x, nodes)  # P_k at the nodes, k = 0 ... m
    # ∫_{-1}^x P_k = (P_{k+1} - P_{k-1}) / (2k + 1), and x + 1 for k = 0.
    k = np.arange(nodes)
    integrals = np.empty((nodes, nodes))
    integrals[:, 0] = x + 1
    integrals[:, 1:] = (values[:, 2:] - values[:, :-2]) / (2 * k[1:] + 1)
    cumulative = (integrals * (k + 0.5)) @ (values[:, :nodes] * w[:, None]).T
    return tuple(torch.from_numpy(a) for a in ((x + 1) / 2, w / 2, cumulative / 2))  # type: ignore[return-value]


# Bounded, and keyed by what the numbers follow from: no setting can change under a table, and no operator is kept alive.
@lru_cache(maxsize=16)
def conjugate_table(
    path: GaussianPath,
    parameterization: Parameterization,
    grid: Grid,
    gains: Gains,
    schedule: Schedule,
    guidance: float,
    lam: float = 0.0,
    churn: float = 0.0,
) -> Table:
    """The table of a time grid.

    Args:
        path: the prior's path.
        parameterization: what N is.
        grid: the time grid.
        gains: ρ_i at every variance.
        schedule: the guidance schedule ω.
        guidance: its weight w.
        lam: λ.
        churn: by how much, less one, the noise-to-signal ratio is raised before each step but the first.
    """
    times = grid.times(path, path.first_progress)
    starts = times[:-1].clone()
    if churn:
        ratio = (path.ratio(times[1:-1]) * (1 + churn)).clamp(max=float(path.ratio(times[0])))
        starts[1:] = path.time_at_ratio(ratio)
    nodes, weights, cumulative = quadrature(NODES)
    phi, slope, decay = [], [], []
    for start, end in zip(starts, times[1:], strict=True):
        dt = end - start
        t = start + dt * nodes
        p, q = parameterization.drift(path, t)
        s, o = parameterization.coefficients(path, t)
        rho = gains(posterior_variance(path, t))
        strength = gamma(schedule, guidance, path, t)
        pull = strength * s
        rate = (lam - p)[:, None] + (pull * s)[:, None] * rho  # ȧ + ḃ
        growth = dt * (weights @ rate)
        # A / A_{n+1}: the transform back is part of every coefficient.
        transform = (dt * (cumulative @ rate) - growth).exp() * (dt * weights)[:, None]
        shrink = (-growth).exp()
        factors = (q[:, None] - (pull * o)[:, None] * rho, pull[:, None] * rho, (strength * o)[:, None])
        phi.append(torch.stack([shrink * (1 + lam * dt), *((transform * factor).sum(0) for factor in factors)]))
        transform = transform * nodes[:, None]
        slope.append(torch.stack([shrink * (lam * dt / 2), *((transform * factor).sum(0) for factor in factors)]))
        decay.append(shrink)
    gain = gains(posterior_variance(path, starts))
    return Table(starts.tolist(), times[1:] - starts, torch.stack(phi), torch.stack(slope), torch.stack(decay), gain)
