"""What does a sampler's step cost beyond its network call, in time and in memory?

python benchmarks/overhead.py --quick       # 64×64 alone
python benchmarks/overhead.py               # 64×64 and 256×256, about half an hour; --ours without the peers a quarter
python benchmarks/overhead.py --memory      # peak memory at 256×256
python benchmarks/overhead.py --launches    # kernels launched and numbers read by the host, on a GPU where there is one

A U-Net of 4 million parameters with random weights, super-resolution ×4, one thread. Two estimates of (a sampler's step) / (one
evaluation and vector-Jacobian product of the network), in seconds of the process, the set-up of a call included:

| column | how                                                                                                  |
|--------|------------------------------------------------------------------------------------------------------|
| whole  | the median, over interleaved repeats, of the two times' ratio: the network's own noise is about 2 %    |
| own    | 1 + (the sampler on a network that returns x/2, less what that network costs) / (the network): sharp   |

`own` has warm caches, and sees no further products of the network: those of azula's MMPS are in `whole` alone.

The memory (Linux alone) is the peak resident set of a process that does nothing else, less what it held once everything was
loaded and had run on 64×64, beside that of the network's evaluation and product. The allocator gives each freed tensor back at
once, so that the peak is of what is alive and not of how the heap happens to be cut up.

The launches are those of one more step, less those of the network's evaluation and product: what a step costs a GPU that waits
for its host. On a GPU the profiler counts kernels and copies to the host; on the CPU it is tensor operations that calculate
something, one or more kernels each, and numbers that are read, which would make the host wait for a GPU.

The samplers of azula and deepinv stand beside ours with the same network, operator and pseudoinverse; deepinv's in float32,
not its default of float64. They come with the extra `bench` and are left out where absent.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.profiler import ProfilerActivity, profile
from torch.utils._python_dispatch import TorchDispatchMode

from cclight import AveragePooling, Conjugate, OTPath, PiGDM, Prior, Sampler, Velocity
from cclight.priors.small import SmallUNet
from cclight.samplers.moments import ConjugateMoments

STEPS = 3
OWN_REPEATS = 100
SAMPLERS: dict[str, Sampler] = {
    "Conjugate": Conjugate(STEPS),
    "Conjugate order 2": Conjugate(STEPS, order=2),
    "PiGDM": PiGDM(STEPS),
    "ConjugateMoments": ConjugateMoments(STEPS),
}
Work = Callable[[], object]


class Network(Prior):
    """The network as a prior on the OT path."""

    def __init__(self) -> None:
        super().__init__(OTPath(), Velocity())
        # Not trained: what a call costs does not depend on the weights.
        self.network: nn.Module = SmallUNet((64, 128, 192), (2, 2, 3)).requires_grad_(False)
        self.stride = self.network.stride

    def forward(self, x_t: Tensor, t: Tensor) -> Tensor:
        return self.network(x_t, t)


class Free(Prior):
    """A network that costs almost nothing."""

    def __init__(self) -> None:
        super().__init__(OTPath(), Velocity())

    def forward(self, x_t: Tensor, t: Tensor) -> Tensor:
        return 0.5 * x_t


def baseline(prior: Prior, x: Tensor) -> None:
    """One evaluation and one vector-Jacobian product."""
    x = x.detach().requires_grad_()
    output = prior(x, torch.full((x.shape[0],), 0.5))
    torch.autograd.grad(output, x, output.detach())


def azula(prior: Prior, operator: AveragePooling, y: Tensor, noise: Tensor) -> dict[str, Work]:
    """The samplers of azula, each taking STEPS steps; empty where it is not installed."""
    try:
        from azula.denoise import Denoiser, DiracPosterior
        from azula.guidance.dps import DPSSampler
        from azula.guidance.mmps import MMPSDenoiser
        from azula.guidance.pgdm import PGDMSampler
        from azula.noise import Schedule
        from azula.sample import DDIMSampler
    except ImportError:
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


def deepinv(prior: Prior, operator: AveragePooling, y: Tensor, noise: Tensor) -> dict[str, Work]:
    """The samplers of deepinv, each taking STEPS steps; empty where it is not installed."""
    try:
        from deepinv.physics import GaussianNoise, LinearPhysics
        from deepinv.sampling import (
            DPS,
            DDIMSolver,
            PiGDMDataFidelity,
            PosteriorDiffusion,
            VariancePreservingDiffusion,
        )
    except ImportError:
        return {}

    class Wrapped(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.prior = prior

        def forward(self, x: Tensor, sigma: Tensor, *_, **__) -> Tensor:
            t = 1 / (1 + sigma.flatten())  # x_0 + σ ε is the OT path's state over its t
            return self.prior.denoise(t[:, None, None, None] * x, t.expand(len(x)))

    physics = LinearPhysics(A=operator, A_adjoint=operator.adjoint, noise_model=GaussianNoise(1e-3))
    kind = {"dtype": torch.float32, "minus_one_one": False}
    grid = torch.linspace(1, 0, STEPS + 1)
    sde = VariancePreservingDiffusion(dtype=torch.float32)
    samplers = {
        "deepinv DPS": DPS(Wrapped(), num_steps=STEPS + 1, solver="ddim", **kind),
        "deepinv PiGDM": PosteriorDiffusion(PiGDMDataFidelity(), Wrapped(), sde, DDIMSolver(grid), **kind),
    }
    return {name: partial(sampler, y, physics, x_init=noise) for name, sampler in samplers.items()}


def works(prior: Prior, size: int, batch: int, peers: bool = True) -> tuple[Tensor, dict[str, Work]]:
    """A batch of noise and what each sampler does with it."""
    operator, noise = AveragePooling(4), torch.randn(batch, 3, size, size, generator=torch.Generator().manual_seed(0))
    y = operator(noise)
    ours: dict[str, Work] = {name: partial(s.sample, prior, operator, y, noise) for name, s in SAMPLERS.items()}
    return noise, ours | (azula(prior, operator, y, noise) | deepinv(prior, operator, y, noise) if peers else {})


def seconds(work: Work) -> float:
    """The process's time for a piece of work."""
    began = time.process_time()
    work()
    return time.process_time() - began


