"""A measurement's noise as part of the path's, against dense matrices; and that photographs in noise are the better for it."""

from __future__ import annotations

import math

import pytest
import torch

from cclight import (
    AveragePooling,
    CircularBlur,
    ConjugateMoments,
    Denoising,
    Epsilon,
    Inpainting,
    LineKernel,
    MotionBlur,
    RandomProjection,
    RestorationDataModule,
    SamplePhotographs,
    SmallPrior,
    VPPath,
    recipe,
)
from cclight.data.preprocessing import Preprocessing
from cclight.operators.base import SpectralOperator
from cclight.operators.masks import Box, FixedMask
from cclight.paths.gaussian import OTPath
from cclight.problem import Problem
from cclight.samplers.absorbed import TOLERANCE, UNMEASURED, Absorbed
from cclight.samplers.filters import KrylovFilters
from cclight.samplers.grid import Grid
from tests.samplers.baselines import normal
from tests.samplers.golden import relative
from tests.samplers.test_conjugate import smooth_mixture
from tests.samplers.test_covariances import NOISE, OPERATORS, SHAPE, dense, problem

GRID = Grid(3, 0.4, None)


def absorbed(name: str, krylov: bool, monkeypatch) -> tuple[Problem, Absorbed, torch.Tensor, torch.Tensor, torch.Tensor]:
    """A problem, what absorbs its noise, and HᵀH's eigenvalues, vectors and y/s in them, (n,), (n, n), (2, n)."""
    monkeypatch.setattr("cclight.samplers.absorbed.TOLERANCE", 1e-9)
    if krylov:
        monkeypatch.setattr(
            "cclight.samplers.absorbed.filters_of", lambda h, y, like, tolerance: KrylovFilters(h, y, tolerance)
        )
    case, h = problem(OPERATORS[name]), dense(OPERATORS[name])
    values, vectors = torch.linalg.eigh(h.T @ h)
    values = torch.where(values > 1e-10, values, 0.0)
    ys = (case.y.flatten(1) @ h @ vectors) / values.where(values > 0, torch.inf)
    return case, Absorbed(case, GRID), values, vectors, ys


@pytest.mark.parametrize("krylov", [False, True])
@pytest.mark.parametrize("name", OPERATORS)
def test_it_is_what_dense_matrices_say(name, krylov, monkeypatch):
    if not krylov and name in ("motion", "projection"):
        return
    case, ours, values, vectors, ys = absorbed(name, krylov, monkeypatch)
    near = 2e-2 if krylov else 1e-8  # Lanczos' method has 64 steps, and functions with corners need many
    first, tau_squared = case.at(0), NOISE**2 / values.clamp_min(1e-300)

    def state(n: int, estimate: torch.Tensor, carried: torch.Tensor, z: torch.Tensor) -> torch.Tensor:
        level = case.at(n)
        half = (NOISE * first.alpha / (UNMEASURED * first.sigma)) ** 2
        measured = values / (values + half)
        c = (level.sigma / level.alpha / tau_squared.sqrt()).clamp_max(1)
        room = (level.sigma**2 - level.alpha**2 * tau_squared).clamp_min(0).sqrt()
        return level.alpha * estimate + measured * (level.alpha * c * (ys - estimate) + room * z) + (1 - measured) * carried

    def spectral(image: torch.Tensor) -> torch.Tensor:
        return image.flatten(1) @ vectors

    z = spectral(case.noise)
    x = ours.begin()
    assert relative(spectral(x), state(0, spectral(case.guess()), first.sigma * z, z)) < near

    level = case.at(0)
    v = level.sigma**2 / (level.sigma**2 + level.alpha**2)
    p = (1 / tau_squared - (level.alpha / level.sigma) ** 2).clamp_min(0)
    room = (level.sigma**2 - level.alpha**2 * tau_squared).clamp_min(0).sqrt()
    x_0 = 0.1 * normal(2, *SHAPE, seed=4)
    root = normal(64, 64, seed=5) / 40
    spread = vectors.T @ (root @ root.T) @ vectors  # some covariance that is not what is presumed
    wanted = p * (ys - spectral(x_0)) - room * level.alpha / level.sigma**2 * z
    d = wanted / (1 + v * p)
    residual = ours.residual(x_0)
    direction = ours.direction(0, residual)
    assert relative(spectral(direction[0]), d) < near
    of_d = (d @ spread @ vectors.T).view_as(x_0)
    found = ours.condition(0, x_0.clone(), of_d.clone(), residual, direction, 1.7)
    made = (p * (d @ spread) + d) / (1 + v * p)
    length = 1.7 * ((made * d).sum(1) / (made * made).sum(1))[:, None]
    excess = length * (d @ spread - v * d)
    expected = spectral(x_0) + excess + v * p / (1 + v * p) * (wanted / p.clamp_min(1e-300) - excess)
    assert relative(spectral(found), expected) < near

    after = ours.advance(0, x, found, kept=1.0)
    case.generators = None
    fresh = spectral(case.randn())
    carried = case.at(1).sigma / level.sigma * (spectral(x) - level.alpha * spectral(found))
    assert relative(spectral(after), state(1, spectral(found), carried, fresh)) < near


