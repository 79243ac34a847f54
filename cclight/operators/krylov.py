r"""Functions of HᵀH of an operator that has no cheap singular value decomposition, by Lanczos' method.

K steps from an image v give an orthonormal basis Q of the Krylov space span{v, HᵀH v, ..., (HᵀH)^{K-1} v} and the symmetric
tridiagonal T = Qᵀ HᵀH Q, and with them every function of HᵀH at once,

    f(HᵀH) v ≈ ‖v‖ Q f(T) e_1,

exact as soon as K is the number of distinct eigenvalues that v meets: two for a mask. Each image of a batch has a space of its
own. One that is exhausted (β = 0) goes on with empty directions, which carry nothing, while the others still grow.

Whether K is enough: the last coefficient of f(T) e_1 tells how much the last direction has brought. That alone takes a space
that has not found the small eigenvalues yet for a complete one. For h(λ) = τ²/(λ + τ²), the function that tells eigenvalues
below τ² from those above, there is a bound,

    ‖h(HᵀH) v - ‖v‖ Q h(T) e_1‖ ≤ ‖v‖ β_K |e_Kᵀ (T + τ²)⁻¹ e_1|,

the residual of conjugate gradients. T is so small that its functions are taken in float64 on the CPU: the only time that the
device is waited for.

References:
    Druskin and Knizhnerman, Two polynomial methods of calculating functions of symmetric matrices, 1989.
    Golub and Meurant, Matrices, Moments and Quadrature with Applications, 2010.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

EXHAUSTED = 32  # β up to so many rounding errors of the largest number in T is none


class Ritz(NamedTuple):
    """T of a space of K steps, float64 on the CPU.

    Attributes:
        values: its eigenvalues, (B, K), >= 0; what rounding leaves of zeros is 0.
        vectors: its eigenvectors, in the columns, (B, K, K).
        beyond: β_K, what leads out of the space, (B,); 0 where it is exhausted and all functions are exact.
    """

    values: Tensor
    vectors: Tensor
    beyond: Tensor

    def function(self, values: Tensor) -> Tensor:
        """f(T) e_1, (B, K), for the values of f at the eigenvalues, (B, K)."""
        return torch.einsum("bkj,bj->bk", self.vectors, values * self.vectors[:, 0])

    def error(self, damping: float) -> Tensor:
        """A bound of ‖h(HᵀH) v - ‖v‖ Q h(T) e_1‖ / ‖v‖ for h(λ) = τ²/(λ + τ²), (B,), or 1, if that is less."""
        return (self.beyond * self.function((self.values + damping).reciprocal())[:, -1].abs()).clamp(max=1.0)


class KrylovSpace:
    """Krylov spaces of the images of a batch, grown as far as they are asked to.

    Args:
        apply: HᵀH of images, (B, C, H, W) -> (B, C, H, W).
        start: v, (B, C, H, W).
        orthogonal: whether Q is kept orthonormal to rounding. Without it eigenvalues come more than once, each with part of its
            weight, which few functions mind, and steps cost little but H and Hᵀ.

    Attributes:
        steps: K so far.
    """

    def __init__(self, apply: Callable[[Tensor], Tensor], start: Tensor, orthogonal: bool = True) -> None:
        self.apply = apply
        self.orthogonal = orthogonal
        self.shape = start.shape
        self.steps = 0
        flat = start.flatten(1)
        self.length = torch.linalg.vector_norm(flat, dim=1)
        self._next = flat / self.length.where(self.length > 0, 1.0)[:, None]
        self._basis = flat.new_empty(len(flat), 0, flat.shape[1])
        self._diagonal: list[Tensor] = []
        self._beside: list[Tensor] = []  # β_k between the directions k and k + 1
        self._scale = torch.zeros_like(self.length)

    def grow(self, steps: int) -> None:
        """Take Lanczos steps until there are so many; one application of HᵀH each, and no waiting for the device."""
        more = self._basis.new_empty(len(self._basis), max(0, steps - self.steps), self._basis.shape[2])
        self._basis = torch.cat([self._basis, more], dim=1)
        rounding = EXHAUSTED * torch.finfo(self._basis.dtype).eps
        for k in range(self.steps, steps):
            self._basis[:, k] = self._next
            w = self.apply(self._next.view(self.shape)).flatten(1)
            alpha = (self._next * w).sum(1)
            known = self._basis[:, : k + 1]
            if self.orthogonal:
                for _ in range(2):  # twice is enough, as Kahan and Parlett say
                    w = w - torch.einsum("bkn,bk->bn", known, torch.einsum("bkn,bn->bk", known, w))
            else:
                w = w - alpha[:, None] * self._next
                if k:
                    w = w - self._beside[-1][:, None] * known[:, k - 1]
            beta = torch.linalg.vector_norm(w, dim=1)
            self._scale = torch.maximum(self._scale, torch.maximum(alpha, beta))
            beta = torch.where(beta <= rounding * self._scale, 0.0, beta)
            self._next = torch.where(beta[:, None] > 0, w / beta.where(beta > 0, 1.0)[:, None], 0.0)
            self._diagonal.append(alpha)
            self._beside.append(beta)
        self.steps = max(self.steps, steps)

    def ritz(self) -> Ritz:
        """T's eigenvalues and what else its functions need."""
        numbers = torch.stack([*self._diagonal, *self._beside, self._scale]).T.cpu().double().nan_to_num()
        diagonal, beside = numbers[:, : self.steps], numbers[:, self.steps : 2 * self.steps]
        t = torch.diag_embed(diagonal) + torch.diag_embed(beside[:, :-1], 1) + torch.diag_embed(beside[:, :-1], -1)
        values, vectors = torch.linalg.eigh(t)
        rounding = EXHAUSTED * torch.finfo(self._basis.dtype).eps * numbers[:, -1:]
        return Ritz(torch.where(values > rounding, values, 0.0), vectors, beside[:, -1])

    def combine(self, coefficients: Tensor) -> Tensor:
        """‖v‖ Q c for c = f(T) e_1, (B, K) in float64 on the CPU, in the images' shape (B, C, H, W)."""
        weights = coefficients.to(self._basis) * self.length[:, None]
        return torch.einsum("bkn,bk->bn", self._basis[:, : self.steps], weights).view(self.shape)


