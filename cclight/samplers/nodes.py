r"""Nodes: functions of HᵀH by their values at a few eigenvalues.

Every coefficient is a smooth function of ln(λ/σ_y²), with all that happens where r² λ is about σ_y²: below the nodes the
measurement says nothing, and above them noise is none. The polynomial of degree 5 through the six nodes around an eigenvalue is
within 1e-7 of it, so that tables of coefficients need not grow with the image.
"""

from __future__ import annotations

from functools import lru_cache

import torch
from torch import Tensor

LOWEST, SPACING, NODES = -20.0, 0.1, 521
EVEN = 200  # the node where λ = σ_y²
AROUND = 6  # nodes that a value is interpolated from
FINE = 100  # entries of a `Lookup` from one node to the next: linear between two of them is within 1e-7
PIECE = 2**18  # singular values that a `Lookup` sees at a time: what it needs for that is small beside the image


@lru_cache(maxsize=16)
def nodes(noise_std: float) -> Tensor:
    """The nodes' singular values: one tensor for each σ_y, so that its tables are found again."""
    return noise_std * (0.5 * (LOWEST + SPACING * torch.arange(NODES, dtype=torch.float64))).exp()


def places(eigenvalues: Tensor, noise_std: float) -> Tensor:
    """Where eigenvalues λ >= 0 of HᵀH lie among the nodes, from 0 to NODES - 1; float64 of any shape."""
    return ((eigenvalues / noise_std**2).clamp_min(1e-30).log() - LOWEST).div_(SPACING).clamp_(0, NODES - 1)


def interpolated(f: Tensor, place: Tensor) -> Tensor:
    """The values of functions at places among the nodes.

    Args:
        f: their values at the nodes, (..., NODES), float64.
        place: (m,) or any shape, as of `places`.

    Returns:
        (..., *place.shape), float64.
    """
    first = (place.long() - (AROUND // 2 - 1)).clamp(0, NODES - AROUND)
    u = place - first
    total = torch.zeros((), dtype=f.dtype)
    for k in range(AROUND):  # Lagrange's polynomials
        weight = torch.ones_like(u)
        for j in range(AROUND):
            if j != k:
                weight = weight * (u - j) / (k - j)
        total = total + weight * f[..., first + k]
    return total


class Lookup:
    """Functions of HᵀH at every singular value of a large image, linear between the entries of a fine table.

    Args:
        singular_values: s >= 0, float64 on the CPU.
        noise_std: σ_y > 0.
        like: images of the dtype and device in question.
    """

    def __init__(self, singular_values: Tensor, noise_std: float, like: Tensor) -> None:
        self.like = like
        pieces = singular_values.reshape(-1).split(PIECE)
        most = float(singular_values.max())
        least = min(most, *(float(piece.where(piece > 0, torch.inf).min()) for piece in pieces))
        first, last = places(torch.tensor([least, most], dtype=torch.float64).square(), noise_std).long().tolist()
        # Entry 0 is the null space, where nothing is measured.
        entries = torch.arange(first * FINE, (last + 1) * FINE + 2, dtype=torch.float64) / FINE
        self.places = torch.cat([entries.new_zeros(1), entries]).clamp_(max=NODES - 1)
        self.entry = torch.empty(singular_values.shape, dtype=torch.int32)
        self.share = torch.empty(singular_values.shape, dtype=like.dtype)
        for s, entry, share in zip(pieces, self.entry.view(-1).split(PIECE), self.share.view(-1).split(PIECE), strict=True):
            place = (places(s.square(), noise_std) - first).mul_(FINE)
            entry.copy_(torch.where(s > 0, place.floor() + 1, 0))
            share.copy_(torch.where(s > 0, place.frac(), 0))
        self.entry, self.share = self.entry.to(like.device), self.share.to(like.device)

    def ready(self, f: Tensor) -> Tensor:
        """The table of functions by their values at the nodes, (..., NODES), on the images' device."""
        return interpolated(f, self.places).to(self.like)

    def __call__(self, table: Tensor) -> Tensor:
        """The values of one function of a table, in the shape of the singular values."""
        return torch.lerp(table[self.entry], table[1:][self.entry], self.share)
