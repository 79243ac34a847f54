"""What does a sampler's step cost beyond its network call?

python benchmarks/overhead.py --quick       # 64×64 alone
python benchmarks/overhead.py

A U-Net of 4 million parameters with random weights, super-resolution ×4, one thread. The ratio is the median, over interleaved
repeats, of (one sampler step) / (one evaluation and vector-Jacobian product of the same network), in seconds of the process.
azula's samplers stand beside ours with the same network, operator and pseudoinverse; they come with the extra `bench` and are
left out where absent.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor, nn

from cclight import AveragePooling, Conjugate, OTPath, PiGDM, Prior, Sampler, Velocity
from cclight.priors.small import SmallUNet
from cclight.samplers.moments import ConjugateMoments

STEPS = 3


class Network(Prior):
    """The network as a prior on the OT path."""

    def __init__(self) -> None:
        super().__init__(OTPath(), Velocity())
        # Not trained: what a call costs does not depend on the weights.
        self.network: nn.Module = SmallUNet((64, 128, 192), (2, 2, 3)).requires_grad_(False)
        self.stride = self.network.stride

    def forward(self, x_t: Tensor, t: Tensor) -> Tensor:
        return self.network(x_t, t)


def baseline(prior: Network, x: Tensor) -> None:
    """One evaluation and one vector-Jacobian product."""
    x = x.detach().requires_grad_()
    output = prior(x, torch.full((x.shape[0],), 0.5))
    torch.autograd.grad(output, x, output.detach())


def peers(prior: Network, operator: AveragePooling, y: Tensor, noise: Tensor) -> dict[str, Callable[[], Tensor]]:
    """Azula's samplers with their own code, each taking STEPS steps; empty where it is not installed."""
    try:
        from azula.denoise import Denoiser, DiracPosterior
        from azula.guidance.dps import DPSSampler
        from azula.guidance.mmps import MMPSDenoiser
        from azula.guidance.pgdm import PGDMSampler
        from azula.noise import Schedule
        from azula.sample import DDIMSampler
    except ImportError:
        print("azula is not installed and left out: pip install 'cclight[bench]'.")
        return {}

    class Path(Schedule):
        def __call__(self, t: Tensor) -> tuple[Tensor, Tensor]:
            return 1 - t, t  # azula's time ends at 0

    class Wrapped(Denoiser):
        def __init__(self) -> None:
            super().__init__()
            self.prior, self.schedule = prior, Path()

        def forward(self, x_t: Tensor, t: Tensor, **_) -> DiracPosterior:
            return DiracPosterior(mean=self.prior.denoise(x_t, 1 - t.expand(len(x_t))))

    grid = {"start": 0.4, "stop": 0.01, "steps": STEPS, "silent": True}
    mmps = MMPSDenoiser(Wrapped(), y, operator, lambda v: 1e-6 * v, iterations=3)
    samplers = {
        "azula PGDM": PGDMSampler(Wrapped(), y, operator, operator.pinv, **grid),
        "azula DPS": DPSSampler(Wrapped(), y, operator, **grid),
        "azula MMPS, 3 solves": DDIMSampler(mmps, **grid),
    }
    return {name: partial(sampler, noise) for name, sampler in samplers.items()}


def seconds(work) -> float:
    """The process's time for a piece of work."""
    began = time.process_time()
    work()
    return time.process_time() - began


def ratios(prior: Network, size: int, batch: int, repeats: int) -> dict[str, float]:
    """The cost of a step of each sampler over that of `baseline`."""
    operator, generator = AveragePooling(4), torch.Generator().manual_seed(0)
    noise = torch.randn(batch, 3, size, size, generator=generator)
    y = operator(noise)
    samplers: list[Sampler] = [Conjugate(STEPS), Conjugate(STEPS, order=2), PiGDM(STEPS), ConjugateMoments(STEPS)]
    names = ["Conjugate", "Conjugate order 2", "PiGDM", "ConjugateMoments"]
    works: dict[str, Callable[[], object]] = {
        name: partial(sampler.sample, prior, operator, y, noise) for name, sampler in zip(names, samplers, strict=True)
    }
    works |= peers(prior, operator, y, noise)
    measured: dict[str, list[float]] = {name: [] for name in works}
    for repeat in range(repeats + 1):
        for name, work in works.items():
            before = sum(seconds(lambda: baseline(prior, noise)) for _ in range(STEPS))
            step = seconds(work)
            if repeat:  # the first makes the tables
                measured[name].append(step / before)
    return {name: statistics.median(values) for name, values in measured.items()}


def main(arguments: list[str] | None = None) -> None:
    """The command."""
    parser = argparse.ArgumentParser(description="The cost of a sampler's step over that of its network call.")
    parser.add_argument("--quick", action="store_true", help="64×64 alone")
    parser.add_argument("--repeats", type=int, default=15)
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    prior = Network()
    print(f"{sum(p.numel() for p in prior.parameters()) / 1e6:.1f} million parameters")
    for size in (64,) if options.quick else (64, 256):
        for batch in (1, 4):
            for name, ratio in ratios(prior, size, batch, options.repeats).items():
                print(f"{size}×{size}, batch {batch}: {name:20} {ratio:.3f}", flush=True)


if __name__ == "__main__":
    main()
