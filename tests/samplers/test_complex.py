"""Complex measurements: each sampler against the same problem in real numbers, σ_y/√2 in each of the two parts."""

from __future__ import annotations

import math
import warnings

import pytest
import torch

from cclight import (
    DDNM,
    DDRM,
    DPS,
    OTODE,
    Conjugate,
    ConjugateHeun,
    ConjugateMoments,
    DiffPIR,
    Epsilon,
    FourierSampling,
    GuidedODE,
    PiGDM,
    PnPFlow,
    REDDiff,
    VPPath,
)
from cclight.operators.base import LinearOperator, SpectralOperator
from cclight.operators.masks import RandomPixels
from cclight.samplers.base import Sampler
from tests.samplers.baselines import normal
from tests.samplers.golden import relative
from tests.samplers.test_conjugate import smooth_mixture

NOISE_STD = 0.1


class Sampled(LinearOperator):
    """Masked Fourier transform without a decomposition, by automatic differentiation."""

    tolerance = 1e-12

    def __init__(self) -> None:
        super().__init__()
        self.fourier = FourierSampling(RandomPixels(0.5))

    def forward(self, x):
        return self.fourier(x)


class Parts(Sampled):
    """The same, real and imaginary part as two numbers."""

    def image_shape(self, measurement_shape):
        return measurement_shape[:-1]

    def forward(self, x):
        return torch.view_as_real(super().forward(x))


class SpectralParts(SpectralOperator):
    """FourierSampling, real and imaginary part as two numbers."""

    def __init__(self) -> None:
        super().__init__()
        self.fourier = FourierSampling(RandomPixels(0.5))

    def image_shape(self, measurement_shape):
        return measurement_shape[:-1]

    def forward(self, x):
        return torch.view_as_real(self.fourier(x))

    def adjoint(self, y):
        return self.fourier.adjoint(torch.view_as_complex(y))

    def spectral(self, x):
        return self.fourier.spectral(x)

    def from_spectral(self, z):
        return self.fourier.from_spectral(z)

    def singular_values(self, image_shape):
        return self.fourier.singular_values(image_shape)


SAMPLERS: list[Sampler] = [
    Conjugate(3),
    ConjugateHeun(2),
    ConjugateMoments(3),
    ConjugateMoments(3, t_start=0.9, absorb_noise=True),
    PiGDM(3),
    DiffPIR(3),
    OTODE(3),
    GuidedODE(guidance=2.0, tolerance=1e-2),
    DDNM(3),
    DDRM(3),
    DPS(4),
    REDDiff(4),
    PnPFlow(3),
]


@pytest.mark.parametrize("noise_std", [0.0, NOISE_STD])
@pytest.mark.parametrize("case", ["spectral", "krylov"])
@pytest.mark.parametrize("sampler", SAMPLERS, ids=[type(one).__name__ for one in SAMPLERS])
def test_the_restoration_is_that_of_the_parts(sampler, case, noise_std):
    pair = (Sampled(), Parts()) if case == "krylov" else (FourierSampling(RandomPixels(0.5)), SpectralParts())
    if not isinstance(pair[0], SpectralOperator if noise_std and isinstance(sampler, DDNM) else sampler.requires):
        pytest.skip("asks for a decomposition")
    prior = smooth_mixture(VPPath(), Epsilon())
    x = prior.sample(2, torch.Generator().manual_seed(1)).double()
    y = pair[0](x)
    y = y + noise_std * torch.complex(*normal(2, *y.shape, seed=2).double()) / math.sqrt(2)
    noise = normal(2, *prior.image_shape).double()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the range of y, for which real numbers can be taken
        whole = sampler.sample(prior, pair[0], y, noise, noise_std=noise_std)
        parts = sampler.sample(prior, pair[1], torch.view_as_real(y), noise, noise_std=noise_std / math.sqrt(2))
    assert whole.image.dtype == torch.float64
    assert relative(whole.image, parts.image) < 1e-8


def test_the_exact_posterior_is_that_of_the_parts():
    prior = smooth_mixture(VPPath(), Epsilon())
    y = Sampled()(prior.sample(2, torch.Generator().manual_seed(1)))
    whole = prior.posterior(Sampled(), y, NOISE_STD)
    parts = prior.posterior(Parts(), torch.view_as_real(y), NOISE_STD / math.sqrt(2))
    torch.testing.assert_close(whole.means, parts.means)


def test_a_flat_image_is_not_taken_for_bytes():
    prior = smooth_mixture(VPPath(), Epsilon())
    operator = FourierSampling(RandomPixels(0.5))
    y = torch.zeros(1, *prior.image_shape, dtype=torch.complex64)
    y[..., y.shape[-2] // 2, y.shape[-1] // 2] = 5.0
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert Conjugate(2).sample(prior.float(), operator, y).image.isfinite().all()
