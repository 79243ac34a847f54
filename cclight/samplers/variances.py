r"""How images vary in the singular directions of H, as their measurement tells: S as a function of the eigenvalue λ = s².

In the directions of H = U S Vᵀ a measurement with noise is m = Uᵀy = s x̄_0 + σ_y n, and so

    E[m²] = λ S + σ_y²          =>          S(λ) = Σ (m² - σ_y²) / Σ λ        over directions around λ (empirical Bayes).

Around means hats, linear in ln λ from one node to the next. Where too few directions share a node (a 64th of all, within 16 and
256), its neighbours' are taken too. S never grows toward smaller λ: there the noise leaves it less well known, and images have
more of coarse than of fine structure.

Sums over directions are taken as such where H's decomposition is cheap, with quantiles of λ for nodes. Elsewhere they are
quadratic forms of b = Hᵀy,

    Σ φ(λ) m² = bᵀ (φ/λ)(HᵀH) b,        Σ φ(λ) = E[ cᵀ (φ/λ)(HᵀH) c ],     c = Hᵀz,  z ~ N(0, I),

which Lanczos' method turns into Gauss quadrature; the nodes are those of c.

References:
    Efron, Morris, Stein's Estimation Rule and its Competitors - an Empirical Bayes Approach, JASA 1973.
    Golub and Meurant, Matrices, Moments and Quadrature with Applications, 2010.
"""

from __future__ import annotations

import torch
from torch import Tensor

SORTED = 2**16  # singular values that quantiles are looked for among
MOST = 256  # quantiles


class Hats:
    """Hats in ln λ.

    Args:
        nodes: eigenvalues > 0 in any order, (N,), on the CPU.
        noise_std: σ_y > 0.
        like: of the dtype and device of all that is asked of them.
    """

    def __init__(self, nodes: Tensor, noise_std: float, like: Tensor) -> None:
        nodes = (nodes if len(nodes) else nodes.new_ones(1)).log().unique()  # none where nothing is measured
        self.nodes = torch.cat([nodes[:1] - 1, nodes]).to(like)  # two at least
        self.noise_var = noise_std**2

    def places(self, eigenvalues: Tensor) -> tuple[Tensor, Tensor]:
        """The hat before each eigenvalue, (B, n), counted from the largest, and how far it is on the way to the next."""
        tiny = torch.finfo(eigenvalues.dtype).tiny
        logarithm = eigenvalues.clamp_min(tiny).log().clamp(self.nodes[0], self.nodes[-1])
        above = torch.bucketize(logarithm, self.nodes).clamp_min(1)
        share = (self.nodes[above] - logarithm) / (self.nodes[above] - self.nodes[above - 1])
        return len(self.nodes) - 1 - above, share

    def sums(self, places: tuple[Tensor, Tensor], values: Tensor) -> Tensor:
        """Σ φ(λ) of values over each hat, (B, hats).

        Args:
            places: of their eigenvalues, (B, n) or (1, n).
            values: (B, n).
        """
        before, share = places
        total = values.new_zeros(len(values), len(self.nodes))
        total.scatter_add_(1, before.expand_as(values), (1 - share) * values)
        return total.scatter_add_(1, before.expand_as(values) + 1, share * values)

    def variances(self, power: Tensor, directions: Tensor, eigenvalues: Tensor) -> Tensor:
        """S at the hats, (B, hats).

        Args:
            power: Σ φ m², (B, hats).
            directions: Σ φ, (B, hats) or (1, hats).
            eigenvalues: Σ φ λ, the same.
        """
        held = (directions.cumsum(1) - directions).div(_enough(directions.sum(1, keepdim=True))).floor()
        group = (held.diff(dim=1, prepend=held[:, :1]) > 0).cumsum(1).expand(power.shape)
        signal, size = (
            torch.zeros_like(power).scatter_add_(1, group, sums.expand_as(power))
            for sums in (power - self.noise_var * directions, eigenvalues)
        )
        known = (signal / size.clamp_min(torch.finfo(size.dtype).tiny)).clamp_min(0)
        return known.cummin(1).values.gather(1, group)


def at(places: tuple[Tensor, Tensor], variances: Tensor) -> Tensor:
    """S at eigenvalues, (B, n), from its values at the hats, (B, hats); the places are (B, n) or (1, n)."""
    before, share = (one.expand(len(variances), -1) for one in places)
    return torch.lerp(variances.gather(1, before), variances.gather(1, before + 1), share.to(variances))


def quantiles(values: Tensor, directions: int) -> Tensor:
    """Some of many values, with as many of them from one to the next.

    Args:
        values: singular values.
        directions: how many of these all of them stand for, those of the null space too.

    Returns:
        Values above 0, (N,); none where there are none.
    """
    share = directions / values.numel()  # where channels have the same values, they are there once
    values = values[values > 0]
    if not len(values):
        return values
    known = torch.tensor(max(1.0, share * len(values)))
    values = values[:: 1 + len(values) // SORTED].sort().values
    count = max(1, min(MOST, len(values), int(known / _enough(known))))
    return values[torch.linspace(0, len(values) - 1, 1 + count).long()]


def _enough(directions: Tensor) -> Tensor:
    """How many directions S is told by, of so many."""
    return (directions / 64).clamp(16, 256)
