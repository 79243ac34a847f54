"""What the baselines' tests share: the golden runs on the discrete DDPM schedule, and a small mixture with its posterior."""

from __future__ import annotations

import json
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from cclight.operators.base import LinearOperator, SpectralOperator
from cclight.paths.gaussian import GaussianPath, OTPath, VPPath
from cclight.paths.parameterization import Epsilon, Velocity
from cclight.priors.mixture import GaussianMixture, MixturePosterior
from cclight.samplers.base import Sampler
from tests.samplers.golden import SHAPE, load, mask, noise_bank


class TablePath(GaussianPath):
    """α and σ of a list of ᾱ, from noise to data: the time n is the nth state, as in a discrete schedule."""

    t_noise = 0.0

    def __init__(self, alphas_bar: Tensor) -> None:
        self.alphas_bar = alphas_bar.double()
        self.t_data = float(len(alphas_bar) - 1)

    def alpha(self, t):
        return self.alphas_bar[t.round().long()].sqrt()

    def sigma(self, t):
        return (1 - self.alphas_bar[t.round().long()]).sqrt()

    def alpha_dot(self, t):
        raise NotImplementedError

    def sigma_dot(self, t):
        raise NotImplementedError

    def time_at_ratio(self, ratio):
        raise NotImplementedError


class Dense(SpectralOperator):
    """H = S Vᵀ from singular values and a basis: U is left out, y is measured in its basis."""

    def __init__(self, v: Tensor, s: Tensor) -> None:
        super().__init__()
        self.v, self.s = v, s

    def forward(self, x):
        return x.flatten(1) @ self.v * self.s

    def pinv(self, y):
        return (torch.where(self.s > 0, y / self.s, 0) @ self.v.T).view(-1, *SHAPE)

    def adjoint(self, y):
        return (y * self.s @ self.v.T).view(-1, *SHAPE)

    def spectral(self, x):
        return (x.flatten(1) @ self.v).view(-1, *SHAPE)

    def from_spectral(self, z):
        return (z.flatten(1) @ self.v.T).view(-1, *SHAPE)

    def singular_values(self, image_shape):
        return self.s.view(*SHAPE)


def golden_operator(golden: Path, degradation: str) -> tuple[Dense, Tensor]:
    """The golden operator with its very basis (draws of noise are in it), and Uᵀ, (m, r), for its measurements."""
    if degradation == "in2_20ff1":
        kept = mask(golden, "op__in2_20ff1__16.npz").flatten().double()
        return Dense(torch.eye(768, dtype=torch.float64), kept), torch.eye(768, dtype=torch.float64)
    data = load(golden / "operators" / f"op__{degradation}__16.npz")
    u, s, v = (torch.from_numpy(data[f"{name}_small"]).double() for name in ("U", "singulars", "V"))
    rank, perm = len(s), torch.from_numpy(data["perm"]).long()
    # The measured directions first, in the order `perm` lists them; then the rest; the channel runs fastest.
    rest = torch.tensor([i for i in range(256) if i not in set(perm.tolist())], dtype=torch.long)
    order = torch.cat([perm, rest])
    channels = torch.eye(3, dtype=torch.float64)
    basis = torch.einsum("ia,jb,cd->cijabd", v, v, channels).reshape(768, 256, 3)[:, order].reshape(768, 768)
    left = torch.einsum("ia,jb,cd->cijabd", u, u, channels).reshape(3 * rank**2, rank, rank, 3)
    values = torch.zeros(16, 16, dtype=torch.float64)
    values[:rank, :rank] = s[:, None] * s
    index = perm if rank == 16 else torch.arange(rank * rank)
    left = left.reshape(3 * rank**2, rank**2, 3)[:, index].reshape(3 * rank**2, -1)
    return Dense(basis, values.flatten()[order].repeat_interleave(3)), left


class GoldenRun(NamedTuple):
    settings: dict
    data: dict
    problem_arguments: dict
    noise_calls: list
    bank: Tensor


