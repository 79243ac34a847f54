r"""Functions of HᵀH: how guidance and the conjugate transform act on an image.

Every matrix in the guided ODE is a function of HᵀH, so it multiplies each singular direction of H by a number. With the gain

    D_t = V diag(ρ_i) Vᵀ,    ρ_i(t) = r² s_i² / (r² s_i² + σ_y²),    ρ_i = 0 on the null space,

in the place of P wherever guidance enters, five cases cover all operators:

| case          | directions                                  | needs                                        |
|---------------|---------------------------------------------|----------------------------------------------|
| `Projector`   | null space (s = 0) and range (s = 1)        | any linear operator, σ_y = 0: then D = P       |
| `Singular`    | one for each distinct singular value        | a `SpectralOperator`, any σ_y                 |
| `Smooth`      | 521 nodes, between which it interpolates     | the same, for large images                    |
| `Krylov`      | Ritz values of HᵀH, for each image its own    | any linear operator, σ_y > 0                  |
| `Whole`       | one (s = 1): all of image space             | nothing: for nonlinear operators               |

The measurement enters as H⁺y and the residual as H⁺y - P x̂_0. Where H⁺ is known by iteration only, dividing by small singular
values what ρ_i ~ s_i² multiplies again would lose all accuracy: `Krylov` takes Hᵀy, whose functions are those of H⁺y over
λ = s², and the residual y - H x̂_0 as it is, for

    D (H⁺y - P x̂_0) = (HᵀH + τ² I)⁻¹ Hᵀ (y - H x̂_0),     τ² = σ_y²/r²,

is what conjugate gradients solve.

For a nonlinear operator the residual r = h†(y) - h†(h(x̂_0)) has no linear part of its own. Writing r = (r + x̂_0) - x̂_0 and
freezing the bracket over a step keeps the ODE exactly as it is and lets the transform act as if P were the identity. Its
measurement's noise counts as if h† carried it into the image as it is.
"""

from __future__ import annotations

import warnings
from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any, ClassVar
from weakref import WeakSet

import torch
from torch import Tensor

from cclight.operators.base import LinearOperator, Operator, SpectralOperator
from cclight.operators.conjugate_gradients import least_squares
from cclight.operators.krylov import KrylovSpace, Ritz, converged
from cclight.samplers.nodes import EVEN, Lookup, interpolated, nodes, places

if TYPE_CHECKING:
    from cclight.problem import Problem


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

    def target(self, problem: Problem) -> Tensor:
        """The image that stands for the measurement in `combine`, (B, C, H, W): H⁺y."""
        return problem.pinv_y

    def of_target(self, coefficients: Any) -> Any:
        """A prepared entry for H⁺y made one for `target`."""
        return coefficients

    def measured(self, problem: Problem) -> Tensor:
        """The measurement as residuals are made of it: H⁺y."""
        return problem.pinv_y

    def seen(self, problem: Problem, images: Tensor) -> Tensor:
        """What the measurement sees of images, (B, C, H, W), in the shape of `measured`: P x."""
        return problem.operator.project(images)

    def lifted(self, residual: Tensor) -> Tensor:
        """A residual `measured - seen` as H⁺y - P x, (B, C, H, W)."""
        return residual

    def damp(self, gain: Any, residual: Tensor) -> Tensor:
        """D r, (B, C, H, W), for a residual `measured - seen`; the gain is a prepared entry of ρ_i."""
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


MANY = 2**18  # singular values above which `Smooth` takes the place of `Singular`


class Smooth(Spectrum):
    """`Singular` for large images, where nearly every number has a singular value of its own: coefficients by nodes.

    Args:
        operator: gives the decomposition.
        noise_std: σ_y > 0.
        image: images of the shape, dtype and device in question.
    """

    def __init__(self, operator: SpectralOperator, noise_std: float, image: Tensor) -> None:
        super().__init__()
        self.operator = operator
        self.gains = Gains(nodes(noise_std), noise_std)
        self.lookup = Lookup(operator.singular_values(tuple(image.shape[1:])), noise_std, image)

    def ready(self, coefficients: Tensor) -> Tensor:
        return self.lookup.ready(coefficients)

    def combine(self, terms: list[tuple[Any, Tensor]]) -> Tensor:
        spectra = self.operator.spectral(torch.cat([v for _, v in terms])).chunk(len(terms))
        products: Any = (self.lookup(f) * z for (f, _), z in zip(terms, spectra, strict=True))
        return self.operator.from_spectral(sum(products))


TOLERANCE = 1e-3  # of f(HᵀH) v, relative to its norm
MOST_ITERATIONS = 200


