r"""Singular value decompositions of the 1-D matrices of blurs and downsampling, which a reflection leaves as they are.

A symmetric kernel knows neither left nor right: J A J = A, J the reversal. Even and odd vectors (J v = ± v) then never mix,

    A = (E_m  O_m) diag(A_e, A_o) (E_n  O_n)ᵀ,    columns (e_i ± e_{n-1-i}) / √2,  and e_{n/2} where n is odd,

and two matrices of half the size take a quarter of the time. A symmetric one has its singular values in its eigenvalues,
A = W Λ Wᵀ = (W sign Λ) |Λ| Wᵀ, found in another quarter of it; so has a Toeplitz matrix, the convolution with any kernel, as
A J is symmetric: A = W Λ (J W)ᵀ. No Gram matrix is formed: errors are ε ‖A‖, as those of the plain decomposition.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

_ROUNDING = 1e-13  # beside entries of about 1: a symmetry that is meant


def decomposition(a: Tensor, smallest: float) -> tuple[Tensor, Tensor, Tensor]:
    """The singular value decomposition without small singular values.

    Args:
        a: A, (m, n) with m <= n, float64.
        smallest: singular values below it go.

    Returns:
        U_k (m, k), s_k (k,) falling, and the whole basis V (n, n), its first k columns the kept ones.
    """
    even, odd = _halves(a)
    (even, mixed), (also_mixed, odd) = ([part.T for part in _halves(half.T)] for half in (even, odd))
    scale = _ROUNDING * a.abs().max()
    if mixed.numel() and max(mixed.abs().max(), also_mixed.abs().max()) > scale:
        parts = [_decompose(a, scale)]
    else:
        m, n = a.shape
        parts = [
            (_whole(u, m, sign), s, _whole(v, n, sign))
            for half, sign in ((even, 1), (odd, -1))
            for u, s, v in [_decompose(half, scale)]
        ]
    ranks = [int((s >= smallest).sum()) for _, s, _ in parts]
    ranked = list(zip(parts, ranks, strict=True))
    values, order = torch.cat([s[:k] for (_, s, _), k in ranked]).sort(descending=True, stable=True)
    u, kept = (torch.cat([part[place][:, :k] for part, k in ranked], dim=1)[:, order] for place in (0, 2))
    return u, values, torch.cat([kept, *(v[:, k:] for (_, _, v), k in ranked)], dim=1)


def _decompose(a: Tensor, rounding: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """U, s falling, and the whole V."""
    m, n = a.shape
    for reverse in (False, True) if m == n else ():
        symmetric = a.flip(1) if reverse else a
        if m and (symmetric - symmetric.T).abs().max() > rounding:
            continue
        eigenvalues, w = torch.linalg.eigh((symmetric + symmetric.T) / 2)
        s, order = eigenvalues.abs().sort(descending=True)
        w = w[:, order]
        return w * eigenvalues[order].sign(), s, w.flip(0) if reverse else w
    u, s, vh = torch.linalg.svd(a, full_matrices=True)
    return u, s, vh.T


def _halves(a: Tensor) -> tuple[Tensor, Tensor]:
    """The rows of a, (..., n), in coordinates of even vectors, (..., ⌈n/2⌉), and of odd ones, (..., ⌊n/2⌋)."""
    n, half = a.shape[-1], a.shape[-1] // 2
    left, right = a[..., :half], a[..., n - half :].flip(-1)
    return torch.cat([(left + right) / math.sqrt(2), a[..., half : n - half]], dim=-1), (left - right) / math.sqrt(2)


def _whole(z: Tensor, n: int, sign: int) -> Tensor:
    """Even vectors (sign 1) or odd ones (sign -1), (n, k), of their coordinates z."""
    half = n // 2
    side = z[:half] / math.sqrt(2)
    middle = z[half:] if sign == 1 else z.new_zeros(n - 2 * half, z.shape[1])
    return torch.cat([side, middle, sign * side.flip(0)])
