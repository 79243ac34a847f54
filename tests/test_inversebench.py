"""InverseBench's five problems as small equivalents: which samplers run on them. The table in benchmarks/README.md is this one.

Zheng et al., InverseBench: Benchmarking Plug-and-Play Diffusion Priors for Inverse Problems in Physical Sciences, ICLR 2025.
"""

from __future__ import annotations

import math

import pytest
import torch

import cclight
from cclight import CartesianLines, GaussianMixture, LinearOperator, MultiCoil, Operator, OTPath, Velocity
from tests.samplers.baselines import normal
from tests.test_tasks import FAST, SAMPLERS

SIDE = 8


class Scattering(LinearOperator):
    """Linear inverse scattering (first Born approximation): fields at receivers of a permittivity lit from several sides."""

    def __init__(self):
        super().__init__()
        grid = torch.stack(torch.meshgrid(*2 * [torch.linspace(-1, 1, SIDE, dtype=torch.float64)], indexing="ij"), -1).view(
            -1, 2
        )
        angles = torch.arange(10, dtype=torch.float64) * 2 * math.pi / 10
        ring = 3 * torch.stack([angles.cos(), angles.sin()], -1)
        wave = torch.exp(6j * torch.cdist(ring, grid)) / torch.cdist(ring, grid).sqrt()  # from a place on the ring to a pixel
        self.matrix = (wave[:, None] * wave[None]).flatten(0, 1) / SIDE

    def image_shape(self, measurement_shape):
        return (1, SIDE, SIDE)

    def forward(self, x):
        return x.flatten(1).to(self.matrix) @ self.matrix.T


class Nonlinear(Operator):
    """A differentiable simulation without an inverse: h† gives a flat image."""

    def pinv(self, y):
        return torch.zeros(len(y), 1, SIDE, SIDE, dtype=y.dtype, device=y.device)


class BlackHole(Nonlinear):
    """Closure phases and logarithms of closure amplitudes: what telescopes with phases and gains of their own agree on."""

    def forward(self, x):
        v = torch.fft.fft2(x.squeeze(1) + 2)[:, :3, :3].flatten(1)  # visibilities on baselines
        phases = (v[:, 1:4] * v[:, 2:5] * v[:, 3:6].conj()).angle()
        amplitudes = v.abs()[:, 1:].clamp_min(1e-3).log()
        return torch.cat([phases, amplitudes[:, :4] + amplitudes[:, 1:5] - amplitudes[:, 2:6] - amplitudes[:, 3:7]], 1)


class NavierStokes(Nonlinear):
    """Vorticity some time later, pseudo-spectral, seen on every second point."""

    def forward(self, x):
        k = torch.fft.fftfreq(SIDE, 1 / SIDE, dtype=x.dtype)
        ky, kx = k[:, None], k[None]
        square = (kx**2 + ky**2).clamp_min(1)
        w = torch.fft.fft2(x)
        for _ in range(10):
            flow = w / square
            u, v = (torch.fft.ifft2(d * flow).real for d in (1j * ky, -1j * kx))
            slopes = [torch.fft.ifft2(1j * d * w).real for d in (kx, ky)]
            w = (w - 0.02 * torch.fft.fft2(u * slopes[0] + v * slopes[1])) / (1 + 0.02 * 1e-2 * square)
        return torch.fft.ifft2(w).real[..., ::2, ::2]


