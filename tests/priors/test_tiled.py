"""Tiles against the whole: exact where the network looks at one pixel, mixed by the weights where it looks further."""

from __future__ import annotations

import pytest
import torch

from cclight import OTPath, Prior, SmallPrior, Tiled, Velocity
from cclight.priors.small import SmallUNet


class Pointwise(Prior):
    """Looks at one pixel at a time."""

    def __init__(self) -> None:
        super().__init__(OTPath(), Velocity())

    def forward(self, x_t, t):
        return torch.sin(3 * x_t) * t.view(-1, 1, 1, 1)


class Network(Prior):
    """A small network with random weights, on sides divisible by its stride."""

    def __init__(self) -> None:
        super().__init__(OTPath(), Velocity())
        torch.manual_seed(0)
        self.network = SmallUNet((16, 24), (1, 1)).requires_grad_(False).double()
        for parameter in self.network.parameters():
            parameter.copy_(0.2 * torch.randn_like(parameter))
        self.stride = self.network.stride

    def forward(self, x_t, t):
        return self.network(x_t, t)


def noise(*shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


TIME = torch.tensor([0.3, 0.6], dtype=torch.float64)


@pytest.mark.parametrize("size", [(32, 32), (47, 32), (61, 100), (33, 20)])
@pytest.mark.parametrize("overlap", [0, 5, 16])
def test_a_pointwise_prior_is_itself(size, overlap):
    x = noise(2, 3, *size)
    torch.testing.assert_close(Tiled(Pointwise(), 32, overlap)(x, TIME), Pointwise()(x, TIME), rtol=1e-12, atol=1e-12)


def test_tiles_are_mixed_by_weights_that_fade():
    """Two tiles side by side, by hand: weights 1 ... 9 against 9 ... 1 in the eight pixels of the overlap."""
    prior, x = Network(), noise(1, 3, 16, 24)
    left, right = prior(x[..., :16], TIME[:1]), prior(x[..., 8:], TIME[:1])
    weight = torch.arange(8, 0, -1, dtype=torch.float64) / 9
    middle = weight * left[..., 8:] + (1 - weight) * right[..., :8]
    expected = torch.cat([left[..., :8], middle, right[..., 8:]], dim=-1)
    torch.testing.assert_close(Tiled(prior, 16, 8)(x, TIME[:1]), expected, rtol=1e-12, atol=1e-12)


def test_products_with_the_jacobian_go_through_every_tile():
    prior, x, v = Network(), noise(2, 3, 40, 24), noise(2, 3, 40, 24)
    tiled = Tiled(prior, 16, 6)

    def by_hand(x):
        mixed = torch.zeros_like(x)
        for row, down in tiled._tiles(40, x):
            for column, across in tiled._tiles(24, x):
                mixed[..., row, column] += down[:, None] * across * prior(x[..., row, column], TIME)
        return mixed

    gradients = []
    for function in (by_hand, lambda x: tiled(x, TIME)):
        leaf = x.clone().requires_grad_()
        gradients.append(torch.autograd.grad(function(leaf), leaf, v)[0])
    torch.testing.assert_close(gradients[1], gradients[0], rtol=1e-10, atol=1e-12)


def test_only_one_tile_is_kept_in_memory():
    """What a forward pass saves for the backward one: with tiles the image and no activations."""
    prior, x = Network(), noise(1, 3, 64, 64)

    def saved(network):
        total: dict[int, int] = {}

        def pack(tensor):
            total[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            network(x.clone().requires_grad_(), TIME[:1])
        return sum(total.values())

    assert saved(Tiled(prior, 16, 4)) < saved(prior) / 10


def test_a_real_prior_in_tiles_sees_nearly_the_same():
    """An image of one tile goes through as it is; a larger one differs by what lies beyond the tiles."""
    prior = SmallPrior()
    small = torch.rand(1, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    assert torch.equal(Tiled(prior, 32, 8)(small, TIME[:1].float()), prior(small, TIME[:1].float()))
    coarse = torch.rand(1, 3, 12, 12, generator=torch.Generator().manual_seed(0)) * 2 - 1
    clean = torch.nn.functional.interpolate(coarse, size=(96, 96), mode="bicubic").clamp(-1, 1)
    t = torch.tensor([0.7])
    x_t = prior.path.alpha(t) * clean + prior.path.sigma(t) * torch.randn(
        clean.shape, generator=torch.Generator().manual_seed(2)
    )
    with torch.no_grad():
        whole, tiled = prior.denoise(x_t, t), Tiled(prior, 64, 32).denoise(x_t, t)
    assert 0 < float((tiled - whole).square().mean().sqrt()) < 0.15 * float((whole - clean).square().mean().sqrt())


def test_sizes_that_do_not_fit_are_named():
    fixed = Pointwise()
    fixed.image_shape = (3, 32, 32)
    assert Tiled(fixed).tile == 32
    Tiled(fixed).check_images((3, 40, 50))
    with pytest.raises(ValueError, match=r"larger than images of 20×40: set data\.image_size to 32"):
        Tiled(fixed).check_images((3, 20, 40))
    with pytest.raises(ValueError, match="tile must be 32 for Pointwise, got 16"):
        Tiled(fixed, 16)
    with pytest.raises(ValueError, match="tile must be a multiple of"):
        Tiled(Network(), 15)
    with pytest.raises(ValueError, match=r"overlap must be from 0 to half a tile \(16\), got 20"):
        Tiled(fixed, overlap=20)