class Krylov(Spectrum):
    """Functions of HᵀH by Lanczos' method, for noisy measurements of any linear operator.

    A space grows until a bound of its error is within 1e-3 of the result, or to 64 steps of one H and one Hᵀ each; then a
    warning says once for each operator what is left. It holds as many images as it took steps. `Conjugate` and `ConjugateHeun`
    have one for each vector of a step; D alone takes conjugate gradients, which hold nothing.

    Applications of H (and as many of Hᵀ) a step on a (3, 32, 32) image, the start and H⁺ shared among the steps:

    | operator, σ_y            | Conjugate(5) | ConjugateHeun(3) | PiGDM(20) | DiffPIR(20) |
    |--------------------------|--------------|------------------|-----------|-------------|
    | RandomProjection, 0.05   | 107          | 235              | 17        | 17          |
    | RandomProjection, 0.2    | 67           | 154              | 12        | 13          |
    | MotionBlur, 0.05         | 270          | 589              | 57        | 113         |
    | MotionBlur, 0.2          | 107          | 281              | 15        | 73          |

    Args:
        operator: H.
        noise_std: σ_y > 0.
    """

    _warned: ClassVar[WeakSet[LinearOperator]] = WeakSet()

    def __init__(self, operator: LinearOperator, noise_std: float) -> None:
        super().__init__()
        self.operator = operator
        self.gains = Gains(nodes(noise_std), noise_std)

    def ready(self, coefficients: Tensor) -> Tensor:
        return coefficients  # what they are evaluated at lies on the CPU too

    def target(self, problem: Problem) -> Tensor:
        return problem.adjoint_y

    def of_target(self, coefficients: Tensor) -> Tensor:
        return coefficients / self.gains.values**2

    def measured(self, problem: Problem) -> Tensor:
        return problem.y

    def seen(self, problem: Problem, images: Tensor) -> Tensor:
        return self.operator(images)

    def lifted(self, residual: Tensor) -> Tensor:
        return self.operator.pinv(residual)

    def combine(self, terms: list[tuple[Any, Tensor]]) -> Tensor:
        of_image: dict[int, tuple[Tensor, Tensor]] = {}  # one space for an image that comes twice
        for f, v in terms:
            of_image[id(v)] = (f + of_image[id(v)][0] if id(v) in of_image else f), v
        (first, image), *rest = of_image.values()
        total = self._function(first, image)
        for f, v in rest:
            total += self._function(f, v)
        return total

    def damp(self, gain: Tensor, residual: Tensor) -> Tensor:
        rho = max(float(gain[EVEN]), 1e-12)  # r²/(r² + 1)
        damping = self.gains.noise_std**2 * (1 - rho) / rho
        # The error is at most the residual's over τ²; rounding, and what the operator settles for, set floors.
        floors = 10 * torch.finfo(residual.dtype).eps, self.operator.tolerance / 10
        tolerance = max(TOLERANCE * damping / (1 + damping), *floors)
        solution = least_squares(self.operator, self.operator.adjoint, residual, tolerance, MOST_ITERATIONS, damping)
        worst = float(solution.residual.max())
        if worst > tolerance:
            self._warn(min(1.0, worst * (1 + damping) / damping), f"{solution.iterations} conjugate gradients")
        return solution.x

    def _function(self, f: Tensor, v: Tensor) -> Tensor:
        """f(HᵀH) v, (B, C, H, W), for values f at the nodes; each image stops by itself, whatever else is in the batch."""
        space = KrylovSpace(lambda images: self.operator.adjoint(self.operator(images)), v)
        swing, turn = self._swing(f)

        def coefficients(ritz: Ritz) -> Tensor:
            return ritz.function(interpolated(f, places(ritz.values, self.gains.noise_std)))[:, None]

        def error(ritz: Ritz, found: Tensor) -> Tensor:
            return torch.maximum(found[..., -2:].abs().amax(2), swing * ritz.error(turn)[:, None])

        kept, worst = converged(space, coefficients, error, TOLERANCE)
        if worst > TOLERANCE:
            self._warn(worst, f"{space.steps} Lanczos steps")
        return space.combine(kept[:, 0])

    def _swing(self, f: Tensor) -> tuple[float, float]:
        """How far f goes from its value at λ = 0, and the λ that takes it half of the way."""
        way = (f - f[0]).abs()
        half = int((way >= way.max() / 2).nonzero()[0])
        return float(way.max()), float(self.gains.values[half]) ** 2

    def _warn(self, left: float, how: str) -> None:
        if self.operator in self._warned:
            return
        self._warned.add(self.operator)
        warnings.warn(
            f"{type(self.operator).__name__} at noise_std={self.gains.noise_std:g}: after {how} the guidance may still be off "
            f"by {left:.0e} of itself, and {TOLERANCE:.0e} is wanted: give a larger noise_std, or an operator with a "
            "decomposition where there is one (CircularBlur for blurs).",
            stacklevel=2,
        )


def spectrum_of(operator: Operator, noise_std: float, image: Tensor) -> Spectrum:
    """The case that fits an operator."""
    if not isinstance(operator, LinearOperator):
        return Whole(noise_std)
    if noise_std == 0:
        return Projector(operator)
    if isinstance(operator, SpectralOperator):
        many = operator.singular_values(tuple(image.shape[1:])).numel() > MANY
        return Smooth(operator, noise_std, image) if many else Singular(operator, noise_std, image)
    return Krylov(operator, noise_std)