class FullWaveform(Nonlinear):
    """What receivers at the surface hear of a shot, by finite differences of the acoustic wave equation."""

    def forward(self, x):
        speed = (3 + x.squeeze(1)).clamp(1, 5) / 3
        before = now = torch.zeros_like(speed)
        heard = []
        for step in range(24):
            wide = torch.nn.functional.pad(now, (1, 1, 1, 1))
            bend = wide[:, 2:, 1:-1] + wide[:, :-2, 1:-1] + wide[:, 1:-1, 2:] + wide[:, 1:-1, :-2] - 4 * now
            shot = torch.zeros_like(now)
            shot[:, 1, SIDE // 2] = math.exp(-((step - 5) ** 2) / 6)
            before, now = now, 2 * now - before + 0.2 * speed**2 * bend + shot
            heard.append(now[:, 0])
        return torch.stack(heard, 1)


class Blackbox(NavierStokes):
    """The same from a program that gives no gradient, as InverseBench takes Navier-Stokes."""

    def forward(self, x):
        return super().forward(x.detach())


MAPS = torch.complex(normal(3, SIDE, SIDE), normal(3, SIDE, SIDE, seed=1))
LINEAR = {"multi-coil MRI": MultiCoil(MAPS, CartesianLines(2, 0.2)), "inverse scattering": Scattering()}
NONLINEAR = {"black hole": BlackHole(), "Navier-Stokes": NavierStokes(), "full waveform": FullWaveform()}


def problem(operator, noise_std=0.05):
    channels = 2 if isinstance(operator, MultiCoil) else 1
    means = 0.3 * normal(3, channels, SIDE, SIDE, seed=2)
    variances = torch.full((3,), 0.05, dtype=torch.float64)
    prior = GaussianMixture(means, variances, path=OTPath(), parameterization=Velocity())
    clean = prior.sample(1, torch.Generator().manual_seed(0))
    y = operator(clean)
    n = (
        torch.complex(normal(*y.shape, seed=4), normal(*y.shape, seed=5)) / 2**0.5
        if y.is_complex()
        else normal(*y.shape, seed=4)
    )
    return prior, y + noise_std * n, normal(*clean.shape, seed=6)


@pytest.mark.parametrize("sampler", SAMPLERS)
@pytest.mark.parametrize("name", LINEAR)
def test_linear_ones_run_under_all_samplers_that_need_no_decomposition(name, sampler):
    operator = LINEAR[name]
    prior, y, noise = problem(operator)
    chosen = getattr(cclight, sampler)(**SAMPLERS[sampler])
    if sampler in ("DDNM", "DDRM"):
        with pytest.raises(TypeError, match=f"{sampler} .*needs a SpectralOperator"):
            chosen.sample(prior, operator, y, noise, noise_std=0.05)
        return
    restored = chosen.sample(prior, operator, y, noise, noise_std=0.05).image
    assert restored.isfinite().all()


@pytest.mark.parametrize("name", LINEAR)
def test_linear_ones_are_restored(name):
    operator = LINEAR[name]
    prior, y, noise = problem(operator)
    clean, other = (prior.sample(1, torch.Generator().manual_seed(seed)) for seed in (0, 9))
    sampler = cclight.Conjugate(30, 2.0, t_start=0.1, schedule="inverse_variance")
    restored = sampler.sample(prior, operator, y, noise, noise_std=0.05).image
    assert (operator(restored) - y).norm() < 1.2 * (operator(clean) - y).norm()
    assert (restored - clean).norm() < 0.25 * (other - clean).norm()


@pytest.mark.parametrize("name", NONLINEAR)
def test_nonlinear_ones_run_by_their_gradient(name):
    operator = NONLINEAR[name]
    prior, y, noise = problem(operator)
    for sampler in (cclight.DPS(steps=100, zeta=0.3), cclight.REDDiff(steps=100, lr=0.05)):
        restored = sampler.sample(prior, operator, y, noise, noise_std=0.05).image
        assert restored.isfinite().all()
        own, other = (operator(x) - y for x in (restored, prior.sample(1, torch.Generator().manual_seed(9))))
        assert own.norm() < other.norm(), type(sampler).__name__
    for sampler in ("ConjugateMoments", "PnPFlow", "DDRM"):
        with pytest.raises(TypeError, match=f"{sampler} needs a"):
            getattr(cclight, sampler)(**FAST).sample(prior, operator, y, noise)


def test_a_black_box_without_a_gradient_is_refused_by_those_that_need_one():
    prior, y, noise = problem(Blackbox())
    for sampler in (cclight.DPS(**FAST), cclight.REDDiff(**FAST)):
        with pytest.raises((TypeError, ValueError), match="gradient"):
            sampler.sample(prior, Blackbox(), y, noise)
