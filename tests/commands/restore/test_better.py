"""`cclight restore` makes known pictures better, in whatever way they were stored, and never worse than they came."""

import numpy as np
import pytest
import torch
from PIL import Image, ImageOps
from skimage import data

from cclight.cli import main
from cclight.operators.compose import Compose
from cclight.operators.iterative import MotionBlur
from cclight.operators.jpeg import JPEG
from cclight.operators.kernels import LineKernel
from cclight.operators.separable import BicubicDownsampling, GaussianBlur

KERNEL = LineKernel(15, 30)
BLURS = {"gauss": GaussianBlur(3.0, 25), "motion": MotionBlur(KERNEL)}
FILES = {
    "png": {},
    "jpeg90": {"quality": 90},
    "jpeg75": {"quality": 75},
    "jpeg75-444": {"quality": 75, "subsampling": "4:4:4"},
    "jpeg10": {"quality": 10},
    "noise": {},
}
quick = [
    ("astronaut", "gauss", "png"),
    ("chelsea", "gauss", "jpeg10"),
    ("astronaut", "gauss", "jpeg75"),
    ("astronaut", "motion", "noise"),
]
CASES = [
    pytest.param(name, blur, file, marks=[] if (name, blur, file) in quick else pytest.mark.slow)
    for name in ("astronaut", "coffee", "chelsea")
    for blur in BLURS
    for file in FILES
]


def psnr(a, b):
    return -10 * np.log10(np.mean(((a.astype(float) - b) / 255) ** 2))


def border(levels):
    inner = np.zeros(levels.shape[:2], dtype=bool)
    inner[8:-8, 8:-8] = True
    return levels[~inner]


def scene(name):
    """A photograph with 24 pixels more on every side than the picture taken of it."""
    return np.ascontiguousarray(getattr(data, name)()[36:180, 126:254])


@pytest.mark.parametrize(("name", "blur", "file"), CASES)
def test_a_blurred_photograph_gets_better(name, blur, file, tmp_path, monkeypatch):
    """The blur reaches beyond the border, as a real one does; the noise is told from the picture."""
    monkeypatch.chdir(tmp_path)
    levels = scene(name)
    clean = levels[24:-24, 24:-24]
    y = BLURS[blur](torch.from_numpy(levels / np.float32(127.5) - 1).permute(2, 0, 1)[None])[0, :, 24:-24, 24:-24]
    if file == "noise":
        y = y + 0.03 * torch.randn(y.shape, generator=torch.Generator().manual_seed(0))
    given = ((y + 1) * 127.5).round().clamp(0, 255).byte().permute(1, 2, 0).numpy()
    picture = "y.jpg" if "jpeg" in file else "y.png"
    Image.fromarray(given).save(picture, **FILES[file])
    kernel = KERNEL()
    Image.fromarray((kernel / kernel.max() * 255).round().byte().numpy()).save("kernel.png")
    how = ["--sigma", "3"] if blur == "gauss" else ["--kernel", "kernel.png"]
    assert main(["restore", picture, "--task", "deblur", *how, "--output", "out.png"]) == 0
    restored = np.asarray(Image.open("out.png"))
    given = np.asarray(Image.open(picture))
    # Of a compressed picture less is left, of one at quality 10 hardly anything: it is not made worse.
    assert psnr(restored, clean) > psnr(given, clean) + ({"jpeg10": 0.0, "png": 1.0, "noise": 1.0}.get(file, 0.4))
    if file != "jpeg10":  # there the border still loses up to half a dB of what the picture gains
        assert psnr(border(restored), border(clean)) > psnr(border(given), border(clean))


@pytest.mark.parametrize("file", ["jpeg90", "jpeg75", "jpeg75-444", "jpeg30"])
def test_a_compressed_photograph_keeps_what_is_right_in_it(file, tmp_path, monkeypatch):
    """A good file is left nearly as it is, a bad one becomes smoother; neither loses more than tenths of a dB."""
    monkeypatch.chdir(tmp_path)
    clean = np.ascontiguousarray(data.chelsea()[60:140, 150:246])
    Image.fromarray(clean).save("y.jpg", **FILES.get(file, {"quality": 30}))
    assert main(["restore", "y.jpg", "--task", "jpeg", "--output", "out.png"]) == 0
    restored, given = np.asarray(Image.open("out.png")), np.asarray(Image.open("y.jpg"))
    assert psnr(restored, clean) > psnr(given, clean) - 0.2
    assert psnr(restored, given) > {"jpeg90": 40, "jpeg30": 32}.get(file, 37)
    assert blockiness(restored) < max(blockiness(given), 1)  # a good file has no blocks to lose


@pytest.mark.parametrize("orientation", [1, 6])
def test_a_small_compressed_photograph_grows_without_its_blocks(orientation, tmp_path, monkeypatch):
    """Its compression is part of the problem, in the file's own tables, however the file is turned."""
    monkeypatch.chdir(tmp_path)
    clean = np.ascontiguousarray(data.chelsea()[40:168, 130:290])
    y = BicubicDownsampling(4)(torch.from_numpy(clean / np.float32(127.5) - 1).permute(2, 0, 1)[None])[0]
    small = Image.fromarray(((y + 1) * 127.5).round().clamp(0, 255).byte().permute(1, 2, 0).numpy())
    exif = Image.Exif()
    exif[0x112] = orientation
    stored = small if orientation == 1 else small.transpose(Image.Transpose.ROTATE_90)
    stored.save("y.jpg", quality=50, exif=exif)
    assert main(["restore", "y.jpg", "--task", "sr", "--output", "grown.png"]) == 0
    grown = np.asarray(Image.open("grown.png"))
    assert psnr(grown, clean) > 23.5

    def as_stored(levels):
        levels = np.rot90(levels) if orientation == 6 else levels
        return torch.from_numpy(levels / np.float32(127.5) - 1).permute(2, 0, 1)[None].float()

    with Image.open("y.jpg") as file:
        decoded = as_stored(np.asarray(ImageOps.exif_transpose(file)))
        chain = Compose([BicubicDownsampling(4), JPEG(tables=[file.quantization[0], file.quantization[1]])])
    problem, told, _ = chain.linear_problem(decoded, 0.0)
    # In the steps that the file tells: as near as rounding leaves the photograph itself.
    near, clean_near = (float((problem(as_stored(image)) - told).norm()) for image in (grown, clean))
    assert near < clean_near
    assert near > 0.3 * clean_near
    elsewhere = chain.linear_problem(decoded.roll(4, dims=3), 0.0)[1]
    assert float((problem(as_stored(grown)) - elsewhere).norm()) > 5 * near


def blockiness(levels):
    """How much more neighbours differ across the borders of blocks than inside them."""
    steps = np.abs(np.diff(levels.astype(float), axis=1)).mean(axis=(0, 2))
    borders = np.arange(len(steps)) % 8 == 7
    return steps[borders].mean() / steps[~borders].mean()
