r"""How noisy a given measurement is: σ_y where nobody has said it. All standard deviations are in units of [-1, 1] images.

Noise is whatever the operator did not make. Four witnesses, of which the loudest is believed:

| what           | how it is told                                                                                 |
|----------------|------------------------------------------------------------------------------------------------|
| rounding       | b bits: steps of Δ = 2 / (2^b - 1), σ = Δ / √12                                                |
| compression    | JPEG's tables q: a coefficient is off by q / √12, or by itself where it was rounded to zero    |
| grain          | the median of the picture's finest detail, which edges do not move                             |
| contradiction  | what is left of y outside the range of H: no image under this blur could have given it         |

For the coefficients that were rounded to zero, Laplace's distribution stands in: p = exp(-q / 2b) of them are not, which
tells its scale b. The errors of compression gather in coarse structure, where an inverse blur is told to trust the picture
most: they count three times there (measured: at quality 10, twice loses where three times gains).

References:
    Immerkær, Fast Noise Variance Estimation, Computer Vision and Image Understanding 64, 1996 (the filter).
    Donoho and Johnstone, Ideal Spatial Adaptation by Wavelet Shrinkage, Biometrika 81, 1994 (the median).
    Lam and Goodman, A Mathematical Analysis of the DCT Coefficient Distributions for Images, IEEE TIP 9, 2000 (Laplace).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import avg_pool2d, conv2d, pad

from cclight.data.fitting import Fitted
from cclight.operators.base import SpectralOperator
from cclight.operators.jpeg_levels import dct_matrix

MEDIAN = 0.6745  # of |n|, n standard normal


@dataclass(frozen=True)
class NoiseLevel:
    """What was found.

    Attributes:
        std: σ_y.
        witness: where it comes from, a noun.
        explained: σ of what is noise for certain.
        contradicted: the picture holds far more detail than noise explains: H has not made it.
    """

    std: float
    witness: str
    explained: float
    contradicted: bool


def noise_level(fitted: Fitted, depth: int, compressed: float = 0.0) -> NoiseLevel:
    """The noise of one measurement, from everything that can be known of it.

    Args:
        fitted: the measurement of one picture, on its canvas.
        depth: bits a channel of the file it came from.
        compressed: what its compression added (`compression`), 0 for none.
    """
    y = fitted.y if fitted.inside is None else fitted.y[(..., *fitted.inside)]
    found = {"rounding": rounding(depth), "grain": grain(y), "JPEG compression": 3 * compressed}
    explained = max(found["rounding"], found["grain"], compressed)
    found["what no such blur leaves"] = outside = contradiction(fitted)
    witness = max(found, key=found.__getitem__)
    contradicted = outside > max(2 * found["grain"], 1.2 * compressed, 0.01)
    return NoiseLevel(found[witness], witness, explained, contradicted)


def rounding(depth: int) -> float:
    """σ of values in [-1, 1] rounded to so many bits."""
    return 2 / (2**depth - 1) / math.sqrt(12)


def grain(y: Tensor) -> float:
    """σ of white noise in a picture y, (1, C, h, w): the median of its second differences in both directions."""
    if min(y.shape[-2:]) < 3:
        return 0.0
    line = y.new_tensor([1.0, -2.0, 1.0])
    detail = conv2d(y.transpose(0, 1), torch.outer(line, line)[None, None] / 6)  # of unit norm
    return float(detail.abs().flatten(1).median(dim=1).values.mean()) / MEDIAN


def contradiction(fitted: Fitted) -> float:
    """σ of the noise outside the range of H, (I - H H⁺) y; 0 where H can make anything or its range is not known."""
    operator = fitted.operator
    if not isinstance(operator, SpectralOperator) or fitted.y.shape[1:] != fitted.shape or not operator.reach:
        return 0.0
    lost = float((operator.singular_values(fitted.shape) == 0).double().mean())
    if lost == 0:
        return 0.0
    rest = fitted.y - operator(operator.pinv(fitted.y))
    rest = rest if fitted.inside is None else rest[(..., *fitted.inside)]
    return float(rest.square().mean().sqrt()) / math.sqrt(lost)


def compression(levels: Tensor, tables: Sequence[Sequence[int]], subsampling: str) -> float:
    """σ of what JPEG took from a picture, told from what it left.

    Args:
        levels: the decoded picture from 0 to 255, (H, W, 1 or 3), as the file stores it: its blocks begin at the top left.
        tables: the file's quantization tables, luminance's first, 64 numbers each, row by row.
        subsampling: of the chroma, "4:2:0" and the like.
    """
    x = levels.permute(2, 0, 1)[:, None].float()
    if x.shape[0] == 1:
        return math.sqrt(_lost(x, tables[0]) + 2 / 12) / 127.5
    red, green, blue = x
    luma = 0.299 * red + 0.587 * green + 0.114 * blue
    halved = (1 if subsampling in ("4:4:4", "4:2:2") else 2, 1 if subsampling == "4:4:4" else 2)
    blueness, redness = (avg_pool2d(f * (c - luma)[None], halved, ceil_mode=True) for f, c in ((0.564, blue), (0.713, red)))
    b, r = (_lost(plane + 128, tables[-1]) for plane in (blueness, redness))
    green_part = 0.344**2 * b + 0.714**2 * r
    # Integers after every stage, for which 5/12 stands: before, in luma, in chroma as it counts in RGB, and after.
    return math.sqrt(_lost(luma[None], tables[0]) + (1.402**2 * r + green_part + 1.772**2 * b) / 3 + 5 / 12) / 127.5


def _lost(plane: Tensor, table: Sequence[int]) -> float:
    """The mean square of what quantization took from a plane (1, 1, h, w) of grey levels."""
    height, width = plane.shape[-2:]
    blocks = pad(plane, (0, -width % 8, 0, -height % 8), mode="replicate") - 128
    blocks = blocks.unfold(2, 8, 8).unfold(3, 8, 8).reshape(-1, 8, 8).double()
    dct = dct_matrix()
    q = torch.tensor(table, dtype=torch.float64).view(8, 8)
    coefficients = dct @ blocks @ dct.T
    alive = ((coefficients / q).round() != 0).double().mean(0)
    edge, some = q / 2, alive.clamp(1e-9, 1 - 1e-9)
    scale = edge / torch.log(1 / some)
    dead = 2 * scale**2 - (edge**2 + 2 * edge * scale) * some / (1 - some)
    # Of frequencies that nothing is left of, nothing is known: there was little.
    dead = torch.where(alive > 0, dead.clamp(min=0), 0.0)
    return float((alive * q**2 / 12 + (1 - alive) * dead).mean())