def test_what_is_measured_has_the_noise_that_the_path_has():
    """Over measurements and draws the state is α x + σ · noise, in every direction, at every time."""
    operator = CircularBlur(LineKernel(5.0, 30.0))
    x = normal(1, 1, 16, 16).expand(400, -1, -1, -1)
    y = operator(x) + 0.3 * normal(*x.shape, seed=1)
    case = Problem(smooth_mixture(VPPath(), Epsilon()), operator, y, normal(*x.shape, seed=2), 0.3)
    ours = Absorbed(case, Grid(5, 0.4, None))
    state = ours.begin()
    for n in range(3):
        state = ours.advance(n, state, x, kept=1.0)  # the network knows the image
        level = case.at(n + 1)
        noise = operator.spectral((state - level.alpha * x) / level.sigma)
        measured = operator.singular_values((1, 16, 16)) > 0.1
        assert noise[:, measured].square().mean() == pytest.approx(1, abs=0.02)


def test_the_last_call_is_where_the_noise_is():
    for path in (VPPath(), OTPath()):
        times = Grid(5, 0.3, spacing="quadratic").times_from_to(0.0, 0.02, path)
        assert len(times) == 6
        assert float(path.ratio(times[-2])) == pytest.approx(0.02, rel=1e-6)
        usual = Grid(5, 0.3, spacing="quadratic").times(path)
        assert torch.equal(times[[0, -1]], usual[[0, -1]])
        assert torch.equal(Grid(5, 0.3).times_from_to(0.0, 0.9, path), Grid(5, 0.3).times(path))  # it is later anyway
        assert torch.equal(Grid(1, 0.3).times_from_to(50.0, 0.02, path), Grid(1, 0.3).times(path))
        assert torch.equal(Grid(5, 0.3).times_from_to(0.0, math.inf, path), Grid(5, 0.3).times(path))


def test_the_first_call_is_where_there_is_room_for_the_noise():
    for path in (VPPath(), OTPath()):
        early = Grid(5, 0.6, spacing="quadratic").times_from_to(4.0, 0.02, path)
        assert len(early) == 6
        assert path.ratio(early[[0, -2]]).tolist() == pytest.approx([4.0, 0.02], rel=1e-6)
        assert bool((path.ratio(early).diff() < 0).all())
        assert torch.equal(Grid(5, 0.6).times_from_to(0.1, math.inf, path), Grid(5, 0.6).times(path))  # it is earlier anyway


@pytest.mark.parametrize("operator", [AveragePooling(4), CircularBlur(LineKernel(5, 30)), RandomProjection(24, (1, 8, 8), 2)])
def test_the_room_is_three_times_the_noise_of_a_typical_direction(operator):
    """The root mean square of H's singular values, here of its matrix."""
    x = normal(1, 1, 8, 8)
    matrix = torch.stack([operator(one[None]).flatten() for one in torch.eye(64).view(64, 1, 8, 8)], 1)
    measured = torch.linalg.svdvals(matrix.double())
    typical = measured[measured > 1e-3 * measured.max()].square().mean().sqrt()
    case = Problem(smooth_mixture(VPPath(), Epsilon()), operator, operator(x), torch.zeros_like(x), 0.5)
    Absorbed(case, Grid(5, 0.95, None))
    near = 1e-3 if isinstance(operator, SpectralOperator) else 0.25  # one probe
    assert float(case.prior.path.ratio(torch.tensor(case.times[0]))) == pytest.approx(3 * 0.5 / float(typical), rel=near)


