r"""The pseudoinverse by conjugate gradients, for operators whose singular value decomposition is not at hand.

H⁺ y is the shortest x that minimizes ||y - H x||. Conjugate gradients on Hᵀ H x = Hᵀ y from x = 0 (the form named CGLS) stay
in the range of Hᵀ, and so converge to it:

    r = y,  g = p = Hᵀ r;     α = |g|² / |H p|²,   x += α p,   r -= α H p,   g' = Hᵀ r,   p = g' + (|g'|² / |g|²) p.

With a damping τ² > 0 it solves (Hᵀ H + τ² I) x = Hᵀ y in the same way, as if [H; τ I] had measured [y; 0]:

    α = |g|² / (|H p|² + τ² |p|²),   g' = Hᵀ r - τ² x.

It searches the same spaces as conjugate gradients on H Hᵀ u = y with x = Hᵀ u, at the same cost; but that one breaks down
where y, because of noise, lies outside the range of H.

Reference:
    Hestenes and Stiefel, Methods of Conjugate Gradients for Solving Linear Systems, 1952, section 10.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

ASK_EVERY = 10  # iterations between two questions to an accelerator, each of which waits until it has caught up


@dataclass(frozen=True)
class Solution:
    """What the iteration came to.

    Attributes:
        x: H⁺ y, in the images' shape (B, C, H, W).
        residual: ||Hᵀ (y - H x)|| / ||Hᵀ y|| of each image, (B,).
        iterations: how many were taken: what the slowest image needed, on accelerators up to `ASK_EVERY` - 1 more, which
            change nothing.
    """

    x: Tensor
    residual: Tensor
    iterations: int


def least_squares(
    forward: Callable[[Tensor], Tensor],
    adjoint: Callable[[Tensor], Tensor],
    y: Tensor,
    tolerance: float,
    max_iterations: int,
    damping: float = 0.0,
) -> Solution:
    """H⁺ y, or its damped form, for a batch, each image with step sizes of its own and done when its own residual is small.

    Args:
        forward: x -> H x, (B, C, H, W) -> (B, ...).
        adjoint: y -> Hᵀ y.
        y: measurements, (B, ...), real or complex.
        tolerance: an image is done at ||Hᵀ (y - H x) - τ² x|| <= tolerance · ||Hᵀ y||.
        max_iterations: stop here in any case.
        damping: τ² >= 0.

    Returns:
        The solution as far as it got: compare `residual` with the tolerance.
    """
    r = y
    g = p = adjoint(r)
    x = torch.zeros_like(g)
    squared = start = _squared_norm(g)
    iterations, every = 0, _patience(y.device)
    while iterations < max_iterations:
        working = ~(squared <= tolerance**2 * start)  # a NaN goes on working, and stays in sight
        if iterations % every == 0 and not working.any():
            break
        iterations += 1
        hp = forward(p)
        # A step of zero for the images that are done, whose p may have vanished.
        curvature = _squared_norm(hp) + damping * _squared_norm(p) if damping else _squared_norm(hp)
        alpha = torch.where(working, squared / curvature.where(working, 1.0), 0.0)
        x = x + _per_image(alpha, p) * p
        r = r - _per_image(alpha, hp) * hp
        g = adjoint(r) - damping * x if damping else adjoint(r)
        last, squared = squared, torch.where(working, _squared_norm(g), squared)
        p = g + _per_image(torch.where(working, squared / last.where(working, 1.0), 0.0), p) * p
    return Solution(x, (squared / start.where(start > 0, 1.0)).sqrt(), iterations)


def _patience(device: torch.device) -> int:
    """Iterations between two questions whether all images are done."""
    return 1 if device.type == "cpu" else ASK_EVERY


def _squared_norm(x: Tensor) -> Tensor:
    return torch.linalg.vector_norm(x.flatten(1), dim=1) ** 2


def _per_image(values: Tensor, like: Tensor) -> Tensor:
    return values.view(-1, *[1] * (like.dim() - 1))
