"""`cclight restore` with a prior, a sampler and an operator of one's own, in predict's words."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from cclight.operators.separable import BicubicDownsampling
from tests import processes

WEIGHTS = str(Path(__file__).parents[2] / "assets" / "tiny.safetensors")
TINY = ["--model.prior", "SmallPrior", "--model.prior.init_args.weights", WEIGHTS]
FIXED = """
import torch
from cclight import OTPath, Prior, Velocity


class Fixed(Prior):
    def __init__(self, channels: int = 3):
        super().__init__(OTPath(), Velocity())
        self.channels = channels
        self.image_shape = (channels, 32, 32)

    def forward(self, x, t):
        assert x.shape[1:] == self.image_shape
        return x * 0.5
"""


@pytest.fixture
def folder(tmp_path):
    rng = np.random.default_rng(0)
    picture = Image.fromarray(rng.integers(0, 256, (5, 6, 3), dtype=np.uint8)).resize((19, 13), Image.Resampling.BICUBIC)
    picture.save(tmp_path / "small.png")
    picture.convert("L").save(tmp_path / "grey.png")
    (tmp_path / "fixed.py").write_text(FIXED)
    return tmp_path


def restore(folder, *arguments):
    return processes.run([sys.executable, "-m", "cclight", "restore", *arguments], cwd=folder)


def size(path):
    with Image.open(path) as picture:
        return picture.size


def test_a_sampler_of_ones_own(folder):
    result = restore(folder, "small.png", "--task", "sr", "--model.sampler.steps", "3", "--model.sampler", "DPS", *TINY)
    assert result.returncode == 0, result.stderr
    assert "small.png 19×13 -> small_sr.png 76×52: DPS, 3 network calls" in result.stdout


def test_the_tasks_sampler_in_predicts_words_gives_the_same_pixels(folder):
    first = restore(folder, "small.png", "--task", "sr", "--prior", WEIGHTS, "--steps", "2", "--output", "a.png")
    assert first.returncode == 0, first.stderr
    words = ["--model.sampler.init_args.steps", "2", *TINY]
    second = restore(folder, "small.png", "--task", "sr", *words, "--output", "b.png")
    assert second.returncode == 0, second.stderr
    mixed = restore(folder, "small.png", "--task", "sr", "--steps", "2", *TINY, "--output", "c.png")
    assert mixed.returncode == 0, mixed.stderr
    assert (folder / "a.png").read_bytes() == (folder / "b.png").read_bytes() == (folder / "c.png").read_bytes()


def test_a_configuration_brings_operator_sampler_and_noise(folder):
    """What is predict's own business in it does no harm; a later file goes before an earlier one."""
    (folder / "mine.yaml").write_text(
        "operator: {class_path: AveragePooling, init_args: {factor: 2}}\nnoise_std: 0.02\nrun: {name: x}\n"
        "model: {compile: false, sampler: {class_path: DDRM, init_args: {steps: 4}}}\n"
        "data: {source: {class_path: SamplePhotographs}, batch_size: 4}\ntrainer: {accelerator: gpu}\n"
    )
    (folder / "steps.yaml").write_text("model: {sampler: {class_path: DDRM, init_args: {steps: 2}}}\n")
    result = restore(folder, "small.png", "--config", "steps.yaml", "--config", "mine.yaml", *TINY)
    assert result.returncode == 0, result.stderr
    assert "small_mine.png 38×26: DDRM, 4 network calls" in result.stdout
    result = restore(folder, "small.png", "--task", "sr", "--config", "mine.yaml", "--config", "steps.yaml", *TINY)
    assert "small_sr.png 76×52: DDRM, 2 network calls" in result.stdout  # the task says what was done, not the file
    again = restore(folder, ".", "--config", "mine.yaml", *TINY)
    assert "left out, as results of earlier calls" in again.stderr


def test_an_operator_that_takes_the_colours(folder):
    arguments = ["--operator", "Colorization", "--model.sampler", "DDRM", "--model.sampler.steps", "2", *TINY]
    result = restore(folder, "grey.png", *arguments)
    assert result.returncode == 0, result.stderr
    with Image.open(folder / "grey_colorization.png") as picture:
        assert (picture.mode, picture.size) == ("RGB", (19, 13))