def measured(prior: Prior, size: int, batch: int, repeats: int, peers: bool) -> dict[str, list[tuple[float, float]]]:
    """Pairs of seconds, of one evaluation and product and of one step right after it, by sampler."""
    noise, samplers = works(prior, size, batch, peers)
    network = partial(baseline, prior, noise)
    network()
    pairs: dict[str, list[tuple[float, float]]] = {name: [] for name in samplers}
    for _ in range(repeats):
        for name, work in samplers.items():
            before = sum(seconds(network) for _ in range(STEPS))
            pairs[name].append((before / STEPS, seconds(work) / STEPS))
    return pairs


def times(prior: Network, size: int, batch: int, repeats: int, peers: bool) -> dict[str, tuple[float, float]]:
    """`whole` and `own` of each sampler."""
    # The free network first: its many calls make the tables, none of the few dear ones does.
    own = {
        name: statistics.median(step - network for network, step in pairs)
        for name, pairs in measured(Free(), size, batch, OWN_REPEATS, peers).items()
    }
    dear = measured(prior, size, batch, repeats, peers)
    network = statistics.median(before for pairs in dear.values() for before, _ in pairs)
    return {
        name: (statistics.median(step / before for before, step in pairs), 1 + own[name] / network)
        for name, pairs in dear.items()
    }


class Dispatches(TorchDispatchMode):
    """Counts operations that calculate something, and those that make the host wait for a device.

    Attributes:
        launches: operations whose result is no view.
        reads: numbers read, and shapes that depend on values.
    """

    _aten = torch.ops.aten
    READING = (_aten._local_scalar_dense.default, _aten.nonzero.default)
    IDLE = (_aten._unsafe_view.default, _aten.empty.memory_format, _aten.empty_like.default, _aten.new_empty.default)

    def __init__(self) -> None:
        super().__init__()
        self.launches = self.reads = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        masks = args[1] if function is self._aten.index.Tensor else ()
        reads = function in self.READING or any(mask is not None and mask.dtype == torch.bool for mask in masks)
        self.reads += reads
        self.launches += not (function.is_view or function in (*self.READING, *self.IDLE))
        return function(*args, **(kwargs or {}))


def counted(work: Work, device: torch.device) -> tuple[int, int]:
    """Launches and host reads of a piece of work whose tables are made."""
    if device.type != "cuda":
        with Dispatches() as counts:
            work()
        return counts.launches, counts.reads
    with profile(activities=[ProfilerActivity.CPU, ProfilerActivity.CUDA]) as profiled:
        work()
        torch.cuda.synchronize(device)
    names = [event.name for event in profiled.events()]
    return sum("LaunchKernel" in name for name in names), sum("DtoH" in name for name in names)


