import io

import numpy as np
import pytest
import torch
from PIL import Image
from skimage import data

from cclight.operators.jpeg import JPEG


def to_tensor(levels):
    return torch.from_numpy(np.atleast_3d(levels) / 127.5 - 1).permute(2, 0, 1)[None].float()


def to_levels(image):
    return ((image + 1) * 127.5).round()[0].permute(1, 2, 0).numpy().astype(int)


def with_pillow(levels, quality, **settings):
    file = io.BytesIO()
    Image.fromarray(levels).save(file, "JPEG", quality=quality, **settings)
    return np.atleast_3d(np.asarray(Image.open(file))).astype(int)


@pytest.mark.parametrize("quality", [1, 5, 10, 40, 50, 75, 95, 100])
@pytest.mark.parametrize("size", [(128, 128), (100, 93), (33, 47), (16, 5), (7, 3), (1, 1)])
def test_matches_pillow(quality, size):
    levels = np.ascontiguousarray(data.astronaut()[40 : 40 + size[0], 180 : 180 + size[1]])
    difference = np.abs(to_levels(JPEG(quality)(to_tensor(levels))) - with_pillow(levels, quality))
    assert (difference <= 1).mean() > 0.99
    # libjpeg's fixed-point arithmetic is followed throughout: nothing but a rare rounding in float32 can differ.
    assert (difference == 0).mean() > 0.99


@pytest.mark.parametrize("subsampling", ["4:4:4", "4:2:2", "4:2:0"])
@pytest.mark.parametrize("size", [(128, 128), (33, 47), (16, 5), (9, 4), (1, 1)])
def test_matches_pillow_in_every_subsampling(subsampling, size):
    for levels in (data.astronaut()[40:, 180:], np.random.default_rng(0).integers(0, 256, (128, 128, 3), dtype=np.uint8)):
        levels = np.ascontiguousarray(levels[: size[0], : size[1]])
        ours = to_levels(JPEG(60, subsampling)(to_tensor(levels)))
        assert (ours == with_pillow(levels, 60, subsampling=subsampling)).mean() > 0.99


def test_takes_a_files_own_tables():
    levels = np.ascontiguousarray(data.astronaut()[40:104, 180:250])
    luminance, chrominance = [2 + k % 30 for k in range(64)], [3 + k // 2 for k in range(64)]
    pillow = with_pillow(levels, -1, qtables=[luminance, chrominance])
    assert (to_levels(JPEG(tables=[luminance, chrominance])(to_tensor(levels))) == pillow).mean() > 0.99
    grey = np.ascontiguousarray(levels[..., 0])
    assert (to_levels(JPEG(tables=[luminance])(to_tensor(grey))) == with_pillow(grey, -1, qtables=[luminance])).mean() > 0.99


@pytest.mark.parametrize("quality", [10, 90])
def test_matches_pillow_on_grey_images_and_on_noise(quality):
    for levels in (data.camera()[:64, :80], np.random.default_rng(0).integers(0, 256, (48, 64, 3), dtype=np.uint8)):
        levels = np.ascontiguousarray(levels)
        difference = np.abs(to_levels(JPEG(quality)(to_tensor(levels))) - with_pillow(levels, quality))
        assert (difference <= 1).mean() > 0.99


def test_each_image_of_a_batch_by_itself():
    x = torch.rand(3, 3, 24, 40, generator=torch.Generator().manual_seed(0)) * 2 - 1
    assert torch.equal(JPEG(20)(x)[1:2], JPEG(20)(x[1:2]))


def test_its_gradient_is_that_of_the_codec_without_rounding():
    # Without rounding the codec only smooths the chroma: grey images pass unchanged, and so does their gradient.
    x = (torch.rand(1, 1, 16, 24, generator=torch.Generator().manual_seed(0)) - 0.5).double().requires_grad_()
    weights = torch.randn(x.shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    (gradient,) = torch.autograd.grad((JPEG(90)(x) * weights).sum(), x)
    torch.testing.assert_close(gradient, weights, atol=1e-3, rtol=1e-3)
    colour = (x.detach().expand(1, 3, 16, 24) * torch.tensor([1.0, 0.5, -0.7]).view(3, 1, 1)).clone().requires_grad_()
    (gradient,) = torch.autograd.grad((JPEG(90)(colour)).sum(), colour)
    assert torch.isfinite(gradient).all()
    assert float(gradient.sum()) == pytest.approx(colour.numel(), rel=1e-2)


def test_keeps_shape_and_dtype():
    x = torch.rand(2, 3, 17, 30, generator=torch.Generator().manual_seed(0)) * 2 - 1
    for dtype in (torch.float16, torch.bfloat16, torch.float32, torch.float64):
        y = JPEG(30)(x.to(dtype))
        assert y.dtype == dtype
        assert y.shape == x.shape
    assert torch.equal(JPEG(30).project(x), JPEG(30)(x))
    assert torch.equal(JPEG(30).pinv(x), x)


def test_refuses_what_it_cannot_take():
    for quality in (0, 101):
        with pytest.raises(ValueError, match=f"quality from 1 to 100, got {quality}"):
            JPEG(quality)
    with pytest.raises(ValueError, match="4:2:2, 4:2:0, got '4:1:1'"):
        JPEG(10, "4:1:1")
    for tables in ([[1] * 63], [[0] * 64], [], [[1] * 64] * 3):
        with pytest.raises(ValueError, match="64 numbers from 1"):
            JPEG(tables=tables)
    with pytest.raises(ValueError, match="1 or 3 channels, got 2"):
        JPEG()(torch.zeros(1, 2, 8, 8))
