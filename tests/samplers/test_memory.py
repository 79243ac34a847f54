"""What a step keeps beside the network's graph: the state, H⁺y, the residual and N, and no leftovers of the step before."""

from __future__ import annotations

import gc
import weakref

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from cclight import (
    DPS,
    AveragePooling,
    Conjugate,
    ConjugateHeun,
    ConjugateMoments,
    ConjugateTilt,
    OTPath,
    PiGDM,
    Prior,
    Sampler,
    Velocity,
)

SHAPE = (2, 3, 16, 16)


class Alive(TorchDispatchMode):
    """Knows which images made under it are still there."""

    def __init__(self) -> None:
        super().__init__()
        self.made: list[weakref.ref[torch.Tensor]] = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        self.made += [weakref.ref(leaf) for leaf in tree_leaves(result) if isinstance(leaf, torch.Tensor)]
        return result

    def images(self) -> int:
        gc.collect()
        there = [tensor for made in self.made if (tensor := made()) is not None and tensor.shape == SHAPE]
        return len({tensor.untyped_storage().data_ptr() for tensor in there})


class Square(torch.autograd.Function):
    """x²/2, which reports what is alive when its product is taken."""

    @staticmethod
    def forward(ctx, x, report):
        ctx.save_for_backward(x)
        ctx.report = report
        return 0.5 * x * x

    @staticmethod
    def backward(ctx, gradient):
        ctx.report()
        return ctx.saved_tensors[0] * gradient, None


class Reporting(Prior):
    """Counts the images that are alive in each vector-Jacobian product."""

    def __init__(self, alive: Alive) -> None:
        super().__init__(OTPath(), Velocity())
        self.alive = alive
        self.counts: list[int] = []

    def forward(self, x_t, t):
        return Square.apply(x_t, lambda: self.counts.append(self.alive.images()))


@pytest.mark.parametrize(
    ("sampler", "images"),
    [
        (Conjugate(4), 4),  # x, H⁺y, the residual and N
        (Conjugate(4, order=2), 7),  # and x, N and g of the step before
        (ConjugateHeun(4), 7),
        (ConjugateMoments(4), 4),
        (ConjugateTilt(4), 9),  # ζ, where the network is asked, what it should meet, x̂_0 and x̂_y of the step before besides
        (PiGDM(4), 4),
        (DPS(4), 4),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Sampler) else str(value),
)
def test_what_lies_beside_a_product(sampler, images):
    operator, noise = AveragePooling(2), torch.randn(SHAPE, generator=torch.Generator().manual_seed(0))
    y = operator(noise)
    gc.freeze()  # what is there already is not looked through in each collection
    with Alive() as alive:
        prior = Reporting(alive)
        sampler.sample(prior, operator, y, noise)
    gc.unfreeze()
    assert max(prior.counts) == images
