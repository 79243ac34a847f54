"""What is presumed of V, against dense matrices; and that photographs in noise are the better for it."""

from __future__ import annotations

import pytest
import torch

from cclight import (
    JPEG,
    AveragePooling,
    CircularBlur,
    ConjugateMoments,
    Denoising,
    Epsilon,
    GaussianBlur,
    Inpainting,
    LineKernel,
    MotionBlur,
    RandomProjection,
    SamplePhotographs,
    SmallPrior,
    VPPath,
)
from cclight.data.preprocessing import Preprocessing
from cclight.operators.base import LinearOperator
from cclight.operators.kernels import FixedKernel
from cclight.operators.masks import Box, FixedMask
from cclight.problem import Problem
from cclight.samplers.covariances import Empirical, Isotropic, Lanczos, Spectral, covariance_of
from cclight.samplers.grid import Grid
from cclight.samplers.variances import at
from tests.operators.test_all_operators import SPECTRAL
from tests.samplers.baselines import normal
from tests.samplers.golden import relative
from tests.samplers.test_conjugate import smooth_mixture

SHAPE, NOISE = (1, 8, 8), 0.1
KERNEL = FixedKernel(torch.tensor([[0.0, 0.1, 0.0], [0.2, 0.9, 0.4], [0.0, 0.1, 0.3]]))
OPERATORS: dict[str, LinearOperator] = {
    "circular": SPECTRAL["circular"],
    "gaussian": GaussianBlur(1.0, 5),
    "pooling": AveragePooling(2),
    "box": Inpainting(Box(3)),
    "denoising": Denoising(),
    "motion": MotionBlur(KERNEL),
    "projection": RandomProjection(20, SHAPE),
}


def problem(operator: LinearOperator, noise_std: float = NOISE) -> Problem:
    x = torch.nn.functional.interpolate(normal(2, 1, 2, 2), scale_factor=4, mode="bilinear")  # more coarse than fine
    y = operator(x)
    one = Problem(
        smooth_mixture(VPPath(), Epsilon()), operator, y + noise_std * normal(*y.shape, seed=1), normal(2, *SHAPE), noise_std
    )
    one.times = Grid(3, 0.4, None).times(VPPath(), 0.0).tolist()
    return one


def dense(operator: LinearOperator) -> torch.Tensor:
    """H, (m, n)."""
    return operator(torch.eye(64, dtype=torch.float64).view(64, *SHAPE)).flatten(1).T


def variances(covariance: Empirical, h: torch.Tensor, image: int) -> torch.Tensor:
    """diag(S), (n, n), in HᵀH's eigenvectors; S of the null space is without a meaning."""
    values, vectors = torch.linalg.eigh(h.T @ h)
    values = values.clamp_min(0)
    if isinstance(covariance, Lanczos):
        hats, known = covariance.told[image]
        s = at(hats.places(values[None]), known)[0]
    else:
        assert isinstance(covariance, Spectral)
        order = covariance.eigenvalues.flatten().argsort()
        s = covariance.s[image].flatten()[order]
    return vectors @ torch.diag(torch.where(values > 1e-12, s, 0.0)) @ vectors.T


@pytest.mark.parametrize("kind", [Spectral, Lanczos])
@pytest.mark.parametrize("name", OPERATORS)
def test_it_is_what_dense_matrices_say(name, kind, monkeypatch):
    monkeypatch.setattr("cclight.samplers.covariances.TOLERANCE", 1e-7)  # the algebra; the packaged one settles for less
    operator = OPERATORS[name]
    if kind is Spectral and name in ("motion", "projection"):
        return
    case, h = problem(operator), dense(operator)
    covariance, n, guidance = kind(case), 1, 1.7
    x_0 = 0.1 * normal(2, *SHAPE, seed=4)
    root = normal(64, 64, seed=5) / 40
    v = root @ root.T  # some covariance that is not what is presumed
    residual = covariance.residual(x_0)
    direction = covariance.direction(n, residual)
    spread = (direction[0].flatten(1) @ v).view_as(x_0)
    found = covariance.condition(n, x_0.clone(), spread.clone(), residual, direction, guidance)
    guess = covariance.guess()
    level, identity = case.at(n), torch.eye(len(h), dtype=torch.float64)
    near = 1e-9 if kind is Spectral else 1e-3
    for image in range(2):
        s = variances(covariance, h, image)
        y, x = case.y[image].flatten(), x_0[image].flatten()
        assert relative(guess[image].flatten(), s @ h.T @ torch.linalg.solve(h @ s @ h.T + NOISE**2 * identity, y)) < near
        eigenvalues, basis = torch.linalg.eigh(s)
        left = eigenvalues * level.sigma**2 / (eigenvalues * level.alpha**2 + level.sigma**2)
        presumed = basis @ torch.diag(left) @ basis.T
        noisy = h @ presumed @ h.T + NOISE**2 * identity
        r = y - h @ x
        d = h.T @ torch.linalg.solve(noisy, r)
        assert relative(direction[0][image].flatten(), d) < near
        excess = (v - presumed) @ d
        within = h @ torch.linalg.pinv(h)  # what y says outside the range of H has no part in the length
        w, seen = within @ (h @ excess + r), within @ r
        length = guidance * (w @ torch.linalg.solve(noisy, seen)) / (w @ torch.linalg.solve(noisy, w))
        expected = x + length * excess + presumed @ h.T @ torch.linalg.solve(noisy, r - length * h @ excess)
        assert relative(found[image].flatten(), expected) < near


