import itertools
import json
import math
import os
import subprocess
import sys
import warnings
from pathlib import Path
from types import SimpleNamespace

import lightning.pytorch as pl
import numpy as np
import pytest
import torch
from PIL import Image

from cclight.data.datamodule import RestorationDataModule
from cclight.data.noise import generator
from cclight.data.sources import Entry, ImageFolder, SamplePhotographs, Source, Values
from cclight.data.units import Units
from cclight.operators.base import LinearOperator
from cclight.operators.pixelwise import AveragePooling, Colorization, Denoising
from tests.data.conftest import picture
from tests.data.test_sources import Numbers
from tests.data.two_processes import DONE, make_trainer, run

ROOT = Path(__file__).resolve().parents[2]


def batches(data):
    """The batches that a Restorer would get."""
    data.prepare_data()
    data.setup("predict")
    return [data.on_after_batch_transfer(decoded, 0) for decoded in data.predict_dataloader()]


class RestrictsSides(AveragePooling):
    """Two pixels become one, of images with sides of 40 at most."""

    def __init__(self):
        super().__init__(2)

    def check_images(self, shape):
        super().check_images(shape)
        if max(shape[-2:]) > 40:
            raise ValueError(f"sides of 40 or less, got {shape[-2]}×{shape[-1]}: set data.image_size to less.")


def module(source, operator=None, **arguments):
    return RestorationDataModule(source, operator or AveragePooling(4), **{"image_size": 16} | arguments)


def test_a_batch_is_the_problem(folder):
    first, second = batches(module(ImageFolder(folder), noise_std=0.5, seed=3))
    assert first.index + second.index == list(range(7))
    assert first.name == ["p0", "p1", "p2", "p3"]
    assert first.clean.shape == first.noise.shape == (4, 3, 16, 16)
    assert first.clean.min() >= -1
    assert first.clean.max() <= 1
    n = torch.randn(3, 4, 4, generator=generator(3, 2, "measurement"))
    torch.testing.assert_close(first.measurement[2], AveragePooling(4)(first.clean)[2] + 0.5 * n)
    assert torch.equal(first.noise[2], torch.randn(3, 16, 16, generator=generator(3, 2, "initial")))
    assert first.generators[2].initial_seed() == generator(3, 2, "sampler").initial_seed()
    assert first.generators[2].device.type == "cpu"


def test_without_noise_the_measurement_is_exact(folder):
    (batch,) = batches(module(ImageFolder(folder), batch_size=7))
    assert torch.equal(batch.measurement, AveragePooling(4)(batch.clean))


@pytest.mark.parametrize("batch_size", [1, 3, 4])
def test_problems_do_not_depend_on_the_batch(folder, batch_size):
    (together,) = batches(module(ImageFolder(folder), noise_std=0.1, batch_size=7))
    apart = batches(module(ImageFolder(folder), noise_std=0.1, batch_size=batch_size))
    assert torch.equal(together.noise, torch.cat([batch.noise for batch in apart]))
    torch.testing.assert_close(together.measurement, torch.cat([batch.measurement for batch in apart]), rtol=0, atol=1e-6)
    draws = [torch.randn(3, generator=g) for batch in apart for g in batch.generators]
    assert torch.equal(torch.stack(draws), torch.stack([torch.randn(3, generator=g) for g in together.generators]))


def test_initial_noise_does_not_depend_on_the_operator_and_does_on_the_seed(folder):
    noises = [
        batches(module(ImageFolder(folder), operator, batch_size=7, noise_std=noise_std, seed=seed))[0].noise
        for operator, noise_std, seed in [(AveragePooling(4), 0.0, 0), (Denoising(), 1.0, 0), (AveragePooling(4), 0.0, 1)]
    ]
    assert torch.equal(noises[0], noises[1])
    assert not torch.equal(noises[0], noises[2])


def test_skip_and_limit(folder):
    data = module(ImageFolder(folder), limit=5)
    data.skip = {0, 3}
    assert [batch.index for batch in batches(data)] == [[1, 2, 4]]
    assert len(data.predict_dataloader()) == 1


