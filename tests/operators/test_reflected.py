"""The decomposition by halves is the plain one: it rebuilds the matrix to rounding, whatever the symmetry."""

import pytest
import torch

from cclight.operators import reflected
from cclight.operators.reflected import decomposition
from cclight.operators.separable import BicubicDownsampling, GaussianBlur, UniformBlur, _banded

ONE_SIDED = torch.tensor([0.5, 0.3, 0.15, 0.05, 0.0], dtype=torch.float64)
CASES = {
    **{f"Gaussian blur {n}": GaussianBlur().matrix(n) for n in (1, 2, 63, 64)},
    **{f"window of {width}, {n}": UniformBlur(width).matrix(n) for width in (8, 9) for n in (40, 41)},
    **{f"bicubic {f}, {n}": BicubicDownsampling(f).matrix(n) for f, n in ((2, 6), (3, 63), (4, 64), (4, 4), (5, 55))},
    "one-sided kernel": _banded(ONE_SIDED, 41),
    "no symmetry": torch.randn(20, 31, generator=torch.Generator().manual_seed(0), dtype=torch.float64),
    "square, no symmetry": torch.randn(9, 9, generator=torch.Generator().manual_seed(1), dtype=torch.float64),
    "ties": torch.eye(7, dtype=torch.float64),
    "zero": torch.zeros(3, 5, dtype=torch.float64),
}


@pytest.mark.parametrize("smallest", [0.0, 3e-2, 0.5])
@pytest.mark.parametrize("name", CASES)
def test_it_is_the_plain_decomposition(name, smallest):
    a = CASES[name]
    (m, n), (u, s, vh) = a.shape, torch.linalg.svd(a)
    rank = int((s >= smallest).sum())
    ours_u, ours_s, ours_v = decomposition(a, smallest)
    assert (ours_u.shape, ours_s.shape, ours_v.shape) == ((m, rank), (rank,), (n, n))
    exact = {"rtol": 0, "atol": 1e-14 * max(1, float(s[0])) * n}
    torch.testing.assert_close(ours_s, s[:rank], **exact)
    torch.testing.assert_close(ours_s * ours_u @ ours_v[:, :rank].T, u[:, :rank] * s[:rank] @ vh[:rank], **exact)
    torch.testing.assert_close(ours_v.T @ ours_v, torch.eye(n, dtype=torch.float64), **exact)
    torch.testing.assert_close(ours_u.T @ ours_u, torch.eye(rank, dtype=torch.float64), **exact)


@pytest.mark.parametrize("name", ["Gaussian blur 64", "window of 9, 41", "bicubic 4, 64"])
def test_symmetric_kernels_are_taken_by_halves(name, monkeypatch):
    sizes = []
    plain = reflected._decompose
    monkeypatch.setattr(reflected, "_decompose", lambda a, rounding: sizes.append(a.shape) or plain(a, rounding))
    m, n = CASES[name].shape
    decomposition(CASES[name], 3e-2)
    assert sizes == [(-(-m // 2), -(-n // 2)), (m // 2, n // 2)]
