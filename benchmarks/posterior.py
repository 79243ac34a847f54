"""Who is closest to the truth? Samplers against the exact posterior of Gaussian mixtures.

python benchmarks/posterior.py --quick            # 8×8 images, two tasks, a few minutes on one core
python benchmarks/posterior.py --output DIR       # all sizes, tasks and budgets

Every sampler restores the same measurements from the same initial noise. A budget of NFE n is n network evaluations with one
vector-Jacobian product each, 2.1 n units (an evaluation 1, a product 1.1): who spends less on a step takes more steps. Each
sampler tries eight settings in each cell and keeps the best. `excess` is the sliced Wasserstein-2 distance over the floor, the
distance of exact samples to exact samples. Needs azula (pip install azula) for the peers; --ours leaves them out.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from torch import Tensor

from cclight import AveragePooling, Conjugate, GaussianBlur, GaussianMixture, Inpainting, LinearOperator, PiGDM, Sampler
from cclight.operators.masks import Box
from cclight.samplers.heun import ConjugateHeun
from cclight.samplers.moments import ConjugateMoments

VJP = 1.1
EVALUATION = 1 + VJP
Run = Callable[["Cell"], Tensor]


@dataclass(frozen=True)
class Row:
    """One sampler in one cell: its best setting and how far it is from the posterior.

    Attributes:
        cell: size, task and noise.
        sampler: the sampler.
        setting: its best setting.
        nfe: the budget.
        distance: sliced Wasserstein-2 distance to exact samples.
        floor: the same of exact samples.
        mean_error: ||mean - posterior mean|| / ||posterior mean||.
        std_error: ||std - posterior std|| / ||posterior std||.
        consistency: root mean square of y - H x.
    """

    cell: str
    sampler: str
    setting: str
    nfe: int
    distance: float
    floor: float
    mean_error: float
    std_error: float
    consistency: float

    @property
    def excess(self) -> float:
        """The distance over the floor."""
        return self.distance - self.floor


def mixture(side: int, components: int = 10, rank: int = 16) -> GaussianMixture:
    """K smooth means and full covariances, low rank plus diagonal, on 3 × side × side."""
    generator = torch.Generator().manual_seed(0)

    def smooth(count: int) -> Tensor:
        coarse = torch.randn(count, 3, 4, 4, generator=generator, dtype=torch.float64)
        return torch.nn.functional.interpolate(coarse, size=(side, side), mode="bilinear").flatten(1)

    means = 0.2 * smooth(components)
    factors = torch.stack([0.4 / rank**0.5 * smooth(rank).T for _ in range(components)])
    noise = 0.1**2 * torch.eye(means.shape[1], dtype=torch.float64)
    return GaussianMixture(means, factors @ factors.mT + noise, image_shape=(3, side, side))


TASKS: dict[str, Callable[[int], LinearOperator]] = {
    "pool4": lambda side: AveragePooling(4),
    "box": lambda side: Inpainting(Box(side // 2)),
    "blur": lambda side: GaussianBlur(1.0, 5),
}


class Cell:
    """A prior, a task and a noise level, with measurements and exact posterior samples."""

    def __init__(self, side: int, task: str, noise_std: float, measurements: int, samples: int) -> None:
        generator = torch.Generator().manual_seed(1)
        self.name = f"{side}x{side} {task} {noise_std}"
        self.prior, self.operator, self.noise_std = mixture(side), TASKS[task](side), noise_std
        self.shape = (measurements, samples)
        y = self.operator(self.prior.sample(measurements, generator))
        y = y + noise_std * torch.randn(y.shape, generator=generator, dtype=y.dtype)
        self.posterior = self.prior.posterior(self.operator, y, noise_std)
        self.reference = self.posterior.sample(samples, generator).flatten(2)
        self.floor = sliced_wasserstein(self.posterior.sample(samples, generator).flatten(2), self.reference)
        self.y = y.repeat_interleave(samples, dim=0)
        self.noise = torch.randn(measurements * samples, 3, side, side, generator=generator, dtype=torch.float64)

    def row(self, sampler: str, setting: str, nfe: int, image: Tensor) -> Row:
        """How far the restorations are from the posterior."""
        x = image.view(*self.shape, -1)
        mean, variance = self.posterior.mean.flatten(1), torch.diagonal(self.posterior.covariance, dim1=1, dim2=2)
        std = variance.clamp_min(0).sqrt()
        return Row(
            self.name,
            sampler,
            setting,
            nfe,
            sliced_wasserstein(x, self.reference),
            self.floor,
            float((x.mean(1) - mean).norm() / mean.norm()),
            float((x.std(1) - std).norm() / std.norm()),
            float((self.operator(image) - self.y).square().mean().sqrt()),
        )


def sliced_wasserstein(a: Tensor, b: Tensor, directions: int = 128) -> float:
    """Sliced Wasserstein-2 distance, the mean over measurements; a and b are (measurements, samples, d)."""
    generator = torch.Generator().manual_seed(7)
    axes = torch.randn(a.shape[-1], directions, generator=generator, dtype=a.dtype)
    axes = torch.nn.functional.normalize(axes, dim=0)
    gaps = [(x @ axes).sort(dim=1).values for x in (a, b)]
    return float((gaps[0] - gaps[1]).square().mean(dim=(1, 2)).sqrt().mean())


def ours(nfe: int) -> dict[str, dict[str, Run]]:
    """Our samplers, each with its settings, within the budget."""
    half = round(nfe * EVALUATION)  # steps without a product
    grids: dict[str, list[Sampler]] = {
        "Conjugate": [Conjugate(nfe, w, t_start=u) for w in (2.0, 6.0, 15.0, 40.0) for u in (0.1, 0.4)],
        "Conjugate order 2": [Conjugate(nfe, w, t_start=u, order=2) for w in (2.0, 6.0, 15.0, 40.0) for u in (0.1, 0.4)],
        "Conjugate no VJP": [
            Conjugate(half, w, t_start=u, jacobian="none") for w in (2.0, 6.0, 15.0, 40.0) for u in (0.1, 0.4)
        ],
        "ConjugateHeun": [ConjugateHeun((nfe + 1) // 2, w, t_start=u) for w in (2.0, 6.0, 15.0, 40.0) for u in (0.1, 0.4)],
        "PiGDM": [PiGDM(nfe, w, t_start=u) for w in (0.5, 1.0, 2.0, 4.0) for u in (0.1, 0.4)],
        "ConjugateMoments": [
            ConjugateMoments(nfe, t_start=u, timesteps=spacing)
            for u in (0.05, 0.1, 0.2, 0.4)
            for spacing in ("logsnr", "karras")
        ],
    }
    return {name: {_describe(sampler): _runner(sampler) for sampler in grid} for name, grid in grids.items()}


def _runner(sampler: Sampler) -> Run:
    return lambda cell: sampler.sample(cell.prior, cell.operator, cell.y, cell.noise, noise_std=cell.noise_std).image


def _describe(sampler: Sampler) -> str:
    shown = ("steps", "guidance", "t_start", "timesteps")
    return " ".join(f"{key}={value}" for key, value in vars(sampler).items() if key in shown)


def peers(nfe: int) -> dict[str, dict[str, Run]]:
    """The samplers of azula, with their own code, within the budget."""
    from azula.denoise import Denoiser, DiracPosterior
    from azula.guidance.diffpir import DiffPIRDenoiser
    from azula.guidance.dps import DPSSampler
    from azula.guidance.mmps import MMPSDenoiser
    from azula.guidance.pgdm import PGDMSampler
    from azula.noise import Schedule
    from azula.sample import DDIMSampler, xEABSampler

    class Path(Schedule):
        def __init__(self, path):
            super().__init__()
            self.path = path

        def __call__(self, t: Tensor):
            return self.path.alpha(t), self.path.sigma(t)

    class Wrapped(Denoiser):
        def __init__(self, prior):
            super().__init__()
            self.prior, self.schedule = prior, Path(prior.path)

        def forward(self, x_t: Tensor, t: Tensor, **_):
            return DiracPosterior(mean=self.prior.denoise(x_t, t.expand(len(x_t))))

    def started(cell: Cell, start: float) -> Tensor:
        t = torch.tensor(start, dtype=torch.float64)
        return cell.prior.path.alpha(t) * cell.operator.pinv(cell.y) + cell.prior.path.sigma(t) * cell.noise

    def grid(steps: float, start: float) -> dict:
        return {"start": start, "stop": 0.001, "steps": max(1, round(steps)), "silent": True, "dtype": torch.float64}

    def mmps(kind, iterations: int, start: float) -> Run:
        steps = nfe * EVALUATION / (1 + VJP * (1 + iterations))

        def run(cell: Cell) -> Tensor:
            variance = max(cell.noise_std, 1e-3) ** 2
            denoiser = MMPSDenoiser(Wrapped(cell.prior), cell.y, cell.operator, lambda v: variance * v, iterations=iterations)
            return kind(denoiser, **grid(steps, start))(started(cell, start))

        return run

    def diffpir(strength: float, start: float) -> Run:
        def run(cell: Cell) -> Tensor:
            variance = max(cell.noise_std, 1e-3) ** 2
            denoiser = DiffPIRDenoiser(Wrapped(cell.prior), cell.y, cell.operator, variance, strength, iterations=3)
            return DDIMSampler(denoiser, **grid(nfe * EVALUATION, start))(started(cell, start))

        return run

    def pgdm(eta: float, start: float) -> Run:
        def run(cell: Cell) -> Tensor:
            torch.manual_seed(0)  # azula draws from the global generator
            sampler = PGDMSampler(Wrapped(cell.prior), cell.y, cell.operator, cell.operator.pinv, eta=eta, **grid(nfe, start))
            return sampler(started(cell, start))

        return run

    def dps(zeta: float, start: float) -> Run:
        def run(cell: Cell) -> Tensor:
            torch.manual_seed(0)
            return DPSSampler(Wrapped(cell.prior), cell.y, cell.operator, zeta, **grid(nfe, start))(started(cell, start))

        return run

    starts = (1.0, 0.6)
    return {
        "azula MMPS": {
            f"{kind.__name__} iterations={k} start={u}": mmps(kind, k, u)
            for kind in (DDIMSampler, xEABSampler)
            for k in (1, 2)
            for u in starts
        },
        "azula DiffPIR": {f"lmbda={z} start={u}": diffpir(z, u) for z in (0.1, 1.0, 10.0, 100.0) for u in starts},
        "azula PGDM": {f"eta={z} start={u}": pgdm(z, u) for z in (0.0, 0.3, 0.6, 1.0) for u in starts},
        "azula DPS": {f"zeta={z} start={u}": dps(z, u) for z in (0.3, 1.0, 3.0, 10.0) for u in starts},
    }


def compare(cell: Cell, nfe: int, with_peers: bool) -> list[Row]:
    """Every sampler at its best in a cell."""
    rows = []
    for sampler, settings in (ours(nfe) | (peers(nfe) if with_peers else {})).items():
        tried = [cell.row(sampler, setting, nfe, run(cell)) for setting, run in settings.items()]
        finite = [row for row in tried if row.distance < float("inf")]  # not a number either
        rows += sorted(finite, key=lambda row: row.distance)[:1]
    return rows


def main(arguments: list[str] | None = None) -> None:
    """The command."""
    parser = argparse.ArgumentParser(description="Samplers against the exact posterior of Gaussian mixtures.")
    parser.add_argument("--quick", action="store_true", help="8×8 images, one task, NFE 5 and 10, few samples")
    parser.add_argument("--ours", action="store_true", help="leave the peers out")
    parser.add_argument("--output", type=Path, help="a folder for posterior.json")
    options = parser.parse_args(arguments)
    sides, tasks, levels, budgets, counts = (8, 16), tuple(TASKS), (0.0, 0.05), (5, 10, 20, 50, 100), (20, 200)
    if options.quick:
        sides, tasks, budgets, counts = (8,), ("pool4",), (5, 10), (2, 100)
    rows: list[Row] = []
    began = time.perf_counter()
    for side in sides:
        for task in tasks:
            for level in levels:
                cell = Cell(side, task, level, *counts)
                for nfe in budgets:
                    for row in compare(cell, nfe, not options.ours):
                        rows.append(row)
                        print(
                            f"{row.cell:18} nfe {row.nfe:3} {row.sampler:18} w2 {row.distance:.4f} excess {row.excess:.4f} "
                            f"mean {row.mean_error:.3f} std {row.std_error:.3f} Hx-y {row.consistency:.4f}  {row.setting}",
                            flush=True,
                        )
    print(f"{time.perf_counter() - began:.0f} s")
    if options.output:
        options.output.mkdir(parents=True, exist_ok=True)
        part = options.output / "posterior.json.part"
        part.write_text(json.dumps([asdict(row) for row in rows], indent=1))
        part.replace(options.output / "posterior.json")


if __name__ == "__main__":
    main()