def test_rectangles(folder):
    (batch,) = batches(module(ImageFolder(folder), image_size=(8, 20), batch_size=7))
    assert batch.clean.shape == (7, 3, 8, 20)


def test_float64_and_half_follow_the_trainer_precision(folder):
    data = module(ImageFolder(folder), noise_std=0.1)
    decoded = next(iter(data.predict_dataloader()))
    single, double = (
        data.on_after_batch_transfer(decoded._replace(images=decoded.images.to(dtype)), 0)
        for dtype in (torch.float32, torch.float64)
    )
    assert double.noise.dtype == double.measurement.dtype == torch.float64
    assert torch.equal(single.noise.double(), double.noise)
    torch.testing.assert_close(single.measurement.double(), double.measurement, rtol=0, atol=1e-6)


def test_native_sizes_share_no_batch(tmp_path):
    for number, (height, width) in enumerate([(17, 23), (19, 22), (24, 32)]):
        picture(number, height, width).save(tmp_path / f"{number}.png")
    problems = batches(module(ImageFolder(tmp_path), image_size=None, multiple=8))
    assert [tuple(batch.clean.shape) for batch in problems] == [(2, 3, 16, 16), (1, 3, 24, 32)]


# Measurements that the user brings


def test_the_sample_photographs_are_no_measurements():
    with pytest.raises(ValueError, match=r"SamplePhotographs are clean: give a source of your own.*--data.source ImageFolder"):
        module(SamplePhotographs(), measurements=True)


def test_measurements_alone(folder):
    (batch,) = batches(module(ImageFolder(folder), measurements=True, noise_std=0.1, batch_size=7, seed=2))
    assert batch.clean is None
    assert batch.measurement.shape == (7, 3, 24, 32)  # as they are, whatever image_size says
    assert batch.measurement[3, 0, 0, 0] == pytest.approx(3 / 127.5 - 1)
    assert batch.noise.shape == (7, 3, 96, 128)
    assert torch.equal(batch.noise[3], torch.randn(3, 96, 128, generator=generator(2, 3, "initial")))


def test_measurements_of_one_channel(tmp_path):
    grey = np.arange(64, dtype=np.uint8).reshape(8, 8)
    Image.fromarray(grey).save(tmp_path / "old.jpg", quality=100)
    (batch,) = batches(module(ImageFolder(tmp_path), Colorization(), measurements=True, channels=1))
    assert batch.measurement.shape == (1, 1, 8, 8)
    assert batch.noise.shape == (1, 3, 8, 8)


@pytest.mark.parametrize(
    ("operator", "reason"),
    [
        (Colorization(), r"Colorization makes .*\(1, 24, 32\), and this one has \(3, 24, 32\).*set data.channels"),
        (RestrictsSides(), r"sides of 40 or less, got 48×64: cut or pad the measurement to a size that fits"),
    ],
)
def test_a_measurement_that_does_not_fit_is_left_out_with_the_remedy(folder, operator, reason):
    picture(7, 16, 16).save(folder / "p7.png")
    data = module(ImageFolder(folder), operator, measurements=True)
    with pytest.warns(UserWarning, match=r"p0 \(number 0\): .*" + reason):
        found = batches(data)
    assert [batch.index for batch in found] == ([[7]] if isinstance(operator, RestrictsSides) else [])
    assert sorted(data.left_out) == list(range(8 - len(found)))
    with pytest.raises(ValueError, match=reason):
        batches(module(ImageFolder(folder), operator, measurements=True, on_error="raise"))


def test_what_was_made_of_another_photograph_is_told_apart(folder):
    contents = {i: c for batch in batches(module(ImageFolder(folder))) for i, c in zip(batch.index, batch.content, strict=True)}
    assert len(set(contents.values())) == 7
    assert module(ImageFolder(folder)).unchanged(contents) == set(range(7))
    assert module(ImageFolder(folder), limit=3).unchanged(contents) == {0, 1, 2}
    assert module(ImageFolder(folder)).unchanged({0: contents[0], 1: None}) == {0}
    picture(3, 25).save(folder / "p2.png")
    (folder / "p4.png").write_bytes(b"")
    (folder / "p6.png").unlink()
    assert module(ImageFolder(folder)).unchanged(contents) == {0, 1, 3, 5}
    picture(0).save(folder / "a.png")  # sorts first: every number is another photograph's
    assert module(ImageFolder(folder)).unchanged(contents) == set()


