"""Functions of HᵀH by Lanczos' method, against dense matrices."""

import pytest
import torch
from torch import Tensor

from cclight.operators.krylov import KrylovSpace

SIDE = 6


def images(count: int = 3, seed: int = 0) -> Tensor:
    return torch.randn(count, 1, SIDE, SIDE, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def symmetric(eigenvalues: Tensor, seed: int = 1) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    basis = torch.linalg.qr(torch.randn(SIDE**2, SIDE**2, generator=generator, dtype=torch.float64)).Q
    return basis * eigenvalues @ basis.T


def apply(matrix: Tensor):
    return lambda x: (x.flatten(1) @ matrix.to(x)).view_as(x)


def grown(matrix: Tensor, v: Tensor, steps: int) -> KrylovSpace:
    space = KrylovSpace(apply(matrix), v)
    space.grow(steps)
    return space


def test_as_many_steps_as_dimensions_are_exact_and_more_change_nothing():
    matrix, v = symmetric(torch.linspace(0, 2, SIDE**2, dtype=torch.float64)), images()
    expected = apply(torch.matrix_exp(-3 * matrix))(v)
    for steps in (SIDE**2, SIDE**2 + 9):
        space = grown(matrix, v, steps)
        ritz = space.ritz()
        torch.testing.assert_close(space.combine(ritz.function((-3 * ritz.values).exp())), expected, rtol=1e-10, atol=1e-10)
        assert (ritz.error(1e-3) < 1e-10).all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_each_image_ends_quietly_when_its_own_space_is_exhausted(dtype):
    """Eigenvalues 0 and 1 end after two steps, an eigenvector after one, nothing at once; the others go on."""
    matrix, v = symmetric(torch.linspace(0.1, 1, SIDE**2, dtype=torch.float64)), images(4)
    mask = symmetric((torch.arange(SIDE**2) % 2).double())

    def mixed(x: Tensor) -> Tensor:
        return torch.cat([apply(mask)(x[:3]), apply(matrix)(x[3:])])

    v[1] = apply(mask)(v[1:2])  # in the range
    v[2] = 0
    v = v.to(dtype)
    space = KrylovSpace(mixed, v)
    space.grow(8)
    space.grow(SIDE**2)
    ritz = space.ritz()
    image = space.combine(ritz.function((-2 * ritz.values).exp()))
    assert image.dtype == dtype
    decay, slow_decay = (apply(torch.matrix_exp(-2 * m)) for m in (mask, matrix))
    expected = torch.cat([decay(v[:3].double()), slow_decay(v[3:].double())])
    torch.testing.assert_close(image.double(), expected, rtol=0, atol=1e-12 if dtype == torch.float64 else 1e-5)
    assert (ritz.beyond == 0)[:3].all()


def test_a_nan_stays_with_its_image():
    matrix = symmetric(torch.linspace(0, 1, SIDE**2, dtype=torch.float64))
    v = images()
    v[1, 0, 0, 0] = torch.nan
    space = grown(matrix, v, 10)
    ritz = space.ritz()
    image = space.combine(ritz.function(ritz.values))
    torch.testing.assert_close(image[::2], apply(matrix)(v[::2]))
    assert image[1].isnan().any()


@pytest.mark.parametrize("steps", [3, 6, 12, 24])
@pytest.mark.parametrize("damping", [1e-3, 1e-1])
def test_the_bound_holds_and_is_no_idle_one(steps, damping):
    matrix = symmetric(torch.logspace(-4, 0, SIDE**2, dtype=torch.float64))
    v = images()
    space = grown(matrix, v, steps)
    ritz = space.ritz()
    approximate = space.combine(ritz.function(damping / (ritz.values + damping)))
    eye = torch.eye(SIDE**2, dtype=torch.float64)
    exact = apply(damping * torch.linalg.inv(matrix + damping * eye))(v)
    error = (approximate - exact).flatten(1).norm(dim=1) / v.flatten(1).norm(dim=1)
    bound = ritz.error(damping)
    assert (error <= bound * (1 + 1e-9) + 1e-12).all()
    assert (bound <= 1).all()
    if steps == 24 and damping == 1e-1:
        assert (bound < 1e-3).all()
