"""Who is closest to the truth? Samplers against the exact posterior of Gaussian mixtures.

python benchmarks/posterior.py --quick                            # 8×8 images, pool4, NFE 5 and 10: 90 s on a core
python benchmarks/posterior.py --output benchmarks                # 8×8 images, three tasks, two noise levels: hours on a core
python benchmarks/posterior.py --output benchmarks --side 16      # 16×16 images: three times as long

Every sampler restores the same measurements from the same initial noise. A budget of NFE n is n network evaluations with one
vector-Jacobian product each, 2.1 n units (an evaluation 1, a product 1.1): who spends less on a step takes more steps. Each
sampler tries eight settings in each cell and budget on five other measurements, and the one that comes closest there is
measured; the table compares the best of ours and of the peers there, too. `excess` is the sliced Wasserstein-2 distance over
the floor, that of exact samples. NFE 1000 is for DPS alone.

--output writes posterior_8.json after every sampler, and the same command goes on where it stopped; the figure
(figures/posterior_8.png) and the table of ratios come from all that is in it. Needs azula and deepinv for the peers; --ours
leaves them out.
"""

from __future__ import annotations

import argparse
import math
import time
from collections.abc import Callable, Container, Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from rows import read, write
from torch import Tensor

from cclight import (
    AveragePooling,
    Epsilon,
    GaussianBlur,
    GaussianMixture,
    Inpainting,
    LinearOperator,
    OTPath,
    Velocity,
    VPPath,
)
from cclight.operators.masks import Box

ONLY_DPS = 1000
PEERS = ("azula", "deepinv")
TUNING = (5, 100)  # measurements and samples on which settings are chosen
Run = Callable[["Cell"], Tensor]


@dataclass(frozen=True)
class Row:
    """One sampler in one cell: the setting chosen for it and how far it is from the posterior.

    Attributes:
        cell: size, task and noise.
        sampler: the sampler.
        setting: the best of eight on the measurements for tuning.
        nfe: the budget.
        tuned: the distance on the measurements for tuning, by which settings and, in headlines, samplers are chosen.
        distance: sliced Wasserstein-2 distance to exact samples.
        floor: the same of exact samples.
        mean_error: ||mean - posterior mean|| / ||posterior mean||.
        std_error: ||std - posterior std|| / ||posterior std||.
        mmd: squared maximum mean discrepancy, a Gaussian kernel of the exact samples' median distance.
        weight_error: total variation between the mixture's responsibilities for the samples and the posterior weights.
        consistency: root mean square of y - H x.
    """

    cell: str
    sampler: str
    setting: str
    nfe: int
    tuned: float
    distance: float
    floor: float
    mean_error: float
    std_error: float
    mmd: float
    weight_error: float
    consistency: float

    @property
    def excess(self) -> float:
        """The distance over the floor."""
        return self.distance - self.floor


def mixture(side: int, components: int = 10, rank: int = 16, seed: int = 0, flow: bool = False) -> GaussianMixture:
    """K smooth means and full covariances, low rank plus diagonal, on 3 × side × side: a diffusion model or a flow."""
    generator = torch.Generator().manual_seed(seed)

    def smooth(count: int) -> Tensor:
        coarse = torch.randn(count, 3, 4, 4, generator=generator, dtype=torch.float64)
        return torch.nn.functional.interpolate(coarse, size=(side, side), mode="bilinear").flatten(1)

    means = 0.2 * smooth(components)
    factors = torch.stack([0.4 / rank**0.5 * smooth(rank).T for _ in range(components)])
    covariances = factors @ factors.mT + 0.1**2 * torch.eye(means.shape[1], dtype=torch.float64)
    kind = (OTPath(), Velocity()) if flow else (VPPath(), Epsilon())
    return GaussianMixture(means, covariances, None, *kind, image_shape=(3, side, side))


