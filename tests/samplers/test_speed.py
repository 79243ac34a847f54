"""What a step must not do once the tables are there: compute in float64, or wait for the device."""

from __future__ import annotations

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from cclight import (
    DDNM,
    DDRM,
    DPS,
    OTODE,
    AveragePooling,
    BicubicDownsampling,
    Conjugate,
    DiffPIR,
    Inpainting,
    OTPath,
    PiGDM,
    PnPFlow,
    Prior,
    REDDiff,
    Velocity,
)
from cclight.problem import Problem
from cclight.samplers.heun import ConjugateHeun
from cclight.samplers.moments import ConjugateMoments
from cclight.samplers.tilt import ConjugateTilt


class Linear(Prior):
    """N = x / 2: no operation of its own that could be taken for the sampler's."""

    def __init__(self) -> None:
        super().__init__(OTPath(), Velocity())

    def forward(self, x_t, t):
        return 0.5 * x_t


class Watch(TorchDispatchMode):
    """Collects the operations that read a number off a tensor or make a float64 one."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[str] = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        made = [leaf for leaf in tree_leaves(result) if isinstance(leaf, torch.Tensor)]
        if func is torch.ops.aten._local_scalar_dense.default or any(leaf.dtype == torch.float64 for leaf in made):
            self.seen.append(str(func))
        return result


def test_the_watch_sees_both():
    with Watch() as watch:
        float(torch.ones(()))
        torch.ones(2).double()
    assert len(watch.seen) == 2


@pytest.mark.parametrize("noise_std", [0.0, 0.1])
@pytest.mark.parametrize("operator", [AveragePooling(4), BicubicDownsampling(4), Inpainting()])
@pytest.mark.parametrize(
    "sampler",
    [
        Conjugate(4),
        Conjugate(4, order=2),
        Conjugate(4, jacobian="none"),
        PiGDM(4),
        PiGDM(4, integrator="euler"),
        DPS(4),
        DiffPIR(4),
        ConjugateHeun(4),
        ConjugateMoments(4),
        ConjugateTilt(4),
        ConjugateTilt(4, renewal=1.0),
        DDNM(4),
        DDRM(4),
        REDDiff(4),
        PnPFlow(4, samples=2),
        OTODE(4),
    ],
    ids=lambda sampler: type(sampler).__name__,
)
def test_a_step_neither_waits_nor_computes_in_float64(sampler, operator, noise_std):
    prior = Linear()
    noise = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    y = operator(noise)
    sampler.sample(prior, operator, y, noise, noise_std=noise_std)  # makes the tables
    with torch.no_grad():
        steps = sampler.iterate(Problem(prior, operator, y, noise, noise_std))
        next(steps)
        with Watch() as watch:
            rest = list(steps)
    assert len(rest) == 3
    assert not watch.seen
