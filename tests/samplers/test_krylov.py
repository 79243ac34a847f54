"""Noisy measurements of operators without a singular value decomposition, against the exact form and dense matrices."""

from __future__ import annotations

import warnings

import pytest
import torch
from torch import Tensor

from cclight import (
    OTODE,
    BicubicDownsampling,
    Conjugate,
    ConjugateHeun,
    ConjugateMoments,
    ConjugateTilt,
    DiffPIR,
    Epsilon,
    GuidedODE,
    LinearCompose,
    MotionBlur,
    PiGDM,
    RandomProjection,
    VPPath,
)
from cclight.operators.base import LinearOperator, SpectralOperator
from cclight.operators.kernels import FixedKernel
from cclight.paths.guidance import Schedule
from cclight.problem import Problem
from cclight.samplers.base import Sampler
from cclight.samplers.coefficients import conjugate_table
from cclight.samplers.grid import Grid
from cclight.samplers.spectrum import TOLERANCE, Gains, Krylov, Singular, Spectrum
from tests.operators.test_all_operators import SPECTRAL
from tests.samplers.baselines import assert_images_do_not_meet, normal
from tests.samplers.golden import relative
from tests.samplers.test_conjugate import smooth_mixture

LEVELS = [0.01, 0.05, 0.2]
# Singular values down to 3e-2 and many of them.
BLURS = {"gaussian", "gaussian1", "uniform", "uniform_even", "jpeg_levels", "jpeg_levels_422"}
GRID = Grid(5, 0.4, None)


class Opaque(LinearOperator):
    """An operator whose singular values nobody is told."""

    tolerance = 1e-12

    def __init__(self, operator: LinearOperator) -> None:
        super().__init__()
        self.operator = operator

    def image_shape(self, measurement_shape: tuple[int, ...]) -> tuple[int, ...]:
        return self.operator.image_shape(measurement_shape)

    def forward(self, x: Tensor) -> Tensor:
        return self.operator(x)

    def adjoint(self, y: Tensor) -> Tensor:
        return self.operator.adjoint(y)


def problem(operator: LinearOperator, noise_std: float, shape: tuple[int, ...], dtype: torch.dtype) -> Problem:
    prior = smooth_mixture(VPPath(), Epsilon())
    x = normal(2, *shape).to(dtype)
    y = operator(x)
    return Problem(prior, operator, y + noise_std * normal(*y.shape, seed=1).to(y), x, noise_std)


def functions(spectrum: Spectrum, problem: Problem, n: int, schedule: Schedule = "alpha2") -> Tensor:
    """Every function of HᵀH that a conjugate step takes, and D r, one after the other."""
    table = conjugate_table(VPPath(), Epsilon(), GRID, spectrum.gains, schedule, 15.0)
    of_x, of_network, of_target, of_vjp = spectrum.prepare(table.phi)[n]
    x = problem.noise
    pairs = [(of_x, x), (of_network, x), (spectrum.of_target(of_target), spectrum.target(problem)), (of_vjp, x)]
    images = [spectrum.combine([pair]) for pair in pairs]
    residual = spectrum.measured(problem) - spectrum.seen(problem, x.flip(0))
    return torch.stack([*images, spectrum.damp(spectrum.prepare(table.gain)[n], residual)])


def errors(ours: Tensor, exact: Tensor) -> Tensor:
    return (ours - exact).flatten(1).norm(dim=1) / exact.flatten(1).norm(dim=1)


@pytest.mark.parametrize("noise_std", LEVELS)
@pytest.mark.parametrize("name", SPECTRAL)
def test_every_function_is_that_of_the_singular_values_or_a_warning_tells(name, noise_std):
    operator: SpectralOperator = SPECTRAL[name]
    case = problem(operator, noise_std, (3, 16, 16), torch.float64)
    for n in (0, 4):
        exact = functions(Singular(operator, noise_std, case.noise), case, n)
        Krylov._warned.clear()
        with warnings.catch_warnings(record=True) as told:
            warnings.simplefilter("always")
            ours = functions(Krylov(operator, noise_std), case, n)
        assert bool((errors(ours, exact) <= TOLERANCE).all()) or told
        if told:
            assert name in BLURS
            assert noise_std < 0.2
            assert len(told) == 1
            assert f"at noise_std={noise_std}" in str(told[0].message)


@pytest.mark.parametrize("name", ["box", "bicubic2", "pooling4", "circular"])
def test_float32_reaches_the_tolerance_too(name):
    operator = SPECTRAL[name]
    case = problem(operator, 0.05, (3, 16, 16), torch.float32)
    exact = functions(Singular(operator, 0.05, case.noise), case, 1)
    assert float(errors(functions(Krylov(operator, 0.05), case, 1), exact).max()) <= TOLERANCE