def launches(device: torch.device, size: int, batch: int) -> dict[str, tuple[int, int]]:
    """Launches and host reads that one more step of each sampler costs beyond its network, those of which come first."""
    prior, operator = Network().to(device), AveragePooling(4)
    noise = torch.randn(batch, 3, size, size, generator=torch.Generator().manual_seed(0)).to(device)
    y = operator(noise)
    evaluation = partial(baseline, prior, noise)
    evaluation()
    network = counted(evaluation, device)
    found = {"network": network}
    for name, sampler in SAMPLERS.items():
        counts = []
        for steps in (STEPS, STEPS + 1):
            work = partial(replace(sampler, steps=steps).sample, prior, operator, y, noise)
            work()
            counts.append(counted(work, device))
        (few, few_reads), (more, more_reads) = counts
        found[name] = more - few - network[0], more_reads - few_reads - network[1]
    return found


def peak_memory(name: str, size: int, batch: int) -> int:
    """Bytes that a sampler's call, or `baseline` under any other name, needs at most beyond what is there before it."""
    prior = Network()

    def work(side: int, images: int) -> Work:
        noise, samplers = works(prior, side, images)
        return samplers.get(name, partial(baseline, prior, noise))

    work(64, 1)()  # libraries are loaded on first use
    call = work(size, batch)
    before = int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()
    call()
    return 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before


def main(arguments: list[str] | None = None) -> None:
    """The command."""
    parser = argparse.ArgumentParser(description="The cost of a sampler's step over that of its network call.")
    parser.add_argument("--quick", action="store_true", help="64×64 alone")
    parser.add_argument("--ours", action="store_true", help="leave the peers out")
    parser.add_argument("--memory", action="store_true", help="peak memory in the place of time")
    parser.add_argument("--launches", action="store_true", help="kernels and host reads of a step in the place of time")
    parser.add_argument("--repeats", type=int, nargs=2, default=(15, 3), help="of the column `whole`, at 64×64 and 256×256")
    parser.add_argument("--output", type=Path, help="a JSON file to write")
    parser.add_argument("--peak", nargs=3, help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    if options.peak:
        name, size, batch = options.peak
        print(peak_memory(name, int(size), int(batch)))
        return
    rows: list[dict[str, Any]] = []
    if options.launches:
        device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        where = torch.cuda.get_device_name(device) if device.type == "cuda" else "CPU, tensor operations"
        print(f"64×64, batch 1, {where}: of a step beyond its network\n{'':22} launches  host reads")
        for name, (launched, read) in launches(device, 64, 1).items():
            print(f"{name:22} {launched:8}  {read:10}", flush=True)
            rows.append({"size": 64, "batch": 1, "sampler": name, "device": where, "launches": launched, "reads": read})
        _write(options.output, rows)
        return
    if options.memory:
        for batch in (1, 4):
            peaks = {name: _peak_of(name, 256, batch) for name in ("network", *SAMPLERS)}
            for name, peak in peaks.items():
                print(f"256×256, batch {batch}: {name:20} {peak / 2**20:5.0f} MiB  {peak / peaks['network']:.3f}", flush=True)
                rows.append({"size": 256, "batch": batch, "sampler": name, "bytes": peak, "ratio": peak / peaks["network"]})
        _write(options.output, rows)
        return
    prior = Network()
    print(f"{sum(p.numel() for p in prior.parameters()) / 1e6:.1f} million parameters")
    missing = [name for name in ("azula", "deepinv") if importlib.util.find_spec(name) is None]
    if missing:
        print(f"Left out, not being installed: {', '.join(missing)}. pip install 'cclight[bench]' brings them.")
    print(f"{'':42}  whole     own")
    for size, repeats in zip((64,) if options.quick else (64, 256), options.repeats, strict=False):
        for batch in (1, 4):
            for name, (whole, own) in times(prior, size, batch, repeats, not options.ours).items():
                print(f"{size}×{size}, batch {batch}: {name:22} {whole:.3f}  {own:.4f}", flush=True)
                rows.append({"size": size, "batch": batch, "sampler": name, "whole": whole, "own": own})
    _write(options.output, rows)


def _write(path: Path | None, rows: list[dict[str, Any]]) -> None:
    """The whole file or none of it."""
    if path:
        part = path.with_name(path.name + ".part")
        part.write_text(json.dumps(rows, indent=1) + "\n")
        part.replace(path)


def _peak_of(name: str, size: int, batch: int) -> int:
    """`peak_memory` in a process of its own, which maps every tensor anew and unmaps it when freed."""
    command = [sys.executable, __file__, "--peak", name, str(size), str(batch)]
    environment = os.environ | {"MALLOC_MMAP_THRESHOLD_": "65536"}
    return int(subprocess.run(command, check=True, capture_output=True, text=True, env=environment).stdout)


if __name__ == "__main__":
    main()
