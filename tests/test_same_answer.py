"""An image's restoration depends on the seed, its index and the configuration; never on batch size, ranks or the count.

Pixels agree to 1e-5 and not to the bit: what remains is the network's, whose convolutions sum in another order for another
number of images. Everything of ours is per image, and the random numbers are the same to the bit. REDDiff divides by the root
of its gradient's square (Adam), and ConjugateTilt by an early step's small α; both blow up that rounding, to 1.3e-5 and 2.3e-5
as far as seen, and are allowed 1e-4. In float64 both are the same to 1e-10: the last test.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import pytest
import torch
from PIL import Image

import cclight
from tests import processes
from tests.same_answer_script import SAMPLERS

SCRIPT = Path(__file__).with_name("same_answer_script.py")
WEIGHTS = Path(__file__).with_name("assets") / "tiny.safetensors"
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def restore(tmp_path_factory):
    """Start the script in processes of its own and return the folder with a run for each sampler."""

    def start(count: int, batch_size: int, devices: int) -> Path:
        folder = tmp_path_factory.mktemp(f"images{count}_batch{batch_size}_devices{devices}")
        (folder / "photographs").mkdir()
        generator = torch.Generator().manual_seed(0)
        for index in range(count):
            coarse = torch.randint(0, 256, (1, 3, 5, 5), generator=generator).float()
            pixels = torch.nn.functional.interpolate(coarse, size=(36, 32), mode="bilinear")[0].byte()
            Image.fromarray(pixels.permute(1, 2, 0).numpy()).save(folder / "photographs" / f"{index}.png")
        command = [sys.executable, str(SCRIPT), str(folder / "photographs"), str(WEIGHTS), str(folder / "runs")]
        variables = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(SCRIPT.parents[1])}
        process = processes.run([*command, str(batch_size), str(devices)], env=variables, ranks=devices)
        assert process.returncode == 0, process.stderr[-3000:]
        return folder / "runs"

    return start


@pytest.fixture(scope="module")
def one(restore) -> Path:
    """Seven photographs, one by one, in one process: what all others are compared with."""
    return restore(7, 1, 1)


@pytest.fixture(scope="module", params=[(3, 1), (4, 1), (3, 2), (4, 2)], ids="batch {0[0]} processes {0[1]}".format)
def other(request, restore) -> Path:
    return restore(7, *request.param)


def floats(run: Path) -> dict[int, torch.Tensor]:
    return {int(file.stem): torch.load(file, weights_only=True) for file in (run / "floats").iterdir()}


def tolerance(sampler: str) -> float:
    return 1e-4 if sampler in ("reddiff", "tilt") else 1e-5


def means(run: Path) -> dict[str, float]:
    metrics = json.loads((run / "metrics.json").read_text())["metrics"]
    return {name: metrics[name]["mean"] for name in ("psnr", "ssim", "consistency", "nfe")}


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_pixels_and_metrics_are_the_same(one, other, sampler):
    expected, found = floats(one / sampler), floats(other / sampler)
    assert found.keys() == expected.keys() == set(range(7))
    for index, image in expected.items():
        torch.testing.assert_close(found[index], image, rtol=0, atol=tolerance(sampler))
    assert means(other / sampler) == pytest.approx(means(one / sampler), rel=tolerance(sampler) / 10)


def test_no_two_images_are_alike(one):
    """Each has noise of its own: were it shared, the tests above would not see a wrong index."""
    images = floats(one / "conjugate")
    assert len({tuple(image.flatten()[:50].tolist()) for image in images.values()}) == 7


def test_one_image_on_two_processes(one, restore):
    """A rank without images neither hangs nor changes anything."""
    runs = restore(1, 4, 2)
    for sampler in SAMPLERS:
        torch.testing.assert_close(floats(runs / sampler)[0], floats(one / sampler)[0], rtol=0, atol=tolerance(sampler))
        assert json.loads((runs / sampler / "metrics.json").read_text())["images"] == 1


def test_what_differs_is_rounding():
    """RED-diff is allowed more: in float64 a batch gives what its images give one by one."""
    generator = torch.Generator().manual_seed(0)
    noise, clean = (torch.randn(4, 3, 32, 32, generator=generator, dtype=torch.float64) for _ in range(2))
    prior, operator = cclight.SmallPrior(str(WEIGHTS)).double(), cclight.BicubicDownsampling(4)
    y = operator(clean)

    def restored(part: slice) -> torch.Tensor:
        chosen = [torch.Generator().manual_seed(place) for place in range(4)][part]
        return cclight.REDDiff(3).sample(prior, operator, y[part], noise[part], noise_std=0.05, generators=chosen).image

    one_by_one = torch.cat([restored(slice(place, place + 1)) for place in range(4)])
    torch.testing.assert_close(restored(slice(4)), one_by_one, rtol=0, atol=1e-10)
