"""Given measurements on a canvas: what is inside stays, what is beyond suits the operator, and all is cut back."""

import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from skimage import data

from cclight.data.fitting import fit
from cclight.operators.circular import CircularBlur
from cclight.operators.compose import Compose
from cclight.operators.iterative import MotionBlur
from cclight.operators.jpeg import JPEG
from cclight.operators.kernels import LineKernel
from cclight.operators.masks import FixedMask, Inpainting
from cclight.operators.nonlinear import PhaseRetrieval
from cclight.operators.pixelwise import AveragePooling, Colorization, Denoising
from cclight.operators.separable import BicubicDownsampling, GaussianBlur, UniformBlur
from cclight.priors.base import Prior
from cclight.priors.small import SmallPrior
from tests import processes

WEIGHTS = Path(__file__).parents[1] / "assets" / "tiny.safetensors"
PRIOR = SmallPrior()
OPERATORS = {
    "denoising": Denoising(),
    "bicubic": BicubicDownsampling(4),
    "bicubic3": BicubicDownsampling(3),
    "pooling": AveragePooling(4),
    "colorization": Colorization(),
    "gauss": GaussianBlur(1.5),
    "uniform": UniformBlur(5),
    "motion": MotionBlur(LineKernel(9, 30)),
    "circular": CircularBlur(LineKernel(9, 30)),
    "jpeg": JPEG(40),
    "compose": Compose([GaussianBlur(0.8, 7), AveragePooling(2)]),
}


def photograph(height, width, top=60, left=150):
    levels = torch.from_numpy(data.astronaut()[top : top + height, left : left + width].copy())
    return levels.permute(2, 0, 1)[None] / 127.5 - 1


@pytest.mark.parametrize("name", OPERATORS)
@pytest.mark.parametrize("size", [(37, 29), (32, 48)])
def test_any_size_fits(name, size):
    operator = OPERATORS[name]
    y = photograph(*size)[:, : 1 if name == "colorization" else 3]
    fitted = fit(operator, y, PRIOR)
    PRIOR.check_images(fitted.shape)
    canvas = torch.zeros(1, *fitted.shape)
    assert fitted.operator(canvas).shape == fitted.y.shape
    assert torch.equal(fitted.y[(..., *fitted.inside)], y)  # what was measured stays
    scale = {"bicubic": 4, "bicubic3": 3, "pooling": 4, "compose": 2}.get(name, 1)
    assert fitted.cut(canvas).shape == (1, 3, scale * size[0], scale * size[1])
    fitted.operator.pinv(fitted.y)


@pytest.mark.parametrize("name", ["gauss", "uniform", "motion", "circular"])
def test_a_continued_blur_is_nearly_h_of_something(name):
    """Of a scene that goes on beyond the picture: residual noise of the least-squares image, against copies of the border."""
    operator = OPERATORS[name]
    y = operator(photograph(104, 92, 40, 130))[..., 20:-20, 20:-20]
    fitted = fit(operator, y, PRIOR)
    copies = torch.nn.functional.pad(y, (24, 28, 24, 24), mode="replicate")

    def unexplained(z):
        return float((z - operator(operator.pinv(z))).square().mean().sqrt())

    assert unexplained(fitted.y) < 0.5 * unexplained(copies)


def test_a_picture_that_fits_stays_as_it_is():
    y = photograph(32, 48)
    fitted = fit(Denoising(), y, PRIOR)
    assert torch.equal(fitted.y, y)
    assert fitted.shape == (3, 32, 48)


def test_holes_are_cleaned_and_known_pixels_put_back():
    y = photograph(30, 41)
    kept = torch.ones(30, 41, dtype=torch.bool)
    kept[10:20, 35:] = False  # a hole at the border goes on beyond it
    y[..., ~kept] = 1.0  # people paint what is to be removed
    fitted = fit(Inpainting(FixedMask(kept), fill=True), y, PRIOR)
    assert fitted.y[..., 10:20, 35:].abs().max() == 0
    assert fitted.y[..., :10, 41:].abs().max() > 0
    restored = fitted.cut(torch.full((1, *fitted.shape), 0.25))
    assert torch.equal(restored[..., kept], y[..., kept])
    assert (restored[..., ~kept] == 0.25).all()
    noisy = fit(Inpainting(FixedMask(kept)), y, PRIOR, noise_std=0.1)
    assert (noisy.cut(torch.full((1, *fitted.shape), 0.25)) == 0.25).all()


def test_the_residual_is_that_of_the_picture():
    clean = photograph(32, 48)
    fitted = fit(BicubicDownsampling(4), BicubicDownsampling(4)(clean), PRIOR)
    assert fitted.residual(clean) < 1e-5
    assert fitted.residual(-clean) > 0.1


def test_a_measurement_that_is_no_picture_is_left_alone():
    operator = PhaseRetrieval(2.0)
    y = operator(torch.zeros(1, 3, 16, 16))
    assert torch.equal(fit(operator, y, PRIOR).y, y)


class Fixed(Prior):
    """Takes 64 pixels and nothing else."""

    image_shape = (3, 64, 64)

    def __init__(self):
        super().__init__(PRIOR.path, PRIOR.parameterization)

    def forward(self, x_t, t):
        return x_t


def test_a_prior_of_one_size():
    assert fit(GaussianBlur(1.0), photograph(40, 50), Fixed()).shape == (3, 64, 64)
    assert fit(BicubicDownsampling(4), photograph(16, 16), Fixed()).shape == (3, 64, 64)
    with pytest.raises(ValueError, match=r"64 pixels a side, and this one is 80 .* Tiled"):
        fit(BicubicDownsampling(4), photograph(16, 20), Fixed())


def test_what_the_operator_has_not_made_is_refused():
    with pytest.raises(ValueError, match=r"makes measurements of shape \(1, 32, 32\), and this one has \(3, 32, 32\)"):
        fit(Colorization(), photograph(32, 32), PRIOR)


def test_predict_restores_measurements_of_any_size(tmp_path):
    """A blurred picture of odd sides, and one with a hole at its border."""
    for folder, size in (("small", (37, 29)), ("holes", (33, 46))):
        (tmp_path / folder).mkdir()
        Image.fromarray(data.astronaut()[60 : 60 + size[0], 150 : 150 + size[1]]).save(tmp_path / folder / "p.png")
    mask = np.full((33, 46), 255, dtype=np.uint8)
    mask[5:12, 40:] = 0
    Image.fromarray(mask).save(tmp_path / "mask.png")
    common = ["--data.measurements", "true", "--data.source", "ImageFolder", "--model.sampler.init_args.steps", "2"]
    common += ["--metrics.per_image", "[]", "--model.prior.init_args.weights", str(WEIGHTS)]
    inpaint = ["--operator", "Inpainting", "--operator.mask", "MaskFile", "--operator.mask.path", "mask.png"]
    for config, folder, more in (("deblur", "small", ["--operator.sigma", "1"]), ("inpaint", "holes", inpaint)):
        command = [sys.executable, "-m", "cclight", "predict", "--config", f"{config}.yaml", *more, *common]
        command += ["--data.source.init_args.path", folder, "--run.name", folder]
        result = processes.run(command, cwd=tmp_path)
        assert result.returncode == 0, result.stderr
        given, restored = (
            np.asarray(Image.open(tmp_path / place)).astype(int)
            for place in (f"{folder}/p.png", f"runs/{folder}/restored/00000_p.png")
        )
        assert given.shape == restored.shape
    assert np.abs(given - restored)[mask > 0].max() == 0
    assert np.abs(given - restored)[mask == 0].max() > 0
