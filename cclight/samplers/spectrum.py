r"""Functions of HᵀH: how guidance and the conjugate transform act on an image.

Every matrix in the guided ODE is a function of HᵀH, so it multiplies each singular direction of H by a number. With the gain

    D_t = V diag(ρ_i) Vᵀ,    ρ_i(t) = r² s_i² / (r² s_i² + σ_y²),    ρ_i = 0 on the null space,

in the place of P wherever guidance enters, three cases cover all operators:

| case          | directions                                  | needs                                        |
|---------------|---------------------------------------------|----------------------------------------------|
| `Projector`   | null space (s = 0) and range (s = 1)        | any linear operator, σ_y = 0: then D = P       |
| `Singular`    | one for each distinct singular value        | a `SpectralOperator`, any σ_y                 |
| `Whole`       | one (s = 1): all of image space             | nothing: for nonlinear operators               |

For a nonlinear operator the residual r = h†(y) - h†(h(x̂_0)) has no linear part of its own. Writing r = (r + x̂_0) - x̂_0 and
freezing the bracket over a step keeps the ODE exactly as it is and lets the transform act as if P were the identity. Its
measurement's noise counts as if h† carried it into the image as it is.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

import torch
from torch import Tensor

from cclight.operators.base import LinearOperator, Operator, SpectralOperator


class Gains:
    """ρ_i as a function of the variance: all that a table needs to know of an operator, and what it is kept under.

    Two are equal where they hold the very same tensor of singular values (operators keep theirs) and the same σ_y.

    Args:
        values: distinct singular values s >= 0, (K,), float64 on the CPU.
        noise_std: σ_y.
    """

    def __init__(self, values: Tensor, noise_std: float) -> None:
        self.values = values
        self.noise_std = noise_std

    def __call__(self, variance: Tensor) -> Tensor:
        """The gains ρ_i, (m, K), at ΠGDM variances r_t², (m,), both float64 on the CPU."""
        if self.noise_std == 0:
            return (self.values > 0).double().expand(len(variance), -1)
        signal = variance[:, None] * self.values**2
        return signal / (signal + self.noise_std**2)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Gains) and other.values is self.values and other.noise_std == self.noise_std

    def __hash__(self) -> int:
        return hash((id(self.values), self.noise_std))


_RANGE = torch.tensor([0.0, 1.0], dtype=torch.float64)
_IDENTITY = torch.ones(1, dtype=torch.float64)


class Spectrum(ABC):
    """How the functions of HᵀH act on the images of a batch; K is the number of directions.

    Attributes:
        gains: ρ_i of each direction.
    """

    gains: Gains

    def __init__(self) -> None:
        self._prepared: dict[int, tuple[Tensor, Any]] = {}

    def prepare(self, coefficients: Tensor) -> Any:
        """Coefficients (..., K) in float64 on the CPU, made ready on the device once; an entry (K,) goes into `combine`."""
        key = id(coefficients)
        if key not in self._prepared:  # beside the tensor, so that its id stays its own
            self._prepared[key] = coefficients, self.ready(coefficients)
        return self._prepared[key][1]

    def ready(self, coefficients: Tensor) -> Any:
        """As `prepare`, and not kept."""
        return coefficients.tolist()  # plain numbers: no host synchronisation in the loop

    @abstractmethod
    def combine(self, terms: list[tuple[Any, Tensor]]) -> Tensor:
        """Σ f(HᵀH) v over pairs of a prepared entry f and images v, (B, C, H, W)."""

    def damp(self, gain: Any, residual: Tensor) -> Tensor:
        """D r for a residual r in the range of P, (B, C, H, W); the gain is a prepared entry of ρ_i."""
        return self.combine([(gain, residual)])


def weighted(terms: list[tuple[float, Tensor]]) -> Tensor:
    """Σ f v over pairs of a number f and images v, (B, C, H, W), in one new tensor: one pass over memory for each v."""
    (first, image), *rest = terms
    total = first * image
    for factor, image in rest:
        total.add_(image, alpha=factor)
    return total


class Projector(Spectrum):
    """Null space and range of a noiseless linear operator: f(HᵀH) v = f_0 v + (f_1 - f_0) P v, one projection for the sum."""

    gains = Gains(_RANGE, 0.0)

    def __init__(self, operator: Operator) -> None:
        super().__init__()
        self.operator = operator

    def combine(self, terms: list[tuple[Any, Tensor]]) -> Tensor:
        within = weighted([(f[1] - f[0], v) for f, v in terms])
        return weighted([(f[0], v) for f, v in terms]).add_(self.operator.project(within))

    def damp(self, gain: Any, residual: Tensor) -> Tensor:
        return residual  # D = P


class Whole(Spectrum):
    """All of image space as one direction.

    Args:
        noise_std: σ_y.
    """

    def __init__(self, noise_std: float) -> None:
        super().__init__()
        self.gains = Gains(_IDENTITY, noise_std)

    def combine(self, terms: list[tuple[Any, Tensor]]) -> Tensor:
        return weighted([(f[0], v) for f, v in terms])

    def damp(self, gain: Any, residual: Tensor) -> Tensor:
        return residual if self.gains.noise_std == 0 else gain[0] * residual


class Singular(Spectrum):
    """Every distinct singular value as a direction of its own: exact for noisy measurements.

    Args:
        operator: gives the decomposition.
        noise_std: σ_y.
        image: images of the shape, dtype and device in question.
    """

    def __init__(self, operator: SpectralOperator, noise_std: float, image: Tensor) -> None:
        super().__init__()
        self.operator = operator
        values, group = operator.distinct_values(tuple(image.shape[1:]))
        self.gains = Gains(values, noise_std)
        self.group = group.to(image.device)
        self.like = image

    def ready(self, coefficients: Tensor) -> Tensor:
        return coefficients.to(self.like)

    def combine(self, terms: list[tuple[Any, Tensor]]) -> Tensor:
        spectra = self.operator.spectral(torch.cat([v for _, v in terms])).chunk(len(terms))
        return self.operator.from_spectral(sum(f[self.group] * z for (f, _), z in zip(terms, spectra, strict=True)))


def spectrum_of(operator: Operator, noise_std: float, image: Tensor) -> Spectrum:
    """The case that fits an operator.

    Raises:
        TypeError: for a noisy measurement of an operator without singular values.
    """
    if not isinstance(operator, LinearOperator):
        return Whole(noise_std)
    if noise_std == 0:
        return Projector(operator)
    if not isinstance(operator, SpectralOperator):
        raise TypeError(
            f"Guidance with noise_std={noise_std} needs a SpectralOperator, and {type(operator).__name__} is none: "
            "set noise_std to 0, or choose a sampler that needs no singular values (DPS)."
        )
    return Singular(operator, noise_std, image)
