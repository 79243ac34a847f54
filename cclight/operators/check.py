"""Does an operator keep its promises? The identities behind `cclight check-operator my_module.MyOperator`."""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from cclight.operators.base import LinearOperator, Operator, SpectralOperator
from cclight.operators.external import DeepinvPhysics

EXACT = 1e-3  # relative, in float32
ADJOINT = 0.05  # for one that approximates on purpose, or in half precision


ITERATIVE = 0.25  # for H⁺ by conjugate gradients, which go only as far as their tolerance wants


@dataclass(frozen=True)
class Check:
    """One identity, tried on random images.

    Attributes:
        name: the identity, such as "P² = P".
        error: the relative distance between its two sides, >= 0.
        tolerance: the largest error that passes.
    """

    name: str
    error: float
    tolerance: float

    @property
    def passed(self) -> bool:
        """Whether the identity holds; a NaN does not."""
        return self.error <= self.tolerance


def check_operator(operator: Operator, image_shape: tuple[int, ...] = (3, 32, 32), seed: int = 0) -> list[Check]:
    """Try the identities that an operator of its type must meet, in float32.

    Args:
        operator: any operator.
        image_shape: (C, H, W) of the random images, or (C, ...) of signals and volumes, which the operator must take.
        seed: which random images.

    Returns:
        The checks: of batch and shapes for every operator, of linearity, adjoint, pseudoinverse and projector for a linear
        one, of the singular value decomposition for a spectral one.

    Raises:
        ValueError: where the operator does not take images of this shape.
    """
    operator.check_images(image_shape)
    generator = torch.Generator().manual_seed(seed)

    def draw(shape: Sequence[int]) -> Tensor:
        return torch.randn(tuple(shape), generator=generator)

    with torch.no_grad(), warnings.catch_warnings():
        # What conjugate gradients warn of shows in the errors.
        warnings.simplefilter("ignore")
        x = draw((2, *image_shape)).clamp(-1, 1)
        checks = list(_any(operator, x))
        if isinstance(operator, LinearOperator):
            y = operator(x)
            checks += _linear(operator, draw(x.shape), draw(x.shape), _like(y, generator), _like(y, generator))
        if isinstance(operator, SpectralOperator):
            checks += _spectral(operator, draw(x.shape))
    return checks


def check_adjoint(operator: Operator, x: Tensor) -> None:
    """Refuse an operator from outside the package whose own adjoint is not one: one H and one Hᵀ, before long work.

    Args:
        operator: any operator.
        x: random images, (B, C, H, W).

    Raises:
        ValueError: naming the operator, the error and the remedy.
    """
    given = [said for part in operator.modules() if (said := _of_others(part))]
    if not given or not isinstance(operator, LinearOperator):
        return
    hx = operator(x)
    y = _like(hx, torch.Generator().manual_seed(0))
    back = operator.adjoint(y)
    error = _symmetry(hx, y, x, back)
    if not error <= ADJOINT:
        turned = f"turns {tuple(y.shape)} into {tuple(back.shape)}, not {tuple(x.shape)}"
        off = turned if back.shape != x.shape else f"is off by {error:.1g} of <H x, y> = <x, Hᵀ y>"
        adjoint, remedy = given[0]
        raise ValueError(f"{adjoint}: it {off}. {remedy}, or compare with `cclight check-operator`.")


def _of_others(part: nn.Module) -> tuple[str, str] | None:
    """Of an operator whose adjoint is none of ours: what it may have wrong, and the remedy."""
    if isinstance(part, DeepinvPhysics):
        name = type(part.physics).__name__
        return (
            f"{name}.A_adjoint is not the adjoint of its A",
            "deepinv.physics.adjoint_function makes one by automatic differentiation",
        )
    own = isinstance(part, LinearOperator) and type(part).adjoint is not LinearOperator.adjoint
    if not own or type(part).__module__.startswith("cclight."):
        return None
    return (
        f"{type(part).__name__}.adjoint is not the adjoint of its forward",
        "Leave the method out, and it comes from forward by automatic differentiation",
    )


