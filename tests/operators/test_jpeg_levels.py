"""JPEG as a linear problem: the coefficients of real files, against scipy's transform of them."""

import io
import math

import numpy as np
import pytest
import torch
from PIL import Image
from scipy.fft import dctn
from skimage import data

from cclight import (
    HDR,
    JPEG,
    BicubicDownsampling,
    Compose,
    Conjugate,
    ConjugateMoments,
    LinearCompose,
    Quantization,
    SmallPrior,
)
from cclight.operators.jpeg import quantization_tables
from cclight.operators.jpeg_levels import ROUNDING, JPEGLevels

HALVED = {"4:4:4": (1, 1), "4:2:2": (1, 2), "4:2:0": (2, 2)}


def to_image(levels):
    return torch.from_numpy(np.atleast_3d(levels) / 127.5 - 1).permute(2, 0, 1)[None]


def decoded(levels, quality, **settings):
    file = io.BytesIO()
    Image.fromarray(levels).save(file, "JPEG", quality=quality, **settings)
    return np.asarray(Image.open(file))


def blocks(plane):
    """Blocks of 8×8 of a plane, its edges continued."""
    plane = np.pad(plane, ((0, -plane.shape[0] % 8), (0, -plane.shape[1] % 8)), mode="edge")
    return plane.reshape(plane.shape[0] // 8, 8, -1, 8).swapaxes(1, 2)


def weighted(levels, quality, subsampling):
    """What the standard's annex A says of an image (H, W, 3), in units of the images, over the steps."""
    luminance, chrominance = (np.array(table).reshape(8, 8) for table in quantization_tables(quality))
    red, green, blue = np.moveaxis(levels, 2, 0)
    luma = 0.299 * red + 0.587 * green + 0.114 * blue
    down, across = HALVED[subsampling]
    parts = [dctn(blocks(whole(luma, 8 * down, 8 * across)), axes=(2, 3), norm="ortho") / luminance]
    for chroma in (blue - luma) / 1.772, (red - luma) / 1.402:
        chroma = whole(chroma, down, across)
        chroma = chroma.reshape(len(chroma) // down, down, -1, across).mean(axis=(1, 3))
        parts.append(dctn(blocks(chroma), axes=(2, 3), norm="ortho") / chrominance)
    return np.concatenate([part.ravel() for part in parts])


def whole(plane, down, across):
    return np.pad(plane, ((0, -plane.shape[0] % down), (0, -plane.shape[1] % across)), mode="edge")


@pytest.mark.parametrize("subsampling", HALVED)
@pytest.mark.parametrize("size", [(32, 48), (29, 37), (16, 5), (7, 3), (1, 1)])
def test_it_measures_the_coefficients_of_the_standard(subsampling, size):
    """Up to a rotation, which leaves every inner product."""
    generator = np.random.default_rng(0)
    one, other = generator.uniform(-1, 1, (2, *size, 3))
    operator = JPEGLevels(quantization_tables(30), subsampling)
    unit = operator.noise_std(3) * 127.5 / ROUNDING
    ours = (operator(to_image(127.5 * one + 127.5)) * operator(to_image(127.5 * other + 127.5))).sum()
    theirs = weighted(one, 30, subsampling) @ weighted(other, 30, subsampling)
    assert float(ours) == pytest.approx(unit**2 * theirs, rel=1e-5)


@pytest.mark.parametrize("quality", [10, 50, 85])
def test_a_grey_file_is_told_step_by_step(quality):
    levels = np.ascontiguousarray(data.camera()[60:124, 200:280])
    table = np.array(quantization_tables(quality)[0]).reshape(8, 8)
    steps = np.round(dctn(blocks(levels - 128.0), axes=(2, 3), norm="ortho") / table)
    operator, y, noise_std = JPEG(quality).linear_problem(to_image(decoded(levels, quality)), 0.0)
    assert noise_std == pytest.approx(ROUNDING * table.min() / 127.5)
    # What libjpeg rounded to whole levels and cut at 0 and 255 is there again.
    image = (operator.pinv(y)[0, 0].numpy() + 1) * 127.5
    told = dctn(blocks(image - 128), axes=(2, 3), norm="ortho") / table
    np.testing.assert_allclose(told, np.round(told), atol=1e-9)
    assert (np.round(told) == steps).mean() > 0.99  # libjpeg's integers decide a tie in another way


@pytest.mark.parametrize("subsampling", HALVED)
def test_a_colour_file_is_measured_as_its_picture_would_be(subsampling):
    levels = np.ascontiguousarray(data.astronaut()[40:104, 180:260])
    clean = to_image(levels)
    operator, y, noise_std = JPEG(20, subsampling).linear_problem(to_image(decoded(levels, 20, subsampling=subsampling)), 0.0)
    seen = operator.singular_values((3, 64, 80)) > 0
    error = (y - operator(clean))[:, seen]
    assert 0.5 < float(error.square().mean().sqrt()) / noise_std < 1.2
    assert (y[:, ~seen] == 0).all()
    assert abs(float((operator.pinv(y) - clean).mean())) * 127.5 < 0.3  # grey levels count from 128, images from 127.5


def test_noise_after_the_codec_does_not_hide_coarse_steps():
    levels = np.ascontiguousarray(data.astronaut()[40:104, 180:260])
    picture = to_image(decoded(levels, 10))
    noise = 0.03 * torch.randn(picture.shape, generator=torch.Generator().manual_seed(0), dtype=picture.dtype)
    operator, y, noise_std = JPEG(10).linear_problem(picture, 0.03)
    _, noisy, same = JPEG(10).linear_problem(picture + noise, 0.03)
    assert same == noise_std
    assert float((y - noisy).square().mean().sqrt()) < 0.5 * noise_std
    # Steps finer than the noise are taken as the picture shows them.
    operator, y, noise_std = JPEG(95).linear_problem(picture + noise, 0.03)
    assert noise_std > ROUNDING * min(quantization_tables(95)[0]) / 127.5
    assert 0.5 < float((y - operator(picture)).square().mean().sqrt()) / noise_std < 2


def test_every_batch_has_the_same_operator():
    y = torch.zeros(1, 3, 16, 16)
    assert JPEG(30).linear_problem(y, 0.0)[0] is JPEG(30).linear_problem(y, 0.0)[0]
    assert JPEG(30).linear_problem(y, 0.0)[0] is not JPEG(31).linear_problem(y, 0.0)[0]


def test_rounding_is_noise_of_the_linear_map_before_it():
    y = torch.rand(1, 3, 8, 8) * 2 - 1
    operator, same, noise_std = Quantization(3).linear_problem(y, 0.1)
    assert torch.equal(operator(y), same)
    assert noise_std == pytest.approx(math.hypot(0.1, 2 / 7 / math.sqrt(12)))
    chain = Compose([BicubicDownsampling(4), JPEG(50)])
    x = torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(0)) * 2 - 1
    operator, y, noise_std = chain.linear_problem(chain(x), 0.0)
    assert isinstance(operator, LinearCompose)
    assert float((operator(x) - y).square().mean().sqrt()) < 2 * noise_std
    clipped = Compose([HDR(), JPEG(50)])
    with pytest.raises(TypeError, match="ConjugateMoments needs a LinearOperator, and Compose is none"):
        ConjugateMoments().sample(SmallPrior(), clipped, clipped(x))
    both = Compose([BicubicDownsampling(4), HDR()])
    assert both.linear_problem(both(x), 0.1)[0] is both


def test_a_photograph_gains_by_it():
    levels = np.ascontiguousarray(data.chelsea()[60:156, 150:278])
    clean, y = to_image(levels).float(), to_image(decoded(levels, 10)).float()

    def psnr(image):
        return -10 * math.log10(float((image.clamp(-1, 1) - clean).square().mean()) / 4)

    ours = ConjugateMoments(5, guidance=3.0, t_start=0.6, t_end=1.0).sample(SmallPrior(), JPEG(10), y).image
    decoder = Conjugate(5, guidance=2.0, t_start=0.85, schedule="inverse_variance").sample(SmallPrior(), JPEG(10), y).image
    assert psnr(ours) > psnr(y)
    assert psnr(ours) > psnr(decoder) + 0.5
