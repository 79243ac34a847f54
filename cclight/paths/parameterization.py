r"""What a network predicts, and how its output gives the denoised estimate.

Whatever the network was trained to predict, its output N(x_t, t) determines the denoised estimate linearly,

    x̂_0 = s(t) x_t + o(t) N,

and with it the unconditional ODE

    ẋ = p(t) x + q(t) N,      c = α̇ - α σ̇/σ,   p = σ̇/σ + c s,   q = c o.

| output N                       | s      | o    |                        |
|--------------------------------|--------|------|------------------------|
| `Epsilon`: ε                   | 1/α    | -σ/α |                        |
| `Velocity`: α̇ x_0 + σ̇ ε        | -σ̇/d   | σ/d  | d = α̇σ - σ̇α            |
| `Sample`: x_0                  | 0      | 1    |                        |
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import NamedTuple

import torch
from torch import Tensor

from cclight.paths.gaussian import GaussianPath


class Linear(NamedTuple):
    """The coefficients of x̂_0 = s x_t + o N; same shape as the t they were asked for."""

    s: Tensor
    o: Tensor


class Drift(NamedTuple):
    """The coefficients of the unconditional ODE ẋ = p x + q N; same shape as the t they were asked for."""

    p: Tensor
    q: Tensor


class Parameterization(ABC):
    """The meaning of a network's output. A subclass gives `coefficients` and, where it is simpler, nothing else."""

    @abstractmethod
    def coefficients(self, path: GaussianPath, t: Tensor) -> Linear:
        """s(t) and o(t) of x̂_0 = s x_t + o N on the path."""

    def drift(self, path: GaussianPath, t: Tensor) -> Drift:
        """p(t) and q(t) of the unconditional ODE; t strictly between data and noise, where σ > 0."""
        s, o = self.coefficients(path, t)
        rate = path.sigma_dot(t) / path.sigma(t)
        c = path.alpha_dot(t) - path.alpha(t) * rate
        return Drift(p=rate + c * s, q=c * o)

    def output(self, path: GaussianPath, t: Tensor, x_t: Tensor, x_0: Tensor) -> Tensor:
        """The output N that stands for the denoised estimate x_0: the inverse of x̂_0 = s x_t + o N.

        Args:
            path: the path that x_t lies on.
            t: times, broadcastable against x_t.
            x_t: the noisy image.
            x_0: the denoised estimate, same shape as x_t.
        """
        s, o = self.coefficients(path, t)
        return (x_0 - s * x_t) / o

    def __eq__(self, other: object) -> bool:
        return type(self) is type(other)

    def __hash__(self) -> int:
        return hash(type(self))

    def __repr__(self) -> str:
        return f"{type(self).__name__}()"


class Epsilon(Parameterization):
    """The network predicts the noise ε (DDPM, ADM)."""

    def coefficients(self, path: GaussianPath, t: Tensor) -> Linear:
        alpha = path.alpha(t)
        return Linear(s=1 / alpha, o=-path.sigma(t) / alpha)


class Velocity(Parameterization):
    """The network predicts the velocity ẋ = α̇ x_0 + σ̇ ε (rectified flow, flow matching)."""

    def coefficients(self, path: GaussianPath, t: Tensor) -> Linear:
        alpha, sigma = path.alpha(t), path.sigma(t)
        alpha_dot, sigma_dot = path.alpha_dot(t), path.sigma_dot(t)
        d = alpha_dot * sigma - sigma_dot * alpha
        return Linear(s=-sigma_dot / d, o=sigma / d)


class Sample(Parameterization):
    """The network predicts the clean image x_0."""

    def coefficients(self, path: GaussianPath, t: Tensor) -> Linear:
        return Linear(s=torch.zeros_like(t), o=torch.ones_like(t))
