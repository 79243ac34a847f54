r"""Guidance schedules: how strongly the measurement pulls at each time.

With the ΠGDM variance r_t² = σ²/(σ² + α²) and the weight w_t on ∇ log p(y | x_t), write ω(t) = w_t / r_t². The guided ODE is

    ẋ = p x + q N + γ [ s r + o Jᵀ r ],    γ = (σ²/α) c ω,   r = H⁺y - P x̂_0,   J = ∂N/∂x_t.

| schedule           | ω(t)    | used by                                                                          |
|--------------------|---------|----------------------------------------------------------------------------------|
| `alpha2`           | w α²    | C-ΠGDM (w_t = w r² α²) and C-ΠGFM (w_t = w r² t²): Pandey et al., appendix C        |
| `constant`         | w       | ΠGDM as Pandey et al. run it (w_t = w r²)                                        |
| `inverse_variance` | w / r²  | ΠGFM (w_t = w): Pokle et al., Training-free Linear Image Inversion via Flows      |
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from cclight.paths.gaussian import GaussianPath

Schedule = Literal["alpha2", "constant", "inverse_variance"]
SCHEDULES: tuple[Schedule, ...] = ("alpha2", "constant", "inverse_variance")


def posterior_variance(path: GaussianPath, t: Tensor) -> Tensor:
    """ΠGDM's variance of x_0 given x_t, r_t² = σ²/(σ² + α²), for images of unit variance."""
    sigma2 = path.sigma(t) ** 2
    return sigma2 / (sigma2 + path.alpha(t) ** 2)


def omega(schedule: Schedule, weight: float, path: GaussianPath, t: Tensor) -> Tensor:
    """ω(t) = w_t / r_t², same shape as t.

    Args:
        schedule: a row of the table above.
        weight: the static guidance weight w, >= 0.
        path: the path that t belongs to.
        t: times, any shape.

    Raises:
        ValueError: for an unknown schedule.
    """
    if schedule == "alpha2":
        return weight * path.alpha(t) ** 2
    if schedule == "constant":
        return torch.full_like(t, weight)
    if schedule == "inverse_variance":
        return weight / posterior_variance(path, t)
    raise ValueError(f"Unknown guidance schedule {schedule!r}: choose one of {', '.join(SCHEDULES)}.")


def gamma(schedule: Schedule, weight: float, path: GaussianPath, t: Tensor) -> Tensor:
    """γ(t) = (σ²/α) c ω with c = α̇ - α σ̇/σ: the factor of the guidance term in the ODE, same shape as t."""
    alpha, sigma = path.alpha(t), path.sigma(t)
    # σ²c = σ (α̇σ - ασ̇): no division by σ, which vanishes at data.
    sigma2_c = sigma * (path.alpha_dot(t) * sigma - alpha * path.sigma_dot(t))
    return sigma2_c / alpha * omega(schedule, weight, path, t)