@pytest.mark.parametrize("name", ["circular", "gaussian", "pooling"])
def test_both_ways_learn_about_the_same(name):
    """Sums over directions, and quadrature of them from products with H alone."""
    operator, like = OPERATORS[name], normal(1, 3, 64, 64)
    x = torch.nn.functional.interpolate(normal(1, 3, 8, 8), scale_factor=8, mode="bicubic") + 0.05 * like
    y = operator(x)
    case = Problem(smooth_mixture(VPPath(), Epsilon()), operator, y + 0.05 * normal(*y.shape, seed=1), like, 0.05)
    assert relative(Lanczos(case).guess(), Spectral(case).guess()) < 0.03


def test_noise_where_nothing_is_measured_changes_nothing():
    """A mask's y holds numbers for missing pixels too: what is in them is nobody's business."""
    prior, operator = smooth_mixture(VPPath(), Epsilon()), Inpainting(Box(4))
    y, noise = operator(normal(2, *prior.image_shape)), normal(2, *prior.image_shape, seed=1)
    missing = 1 - operator(torch.ones_like(y))
    one, other = (
        ConjugateMoments(3, guidance=2.0).sample(prior, operator, kind, noise, noise_std=0.1).image
        for kind in (y, y + 5 * missing * normal(*y.shape, seed=2))
    )
    assert relative(one, other) < 1e-12


@pytest.mark.parametrize("kind", [Spectral, Lanczos])
def test_where_nothing_is_measured_the_prior_is_alone(kind, monkeypatch):
    monkeypatch.setattr("cclight.samplers.moments.covariance_of", lambda problem, grid: kind(problem))
    prior = smooth_mixture(VPPath(), Epsilon())
    nothing = Inpainting(FixedMask(torch.zeros(prior.image_shape[1:])))
    y, noise = torch.zeros(2, *prior.image_shape, dtype=torch.float64), normal(2, *prior.image_shape)
    image = ConjugateMoments(5).sample(prior, nothing, y, noise, noise_std=0.1).image
    assert image.isfinite().all()
    assert image.std() > 0.1


def test_who_presumes_what():
    grid = Grid(3, 0.4, None)
    assert isinstance(covariance_of(problem(OPERATORS["gaussian"]), grid), Spectral)
    assert isinstance(covariance_of(problem(OPERATORS["motion"]), grid), Lanczos)
    assert isinstance(covariance_of(problem(OPERATORS["gaussian"], 0.0), grid), Isotropic)
    rounded = problem(OPERATORS["gaussian"])
    rounded.rounded = True
    assert isinstance(covariance_of(rounded, grid), Isotropic)


def test_rounding_is_not_taken_for_noise(monkeypatch):
    """What JPEG sets to zero is not known to vary little: y's own variance tells nothing of S there."""
    asked = []
    monkeypatch.setattr("cclight.samplers.covariances.Spectral.__init__", lambda *arguments: asked.append(arguments))
    prior = smooth_mixture(VPPath(), Epsilon())
    codec = JPEG(30)
    ConjugateMoments(1).sample(prior, codec, codec(0.1 * normal(1, *prior.image_shape)))
    assert not asked


@pytest.mark.slow
@pytest.mark.parametrize("operator", [CircularBlur(LineKernel(15.0, 30.0)), MotionBlur(LineKernel(15.0, 30.0))], ids=type)
def test_photographs_in_noise_are_the_better_for_it(operator, monkeypatch):
    source = SamplePhotographs()
    crop = Preprocessing((96, 96))
    photographs = torch.stack([crop(one.load()) for one in list(source)[:3]])
    y = operator(photographs)
    y = y + 0.05 * torch.randn(y.shape, generator=torch.Generator().manual_seed(0))
    sampler, prior = ConjugateMoments(guidance=2.5, t_start=0.7, timesteps="uniform"), SmallPrior()

    def psnr() -> float:
        image = sampler.sample(prior, operator, y, noise_std=0.05).image.clamp(-1, 1)
        return float(10 * torch.log10(4 / (image - photographs).square().mean()))

    ours = psnr()
    monkeypatch.setattr("cclight.samplers.moments.covariance_of", Isotropic)
    assert ours > psnr() + 0.4