@pytest.mark.slow
def test_pictures_with_much_noise_are_restored_from_more_than_that(monkeypatch):
    """Super-resolution of σ_y = 0.5: its directions have noise of 2, and the packaged start has half as much."""
    operator, prior, sampler, _ = recipe("sr")
    data = RestorationDataModule(SamplePhotographs(), operator, image_size=64, batch_size=6)
    x = next(iter(data.predict_dataloader())).images
    y = operator(x) + 0.5 * normal(*operator(x).shape).float()
    found = []
    for room in (3.0, 0.0):
        monkeypatch.setattr("cclight.samplers.absorbed.ROOM", room)
        found.append(float((sampler.sample(prior, operator, y, noise_std=0.5).image.clamp(-1, 1) - x).square().mean()))
    assert found[0] < 0.7 * found[1]


def test_denoising_in_one_call_is_the_network(monkeypatch):
    """With nothing to undo, the state at the noise's own level is y, and the answer the network's."""
    monkeypatch.setattr("cclight.samplers.absorbed.UNMEASURED", 1e6)
    prior, operator = smooth_mixture(VPPath(), Epsilon()), Denoising()
    x = normal(2, *prior.image_shape)
    path = prior.path
    time = float(path.time_at_ratio(torch.tensor([0.5], dtype=torch.float64)))
    y = x + 0.5 * normal(*x.shape, seed=1)
    start = (time - path.t_noise) / (path.t_data - path.t_noise)
    image = ConjugateMoments(1, t_start=start, absorb_noise=True).sample(prior, operator, y, noise_std=0.5).image
    case = Problem(prior, operator, y, y, 0.5)
    level = case.level(time)
    end = case.level(float(Grid(1, start).times(path)[-1]))
    x_0 = case.denoise(level.alpha * y, time)
    kept = end.sigma / end.alpha / 0.5
    assert relative(image, end.alpha * (x_0 + kept * (y - x_0))) < 1e-9


def test_where_nothing_is_measured_the_prior_is_alone():
    prior = smooth_mixture(VPPath(), Epsilon())
    nothing = Inpainting(FixedMask(torch.zeros(prior.image_shape[1:])))
    y, noise = torch.zeros(2, *prior.image_shape, dtype=torch.float64), normal(2, *prior.image_shape)
    image = ConjugateMoments(5, absorb_noise=True).sample(prior, nothing, y, noise, noise_std=0.1).image
    assert image.isfinite().all()
    assert image.std() > 0.1


def test_it_changes_nothing_without_noise():
    prior, operator = smooth_mixture(VPPath(), Epsilon()), AveragePooling(2)
    y, noise = operator(normal(2, *prior.image_shape)), normal(2, *prior.image_shape, seed=1)
    one, other = (ConjugateMoments(3, absorb_noise=is_on).sample(prior, operator, y, noise).image for is_on in (False, True))
    assert torch.equal(one, other)


def test_images_are_restored_each_by_itself():
    prior, operator = smooth_mixture(VPPath(), Epsilon()), Inpainting(Box(4))
    y, noise = operator(normal(3, *prior.image_shape)), normal(3, *prior.image_shape, seed=1)
    sampler = ConjugateMoments(4, guidance=2.0, order=2, renewal=0.5, absorb_noise=True)

    def restored(images: slice) -> torch.Tensor:
        draws = [torch.Generator().manual_seed(place) for place in range(3)[images]]
        return sampler.sample(prior, operator, y[images], noise[images], noise_std=0.1, generators=draws).image

    assert relative(restored(slice(1, 2)), restored(slice(None))[1:2]) < 1e-9


@pytest.mark.slow
@pytest.mark.parametrize("operator", [CircularBlur(LineKernel(15.0, 30.0)), MotionBlur(LineKernel(15.0, 30.0))], ids=type)
def test_photographs_in_noise_are_the_better_for_it(operator):
    crop = Preprocessing((96, 96))
    photographs = torch.stack([crop(one.load()) for one in list(SamplePhotographs())[:3]])
    y = operator(photographs)
    y = y + 0.05 * torch.randn(y.shape, generator=torch.Generator().manual_seed(0))

    def psnr(is_on: bool) -> float:
        sampler = ConjugateMoments(guidance=2.5, t_start=0.7, timesteps="uniform", absorb_noise=is_on)
        image = sampler.sample(SmallPrior(), operator, y, noise_std=0.05).image.clamp(-1, 1)
        return float(10 * torch.log10(4 / (image - photographs).square().mean()))

    assert TOLERANCE < 1e-2
    assert psnr(True) > psnr(False) + 0.3
