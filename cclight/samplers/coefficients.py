r"""Coefficient tables of the conditional conjugate integrators, by Gauss-Legendre quadrature on each step.

With r_t = H⁺y - P x̂_0 and the gain ρ_i(t) of each singular direction (1 on the range and 0 on the null space when σ_y = 0), the
guided ODE reads, direction by direction,

    ẋ = (p - γ s² ρ) x + (q - γ s o ρ) N + γ s ρ H⁺y + γ o g,      g = Jᵀ D r.

x̄ = A_t x with A_t = exp(a + b), a = ∫ (λ - p), b = ∫ γ s² ρ, both from t_n anew in each step (the local form: no exponent is
large), turns it into

    dx̄/dt = λ x̄ + A [ (q - γ s o ρ) N + γ s ρ H⁺y + γ o g ].

With N and g frozen at t_n and E = exp(-(Δa + Δb)) the step is

    x_{n+1} = E (1 + λ Δt) x_n + E Φ_N N + E Φ_y H⁺y + E Φ_g g,     Φ_v = ∫ A (its factor) dt.

The second order (Adams-Bashforth in the transformed space) extrapolates N, g and x̄ linearly from the last two evaluations: each
integral gains a twin with the weight (t - t_n)/(t_n - t_{n-1}), which multiplies v_n - v_{n-1}.

Where the exponentials are to be expanded to first order in the noise (the paper's appendix A.5), b splits into b⁰ (ρ⁰ = 1 on
the range) and δ = ∫ γ s² (ρ - ρ⁰), and exp(±(a + b)) becomes exp(±(a + b⁰)) (1 ± δ).

Reference:
    Pandey, Yang, Mandt, Fast Samplers for Inverse Problems in Iterative Refinement Models, NeurIPS 2024
    (proposition 2, appendices A.5 and C).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

from cclight.paths.gaussian import GaussianPath
from cclight.paths.guidance import Schedule, gamma, posterior_variance
from cclight.paths.parameterization import Parameterization

# Enough for rounding error on every step of every schedule, a step that ends close to the singular end of the VP path included.
NODES = 96


@dataclass(frozen=True)
class Table:
    """The coefficients of every step, float64 on the CPU; K directions as in cclight.samplers.spectrum.

    Attributes:
        x, network, target, vjp: (steps, K): what multiplies x_n, N_n, H⁺y and g_n.
        x_before, network_before, target_before, vjp_before: (steps, K): what multiplies their values one step earlier; zero in
            the first step and at first order.
        gain: (steps, K): ρ_i(t_n), for D_t inside the VJP.
    """

    x: Tensor
    network: Tensor
    target: Tensor
    vjp: Tensor
    x_before: Tensor
    network_before: Tensor
    target_before: Tensor
    vjp_before: Tensor
    gain: Tensor


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


def conjugate_table(
    path: GaussianPath,
    parameterization: Parameterization,
    times: Tensor,
    gain: Callable[[Tensor], Tensor],
    schedule: Schedule,
    guidance: float,
    lam: float,
    order: int,
    *,
    starts: Tensor | None = None,
    expand: bool = False,
    ahead: bool = False,
) -> Table:
    """The table of a time grid.

    Args:
        path: the prior's path.
        parameterization: what N is.
        times: (steps + 1,), float64.
        gain: ρ_i (m, K) at variances r_t² (m,).
        schedule: the guidance schedule ω.
        guidance: its weight w.
        lam: λ.
        order: 1 or 2.
        starts: (steps,), where each step begins, if not where the one before it ended; for order 1.
        expand: expand the exponentials to first order in the noise.
        ahead: the line goes through the evaluations at both ends of the step, and the fields `..._before` are what multiplies
            those at the end: Heun's corrector, for λ = 0.

    Returns:
        The coefficients of every step.
    """
    nodes, weights, cumulative = quadrature(NODES)
    rows = []
    previous: tuple[Tensor, Tensor] | None = None  # the step before: its Δt and decay
    for start, end in zip(times[:-1] if starts is None else starts, times[1:], strict=True):
        dt = end - start
        t = start + dt * nodes
        p, q = parameterization.drift(path, t)
        s, o = parameterization.coefficients(path, t)
        rho = gain(posterior_variance(path, t))
        strength = gamma(schedule, guidance, path, t)
        pull = strength * s
        bend = (pull * s)[:, None] * rho  # ḃ
        noiseless = (pull * s)[:, None] * (rho != 0) if expand else bend
        rate = (lam - p)[:, None] + noiseless  # ȧ + ḃ
        growth = dt * (weights @ rate)
        # A / A_{n+1}: the transform back is part of every coefficient.
        transform = (dt * (cumulative @ rate) - growth).exp() * (dt * weights)[:, None]
        shrink = (-growth).exp()
        if expand:
            delta = bend - noiseless
            back = 1 - dt * (weights @ delta)
            transform = transform * (1 + dt * (cumulative @ delta)) * back
            shrink = shrink * back
        factors = {
            "network": q[:, None] - (pull * o)[:, None] * rho,
            "target": pull[:, None] * rho,
            "vjp": (strength * o)[:, None].expand_as(rho),
        }
        row = {name: (transform * factor).sum(0) for name, factor in factors.items()}
        row["x"] = shrink * (1 + lam * dt)
        row |= {f"{name}_before": torch.zeros_like(shrink) for name in ("x", *factors)}
        if ahead:
            for name, factor in factors.items():
                row[f"{name}_before"] = (transform * factor * ((t - start) / dt)[:, None]).sum(0)
                row[name] = row[name] - row[f"{name}_before"]
        elif order == 2 and previous is not None:
            previous_dt, previous_shrink = previous
            slope = (t - start) / previous_dt
            for name, factor in factors.items():
                twin = (transform * factor * slope[:, None]).sum(0)
                row[name] = row[name] + twin
                row[f"{name}_before"] = -twin
            twin = shrink * lam * dt**2 / (2 * previous_dt)
            row["x"] = row["x"] + twin
            row["x_before"] = -twin * previous_shrink  # x̄_{n-1} in this step's frame
        row["gain"] = gain(posterior_variance(path, start[None]))[0]
        rows.append(row)
        previous = dt, shrink
    return Table(**{name: torch.stack([row[name] for row in rows]) for name in rows[0]})
