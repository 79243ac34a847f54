"""σ_y told from a picture, against noise, rounding and compression of known size."""

import io

import numpy as np
import pytest
import torch
from PIL import Image
from skimage import data

from cclight.data.fitting import fit
from cclight.data.noise_level import compression, grain, noise_level, rounding
from cclight.operators.separable import GaussianBlur
from cclight.priors.small import SmallPrior

PRIOR = SmallPrior()
BLUR = GaussianBlur(3.0, 25)


def photograph(name, margin=0):
    levels = getattr(data, name)()[60 - margin : 156 + margin, 150 - margin : 262 + margin]
    return torch.from_numpy(levels / np.float32(127.5) - 1).permute(2, 0, 1)[None]


def blurred(name):
    return BLUR(photograph(name, 30))[..., 30:-30, 30:-30]


def rounded(y):
    return ((y + 1) * 127.5).round().clamp(0, 255) / 127.5 - 1


def compressed(y, quality, subsampling="4:2:0"):
    """A JPEG file's pixels, and the noise that the file shows."""
    file = io.BytesIO()
    levels = ((y[0].permute(1, 2, 0) + 1) * 127.5).round().clamp(0, 255).byte().numpy()
    Image.fromarray(levels).save(file, "JPEG", quality=quality, subsampling=subsampling)
    with Image.open(file) as image:
        tables = [image.quantization[0], image.quantization[1]]
        levels = torch.from_numpy(np.asarray(image).copy())
    return levels.permute(2, 0, 1)[None] / 127.5 - 1, compression(levels, tables, subsampling)


@pytest.mark.parametrize("depth", [8, 16])
def test_rounding(depth):
    x = torch.rand(10000, dtype=torch.float64) * 2 - 1
    white = (2**depth - 1) / 2
    assert rounding(depth) == pytest.approx(float(((x * white).round() / white - x).std()), rel=0.1)


def test_grain_is_the_noise_and_not_the_edges():
    y = torch.zeros(1, 3, 96, 96)
    y[..., 40:, :] = 0.8  # an edge is no noise
    noisy = y + 0.03 * torch.randn(y.shape, generator=torch.Generator().manual_seed(0))
    assert grain(noisy) == pytest.approx(0.03, rel=0.05)
    assert grain(y) < 1e-6
    assert grain(y[..., :2]) == 0


@pytest.mark.parametrize("quality", [10, 50, 75, 90])
@pytest.mark.parametrize("subsampling", ["4:2:0", "4:4:4"])
def test_compression_of_a_blurred_picture(quality, subsampling):
    for name in ("astronaut", "coffee", "chelsea"):
        y = blurred(name)
        given, told = compressed(y, quality, subsampling)
        assert told == pytest.approx(float((given - y).square().mean().sqrt()), rel=0.3)


def test_compression_of_grey():
    levels = torch.from_numpy(data.camera()[100:196, 200:296].copy())[..., None]
    file = io.BytesIO()
    Image.fromarray(levels[..., 0].numpy()).save(file, "JPEG", quality=40)
    with Image.open(file) as image:
        given = torch.from_numpy(np.asarray(image).copy())[..., None]
        told = compression(given, [image.quantization[0]], "grey")
    assert told == pytest.approx(float((given.float() - levels).square().mean().sqrt()) / 127.5, rel=0.3)


@pytest.mark.parametrize("std", [0.0, 0.02, 0.05])
def test_the_noise_of_a_blurred_picture(std):
    y = blurred("coffee")
    y = rounded(y + std * torch.randn(y.shape, generator=torch.Generator().manual_seed(0)))
    found = noise_level(fit(BLUR, y, PRIOR), 8)
    assert found.std == pytest.approx(max(std, rounding(8)), rel=0.1)
    assert not found.contradicted


def test_a_sharp_picture_contradicts_a_blur():
    for name in ("astronaut", "coffee", "chelsea"):
        assert noise_level(fit(BLUR, photograph(name), PRIOR), 8).contradicted
        sharp, told = compressed(photograph(name), 75)
        assert noise_level(fit(BLUR, sharp, PRIOR), 8, told).contradicted
        for quality in (10, 50, 75, 90):
            y, told = compressed(blurred(name), quality)
            assert not noise_level(fit(BLUR, y, PRIOR), 8, told).contradicted