TASKS: dict[str, Callable[[int], LinearOperator]] = {
    "pool4": lambda side: AveragePooling(4),
    "box": lambda side: Inpainting(Box(side // 2)),
    "blur": lambda side: GaussianBlur(1.0, 5),
}


class Cell:
    """A prior, a task and a noise level, with measurements and exact posterior samples. Another draw has other measurements."""

    def __init__(
        self, side: int, task: str, noise_std: float, measurements: int, samples: int, seed: int = 0, draw: int = 1
    ) -> None:
        generator = torch.Generator().manual_seed(seed + draw)
        self.name = f"{side}x{side} {task} {noise_std}"
        self.prior, self.operator, self.noise_std = mixture(side, seed=seed), TASKS[task](side), noise_std
        self.shape = (measurements, samples)
        y = self.operator(self.prior.sample(measurements, generator))
        y = y + noise_std * torch.randn(y.shape, generator=generator, dtype=y.dtype)
        self.posterior = self.prior.posterior(self.operator, y, noise_std)
        self.reference = self.posterior.sample(samples, generator).flatten(2)
        self.floor = sliced_wasserstein(self.posterior.sample(samples, generator).flatten(2), self.reference)
        self.y = y.repeat_interleave(samples, dim=0).float()
        self.noise = torch.randn(measurements * samples, 3, side, side, generator=generator, dtype=torch.float64).float()
        # Measured by the one, restored with the others.
        self.truth, self.prior, self.flow = (
            self.prior,
            mixture(side, seed=seed).float(),
            mixture(side, seed=seed, flow=True).float(),
        )

    def distance(self, image: Tensor) -> float:
        """The sliced Wasserstein-2 distance of the restorations to exact samples."""
        return sliced_wasserstein(image.double().view(*self.shape, -1), self.reference)

    def row(self, sampler: str, setting: str, nfe: int, image: Tensor, tuned: float) -> Row:
        """How far the restorations are from the posterior; `tuned` is their distance on the measurements for tuning."""
        image = image.double()
        x = image.view(*self.shape, -1)
        mean, variance = self.posterior.mean.flatten(1), torch.diagonal(self.posterior.covariance, dim1=1, dim2=2)
        std = variance.clamp_min(0).sqrt()
        return Row(
            self.name,
            sampler,
            setting,
            nfe,
            tuned,
            self.distance(image),
            self.floor,
            float((x.mean(1) - mean).norm() / mean.norm()),
            float((x.std(1) - std).norm() / std.norm()),
            discrepancy(x, self.reference),
            float((self.responsibilities(x).mean(1) - self.posterior.weights).abs().sum(1).mean() / 2),
            float((self.operator(image) - self.y.double()).square().mean().sqrt()),
        )

    def responsibilities(self, x: Tensor) -> Tensor:
        """Which component of the prior each sample is of, (measurements, samples, K); x is (measurements, samples, d)."""
        prior = self.truth
        factor = torch.linalg.cholesky(prior.covariances())
        off = (x.flatten(0, 1)[:, None] - prior.means).permute(1, 2, 0)  # (K, d, n)
        exponent = torch.linalg.solve_triangular(factor, off, upper=False).square().sum(1).T
        log_det = torch.diagonal(factor, dim1=1, dim2=2).log().sum(1)
        return torch.softmax(prior.log_weights - log_det - exponent / 2, dim=1).view(*self.shape, -1)


def discrepancy(a: Tensor, b: Tensor) -> float:
    """Squared maximum mean discrepancy, the mean over measurements; a and b are (measurements, samples, d), b the exact one."""
    total = 0.0
    for x, y in zip(a, b, strict=True):
        within = torch.cdist(y, y)
        width = within[within > 0].median()
        kernel = [torch.exp(-(d**2) / (2 * width**2)) for d in (torch.cdist(x, x), within, torch.cdist(x, y))]
        total += float(kernel[0].mean() + kernel[1].mean() - 2 * kernel[2].mean())
    return total / len(a)


def sliced_wasserstein(a: Tensor, b: Tensor, directions: int = 128) -> float:
    """Sliced Wasserstein-2 distance, the mean over measurements; a and b are (measurements, samples, d)."""
    generator = torch.Generator().manual_seed(7)
    axes = torch.randn(a.shape[-1], directions, generator=generator, dtype=a.dtype)
    axes = torch.nn.functional.normalize(axes, dim=0)
    gaps = [(x @ axes).sort(dim=1).values for x in (a, b)]
    return float((gaps[0] - gaps[1]).square().mean(dim=(1, 2)).sqrt().mean())


def ours(nfe: int) -> dict[str, dict[str, Run]]:
    """Our samplers, each with its settings, within the budget."""
    import contestants

    found = contestants.ours(nfe)
    return {name: runs for name, runs in found.items() if nfe != ONLY_DPS or name == "DPS"}


def theirs(nfe: int) -> dict[str, dict[str, Run]]:
    """The peers' samplers, each with its settings, within the budget."""
    import peers

    found = peers.azula(nfe) | peers.deepinv(nfe)
    return {name: runs for name, runs in found.items() if nfe != ONLY_DPS or name.endswith("DPS")}


def compare(cell: Cell, tuning: Cell, nfe: int, with_peers: bool, known: Container[str] = ()) -> Iterator[Row]:
    """Every sampler but the known in a cell, at its best setting in `tuning`; one without a finite result is named."""
    for sampler, settings in (ours(nfe) | (theirs(nfe) if with_peers else {})).items():
        if sampler in known:
            continue
        told = f"{cell.name:18} nfe {nfe:4} {sampler:21}"
        distances = {setting: _attempt(run, tuning, f"{told} {setting}") for setting, run in settings.items()}
        chosen = min(distances, key=lambda setting: distances[setting])
        if not math.isfinite(distances[chosen]):
            print(f"{told} gives nothing finite", flush=True)
            continue
        row = cell.row(sampler, chosen, nfe, settings[chosen](cell), distances[chosen])
        print(
            f"{told} w2 {row.distance:.4f} excess {row.excess:.4f} "
            f"mean {row.mean_error:.3f} std {row.std_error:.3f} mmd {row.mmd:.4f} weights {row.weight_error:.3f} "
            f"Hx-y {row.consistency:.4f}  {row.setting}",
            flush=True,
        )
        if math.isfinite(row.distance):
            yield row


def _attempt(run: Run, cell: Cell, told: str) -> float:
    """The distance of a run, infinite where it fails or gives no number."""
    try:
        distance = cell.distance(run(cell))
    except RuntimeError as error:  # a peer's own, torch.linalg's included
        print(f"{told}: {error}", flush=True)
        return math.inf
    return distance if math.isfinite(distance) else math.inf


def ratios(rows: list[Row]) -> str:
    """The best of ours over the best peer, in excess, as a Markdown table: cells by budgets.

    Who is best is told by the measurements for tuning; those that are reported have no say in it.
    """
    cells, budgets = list(dict.fromkeys(row.cell for row in rows)), sorted({row.nfe for row in rows})
    lines = ["| cell | " + " | ".join(f"NFE {nfe}" for nfe in budgets) + " |", "|---" * (len(budgets) + 1) + "|"]
    for cell in cells:
        entries = []
        for nfe in budgets:
            here = [row for row in rows if (row.cell, row.nfe) == (cell, nfe)]
            peers = [row for row in here if row.sampler.startswith(PEERS)]
            own = [row for row in here if not row.sampler.startswith(PEERS)]
            if not peers or not own:
                entries.append("")
                continue
            best, peer = (min(group, key=lambda row: row.tuned) for group in (own, peers))
            ratio = f"{max(best.excess, 0) / peer.excess:.2f}" if peer.excess > 0 else "both at the floor"
            entries.append(f"{ratio} ({best.sampler} {best.excess:.4f}, {peer.sampler} {peer.excess:.4f})")
        lines.append(f"| {cell} | " + " | ".join(entries) + " |")
    return "\n".join(lines)


def plot(rows: list[Row], path: Path) -> None:
    """Distance over NFE for each sampler, one panel for each cell, the floor as a line."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    cells, samplers = list(dict.fromkeys(row.cell for row in rows)), sorted({row.sampler for row in rows})
    own, peers = ([name for name in samplers if name.startswith(PEERS) == theirs] for theirs in (False, True))
    colors = plt.get_cmap("tab20")(range(20))
    columns = min(3, len(cells))
    figure, axes = plt.subplots(
        -(-len(cells) // columns), columns, figsize=(5 * columns, 3.6 * -(-len(cells) // columns)), squeeze=False
    )
    for axis in axes.flat[len(cells) :]:
        axis.axis("off")
    for axis, cell in zip(axes.flat, cells, strict=False):
        here = [row for row in rows if row.cell == cell]
        for style, group in (("-", own), ("--", peers)):
            for color, sampler in zip(colors, group, strict=False):
                points = sorted((row.nfe, row.distance) for row in here if row.sampler == sampler)
                if points:
                    axis.plot(*zip(*points, strict=True), style, marker=".", color=color, label=sampler)
        axis.axhline(here[0].floor, color="black", lw=0.8, ls=":")
        axis.set(title=cell, xscale="log", yscale="log", xlabel="NFE", ylabel="sliced W2")
        budgets = sorted({row.nfe for row in here})
        axis.set_xticks(budgets, labels=[str(nfe) for nfe in budgets])
        axis.minorticks_off()
    handles = {label: line for axis in axes.flat for line, label in zip(*axis.get_legend_handles_labels(), strict=True)}
    figure.legend(handles.values(), handles.keys(), loc="outside lower center", ncols=5, fontsize="small")
    figure.set_layout_engine("constrained")
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=80)
    plt.close(figure)


def main(arguments: list[str] | None = None) -> None:
    """The command."""
    parser = argparse.ArgumentParser(description="Samplers against the exact posterior of Gaussian mixtures.")
    parser.add_argument("--quick", action="store_true", help="pool4, NFE 5 and 10, 2 measurements, 100 samples, chosen on 2")
    parser.add_argument("--ours", action="store_true", help="leave the peers out")
    parser.add_argument("--side", type=int, choices=(8, 16), default=8, help="of the images, in pixels")
    parser.add_argument(
        "--only", nargs="+", default=[], metavar="WORD", help="cells whose names (8x8 pool4 0.05) have all words"
    )
    parser.add_argument("--nfe", nargs="+", type=int, default=[5, 10, 20, 50, 100, ONLY_DPS], help="budgets")
    parser.add_argument("--measurements", type=int, default=20)
    parser.add_argument("--samples", type=int, default=200, help="for each measurement")
    parser.add_argument("--seed", type=int, default=0, help="of mixture and measurements; samplers were developed on 0")
    parser.add_argument("--output", type=Path, help="a folder for posterior_8.json and figures/posterior_8.png")
    options = parser.parse_args(arguments)
    side, words, budgets, counts = options.side, options.only, options.nfe, [options.measurements, options.samples]
    tuned_on = TUNING
    if options.seed and options.output:
        parser.error("--output keeps the results of seed 0 alone: leave it out with another --seed.")
    if options.quick:
        words, budgets, counts, tuned_on = ["pool4"], [5, 10], [2, 100], (2, 100)
    path = options.output / f"posterior_{side}.json" if options.output else None
    rows = read(Row, path, counts, parser) if path else []
    began = time.perf_counter()
    for task, level in [(task, level) for task in TASKS for level in (0.0, 0.05)]:
        name = f"{side}x{side} {task} {level}"
        if not set(words) <= set(name.split()):
            continue
        cell = Cell(side, task, level, *counts, seed=options.seed)
        tuning = Cell(side, task, level, *tuned_on, seed=options.seed, draw=2)
        for nfe in budgets:
            known = {row.sampler for row in rows if (row.cell, row.nfe) == (name, nfe)}
            for row in compare(cell, tuning, nfe, not options.ours, known):
                rows.append(row)
                if path:
                    write(path, counts, rows)
    print(f"{time.perf_counter() - began:.0f} s\n\n{ratios(rows)}")
    if path and rows:
        plot(rows, path.parent / "figures" / f"{path.stem}.png")


if __name__ == "__main__":
    main()