def test_a_prior_of_one_size_takes_pictures_of_any(folder):
    fixed = ["--model.prior", "fixed.Fixed", "--model.sampler", "DDRM", "--model.sampler.steps", "2"]
    for task, expected in (("sr", (76, 52)), ("colorize", (19, 13))):
        result = restore(folder, "small.png", "--task", task, *fixed)
        assert result.returncode == 0, result.stderr
        assert size(folder / f"small_{task}.png") == expected
    grey = [*fixed, "--model.prior.channels", "1", "--operator", "BicubicDownsampling"]
    result = restore(folder, "small.png", "grey.png", *grey)
    assert "small.png: it is coloured, and Tiled takes grey images" in result.stderr
    assert size(folder / "grey_bicubicdownsampling.png") == (76, 52)


def test_a_restoration_that_strays_from_the_picture_is_not_returned(folder):
    """Without guidance, from pure noise: H⁺y goes in its place, and it is said."""
    stray = [
        "--model.sampler",
        "Conjugate",
        "--model.sampler.guidance",
        "0",
        "--model.sampler.t_start",
        "0.1",
        "--steps",
        "2",
        "--prior",
        WEIGHTS,
    ]
    result = restore(folder, "small.png", "--task", "sr", *stray)
    assert result.returncode == 0, result.stderr
    assert "left as it was where the restoration disagreed with it" in result.stdout
    y = torch.from_numpy(np.asarray(Image.open(folder / "small.png")) / np.float32(127.5) - 1).permute(2, 0, 1)[None]
    plain = ((BicubicDownsampling(4).pinv(y)[0].clamp(-1, 1) + 1) * 127.5).round().permute(1, 2, 0).numpy()
    assert np.abs(np.asarray(Image.open(folder / "small_sr.png")) - plain)[4:-4, 4:-4].max() <= 3


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], "what was done to the pictures? Give --task"),
        (["--model.sampler", "DDRM"], "what was done to the pictures? Give --task"),
        (["--operator", "AveragePooling"], "model.sampler is missing"),
        (["--task", "sr", "--operator", "AveragePooling"], "--task and --operator are two ways"),
        (["--task", "sr", "--model.sampler", "DPSS"], "there is no DPSS: did you mean DPS?"),
        (
            ["--task", "sr", "--model.sampler.stepz", "3"],
            "model.sampler.stepz is no setting of ConjugateMoments: did you mean",
        ),
        (["--task", "sr", "--steps", "3", "--model.sampler.steps", "4"], "--steps and --model.sampler.steps are two ways"),
        (["--task", "sr", "--prior", "x", "--model.prior", "ADM"], "--prior and --model.prior are two ways"),
        (["--task", "sr", "--model.smapler", "DPS"], "did you mean --model.sampler"),
        (["--task", "sr", "--model.sampler.guidance", "nan"], "give a finite number"),
        (["--operator", "PhaseRetrieval", "--model.sampler", "DPS"], "PhaseRetrieval makes no pictures"),
        (["--operator", "AveragePooling", "--model.sampler", "DDRM", "--factor", "2"], "--factor belongs to --task sr"),
    ],
)
def test_a_mistake_is_one_line(folder, arguments, words):
    result = restore(folder, "small.png", *arguments)
    assert result.returncode in (1, 2)
    assert words in result.stderr
    assert len(result.stderr.splitlines()) == 1
    assert sorted(path.name for path in folder.iterdir() if path.suffix == ".png") == ["grey.png", "small.png"]


def test_a_class_shows_its_arguments(folder):
    result = restore(folder, "--model.sampler.help", "DPS")
    assert result.returncode == 0
    assert "--model.sampler.zeta" in result.stdout


def test_without_such_options_it_starts_without_lightning(folder):
    program = (
        "import sys; from cclight.cli import main; "
        f"assert main(['restore', 'small.png', '--task', 'sr', '--steps', '1', '--prior', {WEIGHTS!r}]) == 0; "
        "sys.exit(', '.join({'lightning', 'jsonargparse', 'torchmetrics'} & set(sys.modules)))"
    )
    result = subprocess.run([sys.executable, "-c", program], cwd=folder, capture_output=True, text=True, check=False)
    assert result.stderr.strip() == ""
    assert size(folder / "small_sr.png") == (76, 52)


def test_what_reading_a_picture_did_is_told_once(folder):
    frames = [Image.new("RGB", (20, 16), colour) for colour in ("red", "blue", "green")]
    frames[0].save(folder / "moving.gif", save_all=True, append_images=frames[1:])
    Image.new("RGB", (20, 16), "red").save(folder / "profile.png", icc_profile=b"no profile" * 20)
    for name, words in (("moving.gif", "frame"), ("profile.png", "its colour profile cannot be used")):
        result = restore(folder, name, "--task", "sr", "--prior", WEIGHTS, "--steps", "1", "--tile", "64")
        assert result.returncode == 0, result.stderr
        assert result.stdout.count(words) == 1
