"""Noise that is not one number: the exact posterior, samplers on a whitened problem, and what is refused."""

from __future__ import annotations

import pytest
import torch

from cclight import (
    DPS,
    Conjugate,
    ConjugateMoments,
    Denoising,
    DiffPIR,
    Epsilon,
    FourierSampling,
    GuidedODE,
    Inpainting,
    PiGDM,
    Quantization,
    RandomProjection,
    VPPath,
    Whitened,
)
from cclight.data.noise import generator
from cclight.operators.masks import FixedMask, RandomPixels
from tests.samplers.baselines import normal
from tests.samplers.golden import relative
from tests.samplers.test_conjugate import smooth_mixture

PRIOR = smooth_mixture(VPPath(), Epsilon())
SHAPE = PRIOR.image_shape
X = PRIOR.sample(2, torch.Generator().manual_seed(1))
STD = 0.05 + torch.rand(2, *SHAPE, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
LARGE = 1e4  # as good as not measured
SAMPLERS = [Conjugate(4), PiGDM(4), DiffPIR(4), ConjugateMoments(4)]


def sampled(sampler, operator, y, noise_std):
    return sampler.sample(PRIOR, operator, y, normal(len(y), *SHAPE).double(), noise_std=noise_std).image


def test_its_functions_are_those_of_the_dense_matrix():
    operator, size = RandomProjection(7, SHAPE), X[0].numel()
    std = STD.flatten(1)[:, :7]
    eye = torch.eye(size, dtype=torch.float64).view(size, *SHAPE)
    for b in range(2):
        ours = Whitened(operator, std[b : b + 1])
        weight = ours.noise_std / std[b]
        torch.testing.assert_close(ours(eye), operator(eye) * weight)
        inverse = torch.linalg.pinv((operator(eye) * weight).T)
        y = normal(1, 7).double()
        torch.testing.assert_close(ours.pinv(y).flatten(1), y @ inverse.T, rtol=1e-3, atol=1e-3)
        assert ours.noise_std == float(std[b].min())


@pytest.mark.parametrize("sampler", SAMPLERS, ids=lambda one: type(one).__name__)
def test_what_is_not_trusted_is_a_hole(sampler):
    """σ_i so large that a pixel says nothing: the restoration is that of a mask, whose noise is one number."""
    kept = torch.rand(SHAPE[1:], generator=torch.Generator().manual_seed(3)) < 0.6
    y = X + 0.1 * normal(*X.shape, seed=4)
    std = torch.where(kept, 0.1, LARGE).double()
    masked = sampled(sampler, Inpainting(FixedMask(kept)), y * kept, 0.1)
    near = 1e-2 if isinstance(sampler, ConjugateMoments) else 3e-3  # it learns by quadrature how images vary
    assert relative(sampled(sampler, Denoising(), y, std), masked) < near


@pytest.mark.parametrize("sampler", [*SAMPLERS, GuidedODE(guidance=2.0, tolerance=1e-3)], ids=lambda one: type(one).__name__)
def test_each_image_has_its_own(sampler):
    """A number or a map for each image: as if each had come alone, up to what the spaces of Lanczos leave."""
    y = X + 0.1 * normal(*X.shape, seed=4)
    for std in (STD, torch.tensor([0.05, 0.3]).double().view(2, 1, 1, 1)):
        together = sampled(sampler, Denoising(), y, std)
        noise = normal(2, *SHAPE).double()
        for b in range(2):
            own = [generator(0, b, "sampler")]
            one = sampler.sample(PRIOR, Denoising(), y[b : b + 1], noise[b : b + 1], noise_std=std[b], generators=own).image
            assert relative(together[b : b + 1], one) < (1e-2 if isinstance(sampler, ConjugateMoments) else 3e-3)


def test_one_number_in_a_tensor_is_that_number():
    y = X + 0.1 * normal(*X.shape, seed=4)
    for std in (torch.tensor(0.1).double(), torch.full(SHAPE, 0.1).double()):
        assert torch.equal(sampled(Conjugate(3), Denoising(), y, std), sampled(Conjugate(3), Denoising(), y, float(std.max())))
    assert torch.equal(sampled(Conjugate(3), Denoising(), y, torch.zeros(())), sampled(Conjugate(3), Denoising(), y, 0.0))


def test_complex_measurements_and_gradients():
    operator = FourierSampling(RandomPixels(0.5))
    for sampler in (DPS(3), PiGDM(3)):
        assert sampled(sampler, operator, operator(X), STD).isfinite().all()


def test_its_adjoint_is_one():
    ours = Whitened(Denoising(), STD[:1])
    x, y = normal(3, *SHAPE).double(), normal(3, *SHAPE, seed=1).double()
    torch.testing.assert_close((ours(x) * y).sum(), (x * ours.adjoint(y)).sum())
    assert ours.image_shape(SHAPE) == SHAPE


@pytest.mark.parametrize(
    ("noise_std", "error", "line"),
    [
        (torch.tensor([0.1, 0.0]).view(2, 1, 1, 1), ValueError, "noise_std lies between 0 and 0.1: give finite"),
        (torch.tensor([0.1, torch.nan]).view(2, 1, 1, 1), ValueError, "lies between nan and nan"),
        (torch.tensor([0.1, torch.inf]).view(2, 1, 1, 1), ValueError, "lies between 0.1 and inf"),
        (torch.tensor([-0.1]), ValueError, "lies between -0.1 and -0.1"),
        (torch.ones(3, 1, 1, 1), ValueError, r"noise_std has the shape \(3, 1, 1, 1\).* or \(2, 1, 1, 1\) for one number"),
        (torch.ones(1, 2, *SHAPE), ValueError, "does not broadcast to y's"),
        (torch.ones(SHAPE).long(), TypeError, "noise_std is a number or a floating tensor, got torch.int64"),
    ],
)
def test_what_is_no_standard_deviation_is_refused_in_one_line(noise_std, error, line):
    with pytest.raises(error, match=line):
        sampled(Conjugate(3), Denoising(), X, noise_std)


def test_nonlinear_operators_take_one_number():
    with pytest.raises(TypeError, match="needs a LinearOperator, and Quantization is none: give one number"):
        sampled(Conjugate(3), Quantization(), X, STD)
