"""What every sampler is: a frozen value whose base owns the loop, and what it refuses before the first network call."""

from __future__ import annotations

import copy
import dataclasses
import inspect

import pytest
import torch

import cclight
from cclight import (
    DPS,
    AveragePooling,
    BicubicDownsampling,
    Conjugate,
    Denoising,
    DiffPIR,
    Epsilon,
    GaussianMixture,
    Inpainting,
    OTPath,
    Prior,
    Quantization,
    Sample,
    Sampler,
    SmallPrior,
    Velocity,
)
from cclight.data.noise import generator, standard_normal
from cclight.priors.base import per_image

PUBLIC = [getattr(cclight, name) for name in cclight.__all__]
SAMPLERS = [kind for kind in PUBLIC if isinstance(kind, type) and issubclass(kind, Sampler) and not inspect.isabstract(kind)]
SAMPLERS = [kind for kind in SAMPLERS if kind.__name__ not in ("LATINO", "InLatents")]  # of latents: test_latino.py
LINEAR = [BicubicDownsampling(2), Inpainting(cclight.Box(2))]


def mixture(path=None, parameterization=None) -> GaussianMixture:
    means = 0.5 * torch.randn(3, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    return GaussianMixture(means, torch.tensor([0.1, 0.2, 0.3]), path=path, parameterization=parameterization).float()


def quick(kind: type[Sampler], **settings) -> Sampler:
    return kind(**({"tolerance": 1e-2} if kind.__name__ == "GuidedODE" else {"steps": 5}), **settings)


@pytest.mark.parametrize("kind", SAMPLERS)
def test_a_sampler_is_a_value(kind):
    one, other = quick(kind), quick(kind)
    assert dataclasses.is_dataclass(kind)
    assert one == other
    assert hash(one) == hash(other)
    assert copy.copy(one) == one == eval(repr(one), vars(cclight))
    more = dataclasses.replace(one, steps=7)
    assert more != one
    assert (more.steps, one.grid.steps) == (7, one.steps)
    with pytest.raises(dataclasses.FrozenInstanceError):
        one.steps = 9


@pytest.mark.parametrize("kind", SAMPLERS)
def test_the_grid_is_taken_by_all_in_the_same_way(kind):
    sampler = quick(kind, t_start=0.3, t_end=0.9, timesteps="logsnr")
    assert sampler.grid == cclight.Grid(sampler.steps, 0.3, 0.9, "logsnr")
    for wrong in ({"steps": 0}, {"t_start": 1.0}, {"t_start": float("nan")}, {"timesteps": "even"}):
        with pytest.raises(ValueError, match=r"steps|t_start|spacing"):
            kind(**wrong)


@pytest.mark.parametrize("kind", SAMPLERS)
@pytest.mark.parametrize("path", [cclight.VPPath(), OTPath()], ids=repr)
@pytest.mark.parametrize("parameterization", [Epsilon(), Velocity(), Sample()], ids=repr)
@pytest.mark.parametrize("noise_std", [0.0, 0.1])
def test_every_path_and_parameterization_from_its_very_beginning(kind, path, parameterization, noise_std, device):
    """From progress 0, where there is no signal, and from the sampler's own start: finite, and of the images' size."""
    prior, operator = mixture(path, parameterization), LINEAR[0]
    y = operator(prior.sample(2, torch.Generator().manual_seed(1)))
    y = (y + noise_std * torch.randn(y.shape, generator=torch.Generator().manual_seed(2))).to(device)
    prior = prior.to(device)
    starts = [{}] if "Moments" in kind.__name__ or "Tilt" in kind.__name__ else [{}, {"t_start": 0.0}]
    for start in starts:
        image = quick(kind, **start).sample(prior, operator, y, noise_std=noise_std).image
        assert image.device == y.device
        assert image.isfinite().all()
        if not start:
            assert float(image.abs().max()) < 12


@pytest.mark.parametrize(
    "kind", [k for k in SAMPLERS if k.requires is cclight.Operator and k.__name__ not in ("DDNM", "DPS", "REDDiff")]
)
def test_the_noise_of_a_nonlinear_operator_is_not_ignored(kind, device):
    prior, operator = mixture(), Quantization(4)
    y = operator(prior.sample(1, torch.Generator().manual_seed(1))).to(device)
    prior = prior.to(device)
    quiet, noisy = (quick(kind).sample(prior, operator, y, noise_std=std).image for std in (0.0, 0.5))
    assert float((quiet - noisy).abs().max()) > 0.05


def test_noise_is_drawn_of_the_seed_where_none_is_given():
    prior, operator = mixture(), BicubicDownsampling(2)
    y = operator(prior.sample(3, torch.Generator().manual_seed(1)))
    noise = standard_normal((1, 8, 8), [generator(5, place, "initial") for place in range(3)])
    drawn, given = (Conjugate().sample(prior, operator, y, e, seed=5).image for e in (None, noise))
    assert torch.equal(drawn, given)
    assert not torch.equal(drawn, Conjugate().sample(prior, operator, y, seed=6).image)


def test_noise_has_the_same_numbers_in_every_dtype():
    single, double = (
        cclight.Problem(mixture(), Denoising(), x, x, generators=[torch.Generator().manual_seed(0)]).randn()
        for x in (torch.zeros(1, 1, 8, 8), torch.zeros(1, 1, 8, 8, dtype=torch.float64))
    )
    assert double.dtype == torch.float64
    assert torch.equal(single.double(), double)


class NeverAsked(Prior):
    """A prior that no wrong problem may reach."""

    def __init__(self) -> None:
        super().__init__(OTPath(), Velocity())

    def forward(self, x_t, t):
        raise AssertionError("a network call")


@pytest.mark.parametrize(
    ("y", "error", "message"),
    [
        (torch.zeros(1, 3, 5, 4), ValueError, r"\(3, 4, 4\) from images of \(3, 8, 8\), and y has \(3, 5, 4\)"),
        (torch.zeros(1, 3, 8, 8), ValueError, r"makes measurements of shape \(3, 4, 4\)"),
        (torch.zeros(1, 3, 4, 4, dtype=torch.float64), ValueError, r"float64 on cpu and the noise torch.float32"),
        (torch.zeros(1, 3, 4, 4, dtype=torch.uint8), TypeError, "got torch.uint8"),
        ([[0.0]], TypeError, "got list"),
        (torch.full((1, 3, 4, 4), 200.0), ValueError, "scale bytes by y / 127.5 - 1"),
        (torch.zeros(2, 3, 4, 4), ValueError, "2 measurements but noise for 1 images"),
        (torch.full((1, 3, 4, 4), float("nan")), ValueError, "NaN or infinity"),
    ],
)
def test_a_wrong_measurement_is_refused_before_any_network_call(y, error, message):
    with pytest.raises(error, match=message):
        Conjugate().sample(NeverAsked(), AveragePooling(2), y, torch.zeros(1, 3, 8, 8))


def test_a_measurement_without_a_batch_is_told_so():
    with pytest.raises(ValueError, match="gives it a batch"):
        Conjugate().sample(NeverAsked(), AveragePooling(2), torch.zeros(3, 4, 4), torch.zeros(3, 3, 8, 8))
    with pytest.raises(ValueError, match="batch"):
        DPS(2).sample(NeverAsked(), AveragePooling(2), torch.zeros(3, 4, 4))
    with pytest.raises(ValueError, match="makes a batch of one"):
        Conjugate().sample(NeverAsked(), Denoising(), torch.zeros(3, 8, 8))


class White(Prior):
    """x_0 ~ N(0, I), of any shape and size."""

    channels = 2

    def __init__(self, sides):
        super().__init__(OTPath(), Sample())
        self.sides = sides

    def forward(self, x_t, t):
        alpha, sigma = (per_image(number(t), x_t) for number in (self.path.alpha, self.path.sigma))
        return alpha / (alpha**2 + sigma**2) * x_t


@pytest.mark.parametrize(
    ("shape", "sides"), [((2, 9), 1), ((2, 9), None), ((2, 3, 3), 2), ((2, 3, 1, 3), 3), ((2, 3, 1, 3), None)]
)
def test_priors_of_any_size_restore_signals_and_volumes(shape, sides):
    """As they do the same numbers in any other shape: each number is a prior of its own here."""
    noise = torch.randn(1, 18, generator=torch.Generator().manual_seed(1))
    y = torch.randn(1, 18, generator=torch.Generator().manual_seed(2))
    restored = Conjugate(4).sample(White(sides), Denoising(), y.view(1, *shape), noise.view(1, *shape), noise_std=0.5).image
    flat = Conjugate(4).sample(White(2), Denoising(), y.view(1, 2, 3, 3), noise.view(1, 2, 3, 3), noise_std=0.5).image
    assert restored.shape == (1, *shape)
    assert torch.allclose(restored.flatten(), flat.flatten(), atol=1e-6)
    if sides is not None:
        with pytest.raises(ValueError, match=r"makes a batch of one"):
            Conjugate().sample(White(sides), Denoising(), y.view(shape), noise.view(shape))


@pytest.mark.parametrize("noise_std", [-0.1, float("nan"), float("inf")])
def test_a_noise_level_that_is_none_is_refused(noise_std):
    with pytest.raises(ValueError, match="noise_std is a standard deviation"):
        DiffPIR(2).sample(NeverAsked(), AveragePooling(2), torch.zeros(1, 3, 4, 4), noise_std=noise_std)


def test_images_between_0_and_1_are_warned_of():
    with pytest.warns(UserWarning, match="images lie in"):
        Conjugate(1).sample(SmallPrior(), Denoising(), torch.rand(1, 3, 16, 16, generator=torch.Generator().manual_seed(0)))


def test_an_operators_tables_go_with_its_settings():
    x = torch.randn(1, 1, 16, 16, generator=torch.Generator().manual_seed(0))
    operator = cclight.GaussianBlur(1.0, 9)
    before = operator(x)
    operator.sigma = 2.0
    assert torch.equal(operator(x), cclight.GaussianBlur(2.0, 9)(x))
    assert not torch.equal(operator(x), before)