def _like(y: Tensor, generator: torch.Generator) -> Tensor:
    """Standard normal numbers in the form of y; complex ones with both parts."""
    if not y.is_complex():
        return torch.randn(y.shape, generator=generator).to(y)
    return torch.view_as_complex(torch.randn(*y.shape, 2, generator=generator)).to(y)


def _any(operator: Operator, x: Tensor) -> Iterator[Check]:
    y = operator(x)
    yield Check("H takes each image by itself", _distance(operator(x[1:]), y[1:]), EXACT)
    px = operator.project(x)
    yield Check(
        "H⁺ leads back to the image's shape", 0.0 if px.shape == x.shape == operator.pinv(y).shape else torch.inf, EXACT
    )
    yield Check("P = H⁺ H", _distance(px, operator.pinv(y)), EXACT)


def _linear(operator: LinearOperator, x: Tensor, z: Tensor, y: Tensor, w: Tensor) -> Iterator[Check]:
    iterative = type(operator).pinv is LinearOperator.pinv
    tolerance = ITERATIVE if iterative else EXACT
    hx = operator(x)
    yield Check("H (2x - 3z) = 2 H x - 3 H z", _distance(operator(2 * x - 3 * z), 2 * hx - 3 * operator(z)), EXACT)
    yield Check("<H x, y> = <x, Hᵀ y>", _symmetry(hx, y, x, operator.adjoint(y)), EXACT)
    px, pz, inverse = operator.project(x), operator.project(z), operator.pinv(y)
    yield Check("P² = P", _distance(operator.project(px), px), tolerance)
    yield Check("Pᵀ = P", _symmetry(px, z, x, pz), tolerance)
    yield Check("H H⁺ H = H", _distance(operator(px), hx), tolerance)
    if not iterative:  # a y out of H's range asks more of conjugate gradients than any measurement does
        yield Check("H⁺ H H⁺ = H⁺", _distance(operator.pinv(operator(inverse)), inverse), tolerance)
    yield Check("(H H⁺)ᵀ = H H⁺", _symmetry(operator(inverse), w, y, operator(operator.pinv(w))), tolerance)


def _spectral(operator: SpectralOperator, x: Tensor) -> Iterator[Check]:
    s = operator.singular_values(tuple(x.shape[1:])).to(x)
    z = operator.spectral(x)
    yield Check("V Vᵀ = I", _distance(operator.from_spectral(z), x), EXACT)
    yield Check("Vᵀ V = I", _distance(operator.spectral(operator.from_spectral(x)), x), EXACT)
    yield Check("|Vᵀ x| = |x|", _distance(z.norm(), x.norm()), EXACT)
    yield Check("Hᵀ H = V S² Vᵀ", _distance(operator.from_spectral(s**2 * z), operator.adjoint(operator(x))), EXACT)
    yield Check("P = V [S > 0] Vᵀ", _distance(operator.from_spectral((s > 0) * z), operator.project(x)), EXACT)


def _distance(ours: Tensor, theirs: Tensor) -> float:
    """||a - b|| / ||b||; infinite where the shapes differ."""
    if ours.shape != theirs.shape:
        return torch.inf
    return float((ours - theirs).norm() / theirs.norm().clamp_min(1e-12))


def _symmetry(ax: Tensor, y: Tensor, x: Tensor, aty: Tensor) -> float:
    """|<A x, y> - <x, Aᵀ y>| in units of what random vectors as long as these give; infinite where the shapes differ."""
    if ax.shape != y.shape or x.shape != aty.shape:
        return torch.inf
    left, right = (ax.conj() * y).sum().real, (x.conj() * aty).sum().real
    return float((left - right).abs() / (ax.norm() * y.norm()).clamp_min(1e-12) * math.sqrt(y.numel()))
