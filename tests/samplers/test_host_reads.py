"""What a step reads off the device: nothing, for samplers of a fixed length on operators with a decomposition."""

from __future__ import annotations

import pytest
import torch

from benchmarks.overhead import Dispatches
from cclight import (
    DDNM,
    DDRM,
    DPS,
    OTODE,
    BicubicDownsampling,
    Conjugate,
    ConjugateHeun,
    ConjugateMoments,
    DiffPIR,
    Epsilon,
    Inpainting,
    PiGDM,
    PnPFlow,
    REDDiff,
    VPPath,
)
from cclight.data.noise import generator
from cclight.operators.masks import RandomPixels
from cclight.problem import Problem
from cclight.samplers.base import Sampler
from tests.samplers.baselines import normal
from tests.samplers.test_conjugate import smooth_mixture

SAMPLERS: list[Sampler] = [
    Conjugate(3),
    ConjugateHeun(3),
    ConjugateMoments(3),
    PiGDM(3),
    DiffPIR(3),
    OTODE(3),
    DDNM(3),
    DDRM(3),
    DPS(3),
    REDDiff(3),
    PnPFlow(3),
]


@pytest.mark.parametrize("noise_std", [0.0, 0.1])
@pytest.mark.parametrize("operator", [BicubicDownsampling(2), Inpainting(RandomPixels(0.5))], ids=["bicubic", "mask"])
@pytest.mark.parametrize("sampler", SAMPLERS, ids=[type(one).__name__ for one in SAMPLERS])
def test_a_step_reads_nothing(sampler, operator, noise_std):
    prior = smooth_mixture(VPPath(), Epsilon())
    noise = normal(2, *prior.image_shape)
    generators = [generator(0, place, "sampler") for place in range(2)]
    y = operator(noise)
    with torch.no_grad():
        for _ in sampler.iterate(Problem(sampler.along(prior), operator, y, noise, noise_std, generators)):
            pass  # the first batch makes the tables and the numbers of the time grid, on the CPU
        steps = sampler.iterate(Problem(sampler.along(prior), operator, y, noise, noise_std, generators))
        next(steps)
        with Dispatches() as counts:
            for _ in steps:
                pass
    assert counts.reads == 0


def test_the_counter_counts():
    with Dispatches() as counts:
        assert bool(torch.ones(2).any())
        float(torch.ones(()))
    assert counts.reads == 2