def golden_run(golden: Path, name: str) -> GoldenRun:
    """A golden run of DDRM or DPS; the prior lives on a `TablePath` of the run's own states."""
    data = load(golden / "samplers" / name)
    meta = json.loads(str(data["meta"]))
    mixture = load(golden / "samplers" / "gmm.npz")
    alphas_bar = torch.from_numpy(data["alphas_t"][::-1].copy())
    path = TablePath(torch.cat([alphas_bar, torch.ones(1)]))
    mu, s, pi = (torch.from_numpy(mixture[key]) for key in ("mu", "s", "pi"))
    operator, left = golden_operator(golden, meta["deg"])
    y = torch.from_numpy(load(golden / "samplers" / "problem.npz")[meta["y"].split(":")[1]]).double()
    measured = y @ left
    y = torch.cat([measured, y.new_zeros(len(y), 768 - measured.shape[1])], dim=1)
    bank = noise_bank().double()
    return GoldenRun(
        settings=meta["settings"],
        data=data,
        problem_arguments={
            "prior": GaussianMixture(mu, s**2, pi, path, Epsilon(), image_shape=SHAPE),
            "operator": operator,
            "y": y,
            "noise": bank[0, : len(y)].view(-1, *SHAPE),
        },
        noise_calls=meta["noise_calls"],
        bank=bank,
    )


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def small_mixture(path: GaussianPath) -> GaussianMixture:
    """Three broad, correlated components on (1, 4, 4)."""
    factors = 0.4 * normal(3, 16, 4)
    covariances = factors @ factors.mT + 0.3 * torch.eye(16, dtype=torch.float64)
    return GaussianMixture(0.7 * normal(3, 16, seed=1), covariances, None, path, NETWORKS[path], (1, 4, 4))


def one_gaussian(path: GaussianPath, variance: float) -> GaussianMixture:
    """One isotropic component on (1, 4, 4)."""
    return GaussianMixture(0.5 * normal(1, 16, seed=2), torch.tensor([variance]), None, path, NETWORKS[path], (1, 4, 4))


NETWORKS: dict[GaussianPath, Epsilon | Velocity] = {VPPath(): Epsilon(), OTPath(): Velocity()}
PATHS = list(NETWORKS)


class Cell(NamedTuple):
    """One measurement, restored many times: the restorations ought to be samples of its posterior."""

    prior: GaussianMixture
    operator: LinearOperator
    y: Tensor
    noise_std: float
    posterior: MixturePosterior

    def restore(self, sampler: Sampler, n: int = 256) -> Tensor:
        return sampler.sample(
            self.prior,
            self.operator,
            self.y.expand(n, *self.y.shape[1:]),
            normal(n, *self.prior.image_shape, seed=6),
            noise_std=self.noise_std,
            generators=[torch.Generator().manual_seed(i) for i in range(n)],
        ).image


def cell(prior: GaussianMixture, operator: LinearOperator, noise_std: float) -> Cell:
    y = operator(prior.sample(1, torch.Generator().manual_seed(3)))
    y = y + noise_std * normal(*y.shape, seed=9)
    return Cell(prior, operator, y, noise_std, prior.posterior(operator, y, noise_std))


def sliced_wasserstein(a: Tensor, b: Tensor) -> float:
    """Mean 1-D transport distance over 64 random directions, from equally many samples."""
    directions = torch.nn.functional.normalize(normal(a[0].numel(), 64, seed=5), dim=0)
    projected = [(x.flatten(1) @ directions).sort(dim=0).values for x in (a, b)]
    return float((projected[0] - projected[1]).abs().mean())


def distances(problem: Cell, samplers: list[Sampler]) -> list[float]:
    """How far each sampler's restorations are from the posterior; the prior's own samples are at 1."""
    reference = problem.posterior.sample(256, torch.Generator().manual_seed(4))[0]
    scale = sliced_wasserstein(problem.prior.sample(256, torch.Generator().manual_seed(1)), reference)
    return [sliced_wasserstein(problem.restore(sampler), reference) / scale for sampler in samplers]


def mean_errors(problem: Cell, samplers: list[Sampler]) -> list[float]:
    """How far the mean of each sampler's restorations is from the posterior mean; the prior's mean is at 1."""
    mean, prior = problem.posterior.mean[0], problem.prior
    scale = (torch.einsum("k,kd->d", prior.log_weights.exp(), prior.means) - mean.flatten()).norm()
    return [float((problem.restore(sampler, 64).mean(0) - mean).norm() / scale) for sampler in samplers]


def assert_images_do_not_meet(sampler: Sampler, operator: LinearOperator, noise_std: float = 0.0) -> None:
    """Alone or in a batch, an image is restored to the same numbers."""
    prior = small_mixture(VPPath())
    y = operator(prior.sample(3, torch.Generator().manual_seed(3)))
    noise = normal(3, 1, 4, 4, seed=6)
    together = sampler.sample(prior, operator, y, noise, noise_std=noise_std, generators=seeded(0, 1, 2)).image
    for i in range(3):
        part = slice(i, i + 1)
        alone = sampler.sample(prior, operator, y[part], noise[part], noise_std=noise_std, generators=seeded(i)).image
        torch.testing.assert_close(alone, together[part], rtol=1e-9, atol=1e-9)


def seeded(*seeds: int) -> list[torch.Generator]:
    return [torch.Generator().manual_seed(seed) for seed in seeds]
