r"""Functions of HᵀH: how guidance and the conjugate transform act on an image.

Every matrix in the guided ODE is a function of HᵀH, so it multiplies each singular direction of H by a number. With the gain

    D_t = V diag(ρ_i) Vᵀ,    ρ_i(t) = r² s_i² / (r² s_i² + σ_y²),    ρ_i = 0 on the null space,

in the place of P wherever guidance enters, three cases cover all operators:

| case          | directions                                  | needs                                        |
|---------------|---------------------------------------------|----------------------------------------------|
| `Projector`   | null space (ρ = 0) and range (ρ = 1)        | any linear operator, σ_y = 0: then D = P       |
| `Singular`    | one for each distinct singular value        | a `SpectralOperator`, any σ_y                 |
| `Perturbed`   | as `Singular`                                | the same; ρ_i to first order in σ_y²           |
| `Whole`       | one (ρ = 1): all of image space             | nothing: for nonlinear operators               |

For a nonlinear operator the residual r = h†(y) - h†(h(x̂_0)) has no linear part of its own. Writing r = (r + x̂_0) - x̂_0 and
freezing the bracket over a step keeps the ODE exactly as it is and lets the transform act as if P were the identity.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

import torch
from torch import Tensor

from cclight.operators.base import LinearOperator, Operator, SpectralOperator


class Spectrum(ABC):
    """How the functions of HᵀH split into directions; K is the number of distinct ones.

    Attributes:
        expand: the exponentials of the conjugate transform are to be expanded to first order in the noise.
    """

    expand: bool = False

    @abstractmethod
    def gain(self, variance: Tensor) -> Tensor:
        """The gains ρ_i, (m, K), at ΠGDM variances r_t², (m,), both float64 on the CPU."""

    @abstractmethod
    def prepare(self, coefficients: Tensor) -> Any:
        """Rows (steps, K) of float64 coefficients, made ready on the device; row n of the result goes into `combine`."""

    @abstractmethod
    def combine(self, terms: list[tuple[Any, Tensor]]) -> Tensor:
        """Σ f(HᵀH) v over pairs of a prepared row f and images v, (B, C, H, W)."""

    @abstractmethod
    def damp(self, gain: Any, residual: Tensor) -> Tensor:
        """D r for a residual r in the range of P, (B, C, H, W); the gain is a prepared row of ρ_i."""


def weighted(terms: list[tuple[float, Tensor]]) -> Tensor:
    """Σ f v over pairs of a number f and images v, (B, C, H, W), in one new tensor: one pass over memory for each v."""
    (first, image), *rest = terms
    total = first * image
    for factor, image in rest:
        total.add_(image, alpha=factor)
    return total


class Projector(Spectrum):
    """Null space and range of a noiseless linear operator: f(HᵀH) v = f_0 v + (f_1 - f_0) P v, one projection for the sum."""

    def __init__(self, operator: Operator) -> None:
        self.operator = operator

    def gain(self, variance: Tensor) -> Tensor:
        return torch.tensor([0.0, 1.0], dtype=torch.float64).expand(len(variance), 2)

    def prepare(self, coefficients: Tensor) -> list[list[float]]:
        return coefficients.tolist()  # plain numbers: no host synchronisation in the loop

    def combine(self, terms: list[tuple[Any, Tensor]]) -> Tensor:
        within = weighted([(f[1] - f[0], v) for f, v in terms])
        return weighted([(f[0], v) for f, v in terms]).add_(self.operator.project(within))

    def damp(self, gain: Any, residual: Tensor) -> Tensor:
        return residual  # D = P


class Whole(Spectrum):
    """All of image space as one direction."""

    def gain(self, variance: Tensor) -> Tensor:
        return torch.ones(len(variance), 1, dtype=torch.float64)

    def prepare(self, coefficients: Tensor) -> list[list[float]]:
        return coefficients.tolist()

    def combine(self, terms: list[tuple[Any, Tensor]]) -> Tensor:
        return weighted([(f[0], v) for f, v in terms])

    def damp(self, gain: Any, residual: Tensor) -> Tensor:
        return residual


class Directions(Spectrum):
    """Every distinct singular value as a direction of its own.

    Args:
        operator: gives the decomposition.
        noise_std: σ_y.
        image: images of the shape, dtype and device in question.
    """

    def __init__(self, operator: SpectralOperator, noise_std: float, image: Tensor) -> None:
        self.operator = operator
        self.noise_std = noise_std
        values = operator.singular_values(tuple(image.shape[1:]))
        self.values, group = torch.unique(values, return_inverse=True)
        self.group = group.to(image.device)
        self.like = image

    def prepare(self, coefficients: Tensor) -> Tensor:
        return coefficients.to(self.like)

    def combine(self, terms: list[tuple[Any, Tensor]]) -> Tensor:
        spectra = self.operator.spectral(torch.cat([v for _, v in terms])).chunk(len(terms))
        return self.operator.from_spectral(sum(f[self.group] * z for (f, _), z in zip(terms, spectra, strict=True)))

    def damp(self, gain: Any, residual: Tensor) -> Tensor:
        return self.combine([(gain, residual)])


class Singular(Directions):
    """The gain as it is: exact for noisy measurements."""

    def gain(self, variance: Tensor) -> Tensor:
        signal = variance[:, None] * self.values**2
        return torch.where(self.values > 0, signal / (signal + self.noise_std**2), 0.0)


class Perturbed(Directions):
    """The paper's first-order perturbation, ρ_i = 1 - σ_y² / (r² s_i²) (appendix A.5): for σ_y ≪ r s_i alone.

    Where r² falls toward data it grows without bound and guidance pushes away from the measurement, so that the restoration
    drifts off, soon for a large w: it is here to be compared with.
    """

    expand = True

    def gain(self, variance: Tensor) -> Tensor:
        signal = variance[:, None] * self.values**2
        return torch.where(self.values > 0, 1 - self.noise_std**2 / signal, 0.0)


def spectrum_of(operator: Operator, noise_std: float, image: Tensor, kind: type[Directions] = Singular) -> Spectrum:
    """The case that fits an operator; `kind` is the one for noisy measurements.

    Raises:
        TypeError: for a noisy measurement of an operator without singular values.
    """
    if not isinstance(operator, LinearOperator):
        return Whole()
    if noise_std == 0:
        return Projector(operator)
    if not isinstance(operator, SpectralOperator):
        raise TypeError(
            f"Guidance with noise_std={noise_std} needs a SpectralOperator, and {type(operator).__name__} is none: "
            "set noise_std to 0, or choose a sampler that needs no singular values (DPS)."
        )
    return kind(operator, noise_std, image)