KERNEL = FixedKernel(torch.tensor([[0.0, 0.1, 0.0], [0.1, 0.5, 0.2], [0.0, 0.1, 0.0]]))
DENSE = {
    "random": RandomProjection(24, (1, 6, 6)),
    "motion": MotionBlur(KERNEL),
    "compose": LinearCompose([MotionBlur(KERNEL), BicubicDownsampling(2)]),
}


@pytest.mark.parametrize("noise_std", LEVELS)
@pytest.mark.parametrize("name", DENSE)
def test_dense_matrices_have_the_same_functions(name, noise_std):
    operator, shape = DENSE[name], (1, 6, 6)
    case = problem(operator, noise_std, shape, torch.float64)
    matrix = operator(torch.eye(36, dtype=torch.float64).view(36, *shape)).flatten(1).T
    _, s, vt = torch.linalg.svd(matrix)
    s = torch.cat([s, s.new_zeros(36 - len(s))])
    table = conjugate_table(VPPath(), Epsilon(), GRID, Gains(s, noise_std), "alpha2", 15.0)
    n = 1

    def function(coefficients: Tensor, x: Tensor) -> Tensor:
        return (x.flatten(1) @ vt.T * coefficients @ vt).view_as(x)

    inverse = torch.linalg.pinv(matrix)
    pinv_y = (case.y.flatten(1) @ inverse.T).view_as(case.noise)
    x = case.noise
    gap = (case.y - operator(x.flip(0))).flatten(1) @ inverse.T
    phi = table.phi[n]
    exact = [function(phi[0], x), function(phi[1], x), function(phi[2], pinv_y), function(phi[3], x)]
    exact.append(function(table.gain[n], gap.view_as(x)))
    assert float(errors(functions(Krylov(operator, noise_std), case, n), torch.stack(exact)).max()) <= TOLERANCE


SAMPLERS: list[Sampler] = [
    Conjugate(4),
    Conjugate(4, 4.0, order=2),
    Conjugate(4, jacobian="none"),
    ConjugateHeun(2),
    ConjugateMoments(4),
    PiGDM(4),
    DiffPIR(4),
    OTODE(4),
    GuidedODE(guidance=2.0, tolerance=1e-3),
]


@pytest.mark.parametrize("sampler", SAMPLERS, ids=[f"{type(one).__name__}{n}" for n, one in enumerate(SAMPLERS)])
@pytest.mark.parametrize("name", ["bicubic2", "circular"])
def test_without_singular_values_the_image_is_the_same(sampler, name):
    operator, prior = SPECTRAL[name], smooth_mixture(VPPath(), Epsilon())
    y = operator(prior.sample(2, torch.Generator().manual_seed(1)))
    y = y + 0.1 * normal(*y.shape, seed=2)
    exact, ours = (
        sampler.sample(prior, one, y, normal(2, *prior.image_shape), noise_std=0.1) for one in (operator, Opaque(operator))
    )
    assert ours.nfe == exact.nfe
    # What moment matching presumes it learns by quadrature then.
    assert relative(ours.image, exact.image) < (20 if isinstance(sampler, ConjugateMoments) else 2) * TOLERANCE


@pytest.mark.parametrize("sampler", [Conjugate(3), PiGDM(3), ConjugateMoments(3)])
@pytest.mark.parametrize("operator", [RandomProjection(5, (1, 4, 4)), MotionBlur(KERNEL)])
def test_images_do_not_meet(sampler, operator):
    assert_images_do_not_meet(sampler, operator, 0.1)


def test_what_is_not_reached_is_said_once():
    operator = MotionBlur(FixedKernel(torch.ones(15, 15)))
    case = problem(operator, 0.005, (1, 32, 32), torch.float64)
    with pytest.warns(UserWarning, match=r"MotionBlur at noise_std=0.005: after .* give a larger"):
        functions(Krylov(operator, 0.005), case, 0)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        functions(Krylov(operator, 0.005), case, 0)


def test_the_tilt_needs_singular_values():
    prior = smooth_mixture(VPPath(), Epsilon())
    y = normal(1, *prior.image_shape)
    with pytest.raises(TypeError, match=r"ConjugateTilt with noise_std=0.1 needs a SpectralOperator, and MotionBlur is none"):
        ConjugateTilt().sample(prior, MotionBlur(KERNEL), y, y, noise_std=0.1)