STEPS = (4, 8, 12, 16, 24, 32, 48, 64)  # where a Krylov space is looked at


def converged(
    space: KrylovSpace,
    coefficients: Callable[[Ritz], Tensor],
    error: Callable[[Ritz, Tensor], Tensor],
    tolerance: float,
) -> tuple[Tensor, float]:
    """Grow a space until functions of HᵀH are known; each image stops by itself, whatever else is in the batch.

    Args:
        space: the space.
        coefficients: f(T) e_1 of each function, (B, F, K).
        error: a bound of the error of each function, (B, F), from these.
        tolerance: of the error, relative to the norm of the function's result.

    Returns:
        The coefficients, (B, F, K), and the largest relative error left after 64 steps.
    """
    kept, left = torch.empty(0), torch.full((space.shape[0],), torch.inf, dtype=torch.float64)
    for steps in STEPS:
        if steps < space.steps:
            continue
        space.grow(steps)
        ritz = space.ritz()
        found = coefficients(ritz)
        now = (error(ritz, found) / found.norm(dim=2).clamp_min(1e-300)).amax(1).clamp(max=1.0)
        working = left > tolerance
        kept = torch.nn.functional.pad(kept, (0, steps - kept.shape[-1])) if kept.numel() else torch.zeros_like(found)
        kept = torch.where(working[:, None, None], found, kept)
        left = torch.where(working, now, left)
        if not (left > tolerance).any():
            break
    return kept, float(left.max())
