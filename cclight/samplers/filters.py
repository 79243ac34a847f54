"""Functions of HᵀH, given as functions of its eigenvalues λ = s², of images.

`cclight.samplers.spectrum` has tables of them, for all steps of a sampler; here they are made as they are asked for, several of
one image at once.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

import torch
from torch import Tensor

from cclight.data.noise import standard_normal
from cclight.operators.base import LinearOperator, SpectralOperator
from cclight.operators.krylov import KrylovSpace, Ritz, converged

Function = Callable[[Tensor], Tensor]  # of eigenvalues λ

PROBED = 24  # Lanczos steps to what HᵀH is like


class Filters(Protocol):
    """How functions of HᵀH act on the images of a batch."""

    def __call__(self, functions: Sequence[Function], image: Tensor) -> list[Tensor]:
        """Each function f(HᵀH) of an image, all (B, C, H, W)."""

    def largest(self) -> float:
        """The largest eigenvalue; 0 where nothing is measured."""

    def mean(self) -> float:
        """The mean eigenvalue of what is measured; 0 where nothing is."""


class SpectralFilters:
    """By the singular value decomposition of a `SpectralOperator`.

    Args:
        operator: H.
        like: images of the shape, dtype and device in question.

    Attributes:
        singular: the singular values, (1, C, H, W).
        eigenvalues: their squares.
    """

    def __init__(self, operator: SpectralOperator, like: Tensor) -> None:
        self.operator = operator
        values = operator.singular_values(tuple(like.shape[1:]))
        self._largest = float(values.max()) ** 2
        self._mean = float(values.square().sum()) / max(1, int((values > 0).sum()))
        self.singular = values.to(like).expand(like.shape[1:])[None]
        self.eigenvalues = self.singular.square()

    def __call__(self, functions: Sequence[Function], image: Tensor) -> list[Tensor]:
        z = self.operator.spectral(image)
        of_image = torch.cat([f(self.eigenvalues) * z for f in functions])
        return list(self.operator.from_spectral(of_image).chunk(len(functions)))

    def largest(self) -> float:
        return self._largest

    def mean(self) -> float:
        return self._mean


class KrylovFilters:
    """By Lanczos' method, where nothing but H and Hᵀ is known, to a tolerance or 64 steps (0.02 of `MotionBlur` at 0.002).

    Args:
        operator: H.
        y: measurements of the shape, dtype and device in question, (B, ...).
        tolerance: of a function of HᵀH, relative to its result's norm.

    Attributes:
        probe: a space of what H makes of noise, grown.
    """

    def __init__(self, operator: LinearOperator, y: Tensor, tolerance: float) -> None:
        self.operator = operator
        self.tolerance = tolerance
        # The same directions for every image: what they tell is H's alone.
        generators = [torch.Generator().manual_seed(0) for _ in range(len(y))]
        probes = torch.empty_like(y)
        parts = torch.view_as_real(probes) if y.is_complex() else probes
        parts.copy_(standard_normal(tuple(parts.shape[1:]), generators, parts.dtype, y.device))
        back = operator.adjoint(probes)
        self._mean = float(back.square().sum()) / (min(parts[0].numel(), back[0].numel()) * len(y))
        self.probe = self.space(back)
        self.probe.grow(PROBED)

    def __call__(self, functions: Sequence[Function], image: Tensor) -> list[Tensor]:
        return self.of(self.space(image), functions)

    def of(self, space: KrylovSpace, functions: Sequence[Function]) -> list[Tensor]:
        """Functions of the image that a space began from."""

        def coefficients(ritz: Ritz) -> Tensor:
            return torch.stack([ritz.function(f(ritz.values)) for f in functions], dim=1)

        found, _ = converged(space, coefficients, lambda ritz, found: found[..., -2:].abs().amax(2), self.tolerance)
        return [space.combine(one) for one in found.unbind(1)]

    def space(self, image: Tensor) -> KrylovSpace:
        """The Krylov space of an image, not grown yet."""
        return KrylovSpace(lambda x: self.operator.adjoint(self.operator(x)), image, orthogonal=False)

    def largest(self) -> float:
        return float(self.probe.ritz().values.max())

    def mean(self) -> float:
        return self._mean


def filters_of(operator: LinearOperator, y: Tensor, like: Tensor, tolerance: float) -> Filters:
    """What fits an operator.

    Args:
        operator: H.
        y: measurements, (B, ...).
        like: images of the shape, dtype and device in question, (B, C, H, W).
        tolerance: of a function of HᵀH, where it is not exact.
    """
    if isinstance(operator, SpectralOperator):
        return SpectralFilters(operator, like)
    return KrylovFilters(operator, y, tolerance)