# Bad input


def test_unusable_photographs_are_left_out_and_counted(folder):
    (folder / "p2.png").write_bytes(b"")
    data = module(ImageFolder(folder))
    with pytest.warns(UserWarning, match=r"p2\.png cannot be read as an image \(.*\): left out\.$"):
        assert [batch.index for batch in batches(data)] == [[0, 1, 3, 4], [5, 6]]
    assert list(data.left_out) == [2]
    with pytest.warns(UserWarning, match=r"^1 photographs could not be used and were left out: 2\.$"):
        data.teardown("predict")


@pytest.mark.parametrize("workers", [0, 1])
def test_unusable_photographs_stop_the_run_when_asked(folder, workers):
    (folder / "p2.png").write_bytes(b"")
    with pytest.raises(ValueError, match=r"p2\.png cannot be read as .*data\.on_error: skip") as caught:
        batches(module(ImageFolder(folder), on_error="raise", num_workers=workers))
    assert "\n" not in str(caught.value)


def test_small_photographs(folder):
    with pytest.warns(UserWarning, match=r"p0\.png is smaller than the images asked for and was enlarged\."):
        (batch,) = batches(module(ImageFolder(folder), image_size=32, limit=1))
    assert batch.clean.shape == (1, 3, 32, 32)
    with pytest.warns(UserWarning, match=r"p0 \(number 0\) has 24×32 pixels, fewer than the 32×32"):
        assert batches(module(ImageFolder(folder), image_size=32, resize=False, limit=1)) == []


def test_sizes_that_the_operator_cannot_take(folder):
    data = module(ImageFolder(folder), image_size=18)
    with pytest.raises(ValueError, match="divisible by its factor 4, got 18×18"):
        data.setup("predict")
    picture(9, 20, 30).save(folder / "p9.png")
    with pytest.warns(UserWarning, match=r"p9 \(number 7\): .* got 20×30.* Or set data.multiple.*: left out"):
        assert [batch.index for batch in batches(module(ImageFolder(folder), image_size=None))] == [[0, 1, 2, 3], [4, 5, 6]]


def test_channels_that_the_operator_cannot_take(folder):
    with pytest.raises(ValueError, match="Colorization takes images of 3 channels, got 1"):
        module(ImageFolder(folder), Colorization(), channels=1).setup("predict")


def test_empty_source():
    with pytest.raises(ValueError, match="holds no photographs"):
        module(Numbers(0)).setup("predict")


@pytest.mark.parametrize(
    ("argument", "value"), [("image_size", 0), ("image_size", (8, 0)), ("multiple", 0), ("batch_size", 0), ("limit", 0)]
)
def test_numbers_out_of_range(argument, value):
    with pytest.raises(ValueError, match=f"{argument} must be 1 or more, got 0"):
        module(Numbers(1), **{argument: value})


def test_negative_noise():
    for wrong in (-0.1, math.nan, math.inf):
        with pytest.raises(ValueError, match=f"noise_std is a standard deviation, got {wrong}"):
            module(Numbers(1), noise_std=wrong)


# Under Lightning


def expected(case):
    if case == "one":
        return [0]
    return [index for index in range(3 if case == "nothing" else 7) if index not in DONE.get(case, ())]


@pytest.fixture
def one_process(folder, hub):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Lightning's own, about pytrees and about a run that has nothing to do
        return run(folder, hub, make_trainer(devices=1))


def test_predict_shows_every_image_once(one_process):
    for case, seen in one_process.items():
        assert sorted(row[0] for row in seen) == expected(case), case


def test_lightning_reads_past_a_length_that_turned_out_too_large(folder):
    for name in ("p1.png", "p2.png", "p5.png"):
        (folder / name).write_bytes(b"")
    data = module(ImageFolder(folder), batch_size=1)

    class Counter(pl.LightningModule):
        indices = ()

        def predict_step(self, batch):
            self.indices += tuple(batch.index)
            return torch.zeros(())

    counter = Counter()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        make_trainer(devices=1).predict(counter, datamodule=data)
    assert "3 photographs could not be used and were left out: 1, 2, 5." in [str(warning.message) for warning in caught]
    assert counter.indices == (0, 3, 4, 6)


@pytest.mark.slow
def test_two_processes_see_what_one_sees(folder, hub, one_process, tmp_path):
    environment = os.environ | {"OMP_NUM_THREADS": "1", "HF_DATASETS_CACHE": str(tmp_path / "cache"), "HF_HUB_OFFLINE": "1"}
    command = [sys.executable, "-m", "tests.data.two_processes", str(folder), str(hub), str(tmp_path)]
    subprocess.run(command, cwd=ROOT, env=environment, check=True, timeout=240)
    ranks = [json.loads((tmp_path / f"{rank}.json").read_text()) for rank in (0, 1)]
    for case, seen in one_process.items():
        together = sorted(ranks[0][case] + ranks[1][case])
        assert [row[0] for row in together] == expected(case), case
        for ours, theirs in zip(together, sorted(seen), strict=True):
            measured = ours.pop(3), theirs.pop(3)
            assert ours == theirs, case
            assert measured[0] == pytest.approx(measured[1], abs=1e-5), case
    # The cases were what they claim: both worked, and one of them had nothing to do.
    assert [len(rank["seven"]) for rank in ranks] == [4, 3]
    assert [len(rank["one"]) for rank in ranks] == [1, 0]
    assert [len(rank["resumed"]) for rank in ranks] == [1, 2]


class Scaled(LinearOperator):
    """Multiplies each signal by a factor of its own, which its file holds."""

    per_image = True

    def __init__(self, factor=None):
        super().__init__()
        self.factor = factor

    def forward(self, x):
        return x if self.factor is None else self.factor * x

    def of(self, name, parameters=None):
        return Scaled(parameters["factor"])


class Signals(Source):
    """Three signals (2, 5) of values in [0, 10], each with its factor."""

    units = Units(centre=5.0, scale=5.0)

    def __iter__(self):
        for index in range(3):
            values = Values(torch.full((2, 5), 2.5 * index), index, f"s{index}", {"factor": torch.tensor(index + 1.0)})
            yield Entry(index, f"signal {index}", lambda values=values: values, lambda index=index: bytes([index]))

    def __len__(self):
        return 3


@pytest.mark.parametrize("workers", [0, 1])
def test_arrays_of_each_image_reach_its_operator(workers):
    made = batches(RestorationDataModule(Signals(), Scaled(), batch_size=8, num_workers=workers))
    assert [batch.index for batch in made] == [[0], [1], [2]]
    for index, batch in enumerate(made):
        torch.testing.assert_close(batch.clean, torch.full((1, 2, 5), index / 2 - 1))
        torch.testing.assert_close(batch.measurement, (index + 1) * batch.clean)
        assert batch.noise.shape == (1, 2, 5)
        assert batch.operator.factor == index + 1


def test_given_measurements_of_values_become_those_of_images():
    (batch, *_) = batches(RestorationDataModule(Signals(), Scaled(), measurements=True))
    # w = 1 · v with v = 5 + 5 x, and so x = -1 where w = 0.
    torch.testing.assert_close(batch.measurement, torch.full((1, 2, 5), -1.0))
    assert batch.clean is None


def test_arrays_are_no_photographs():
    with pytest.raises(ValueError, match="holds arrays where photographs are wanted"):
        list(Signals().shard())


def test_parts_and_their_ranks_share_the_source(monkeypatch):
    seen = []
    for number, rank in itertools.product((1, 2, 3), (0, 1)):
        data = RestorationDataModule(Numbers(20), Denoising(), image_size=4, batch_size=2, part=f"{number}/3")
        data.trainer = SimpleNamespace(
            global_rank=rank, world_size=2, strategy=SimpleNamespace(root_device=torch.device("cpu"))
        )
        mine = [index for batch in data.predict_dataloader() for index in batch.indices]
        assert len(mine) in (3, 4)
        assert all(index % 3 == number - 1 for index in mine)
        seen += mine
    assert sorted(seen) == list(range(20))
