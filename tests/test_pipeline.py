"""The one way through: what sinks are given, and that their order does not matter."""

from __future__ import annotations

import itertools
import os
import threading

import numpy as np
import pytest
from lightning.pytorch import Trainer
from lightning.pytorch.loggers import CSVLogger
from PIL import Image

from cclight import (
    MSSSIM,
    PSNR,
    BicubicDownsampling,
    Conjugate,
    ImageFolder,
    OTPath,
    Prior,
    RestorationDataModule,
    Restorer,
    SmallPrior,
    Velocity,
    pipeline,
)
from cclight.callbacks.images import ImageWriter
from cclight.callbacks.metrics import MetricsCallback
from cclight.callbacks.sink import Sink
from cclight.callbacks.tensorboard import TensorBoardLog
from cclight.errors import RunError
from cclight.runs.folder import RunFolder
from cclight.runs.results import Run


class Notes(Sink):
    """What a sink saw, and whether the others were done by the time it received the results."""

    def __init__(self, run: RunFolder) -> None:
        self.run = run
        self.seen: list[int] = []
        self.received: list[tuple[Run, bool]] = []

    def on_predict_batch_end(self, trainer, pl_module, outputs, batch, batch_idx, dataloader_idx=0):
        self.seen += outputs.index

    def receive(self, results):
        self.received.append((results, (self.run.path / "grid.png").is_file()))


def restore(folder, sinks, prior=None):
    operator = BicubicDownsampling(4)
    model = Restorer(prior or SmallPrior(), Conjugate(steps=2), operator)
    data = RestorationDataModule(ImageFolder(folder), operator, image_size=32, batch_size=2)
    trainer = Trainer(accelerator="cpu", logger=False, enable_progress_bar=False, enable_checkpointing=False)
    return pipeline.predict(model, data, sinks, trainer)


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "photos").mkdir()
    for number in range(3):
        pixels = np.random.default_rng(number).integers(0, 256, (32, 32, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / "photos" / f"p{number}.png")
    return tmp_path / "photos"


@pytest.mark.parametrize("order", list(itertools.permutations(range(3))))
def test_sinks_do_not_depend_on_their_order(folder, tmp_path, order):
    run = RunFolder("run", root=str(tmp_path))
    run.open("a: 1")
    sinks = [MetricsCallback(run, [PSNR()]), ImageWriter(run), notes := Notes(run)]
    results = restore(folder, [sinks[place] for place in order])
    run.close()
    assert notes.seen == [0, 1, 2]
    assert notes.received == [(results, True)]
    # What is handed on is what a reader of the folder finds.
    read = Run.read(run.path)
    assert (results.path, results.summary, results.records, results.config) == (run.path, read.summary, read.records, {"a": 1})
    assert len(list((run.path / "restored").iterdir())) == 3


def test_without_pictures_and_without_records(folder, tmp_path):
    run = RunFolder("run", root=str(tmp_path))
    run.open("a: 1")
    results = restore(folder, [MetricsCallback(run, [PSNR()])])
    run.close()
    assert results is not None
    assert len(results.values("psnr")) == 3
    assert not list(tmp_path.rglob("run/**/*.png"))
    notes = Notes(run)
    assert restore(folder, [notes]) is None
    assert (notes.seen, notes.received) == ([0, 1, 2], [])


@pytest.mark.parametrize("workers", [0, 1])
def test_a_picture_that_the_prior_cannot_take_is_left_out_and_the_others_restored(folder, tmp_path, workers):
    Image.new("RGB", (36, 32)).save(folder / "p1.png")
    operator = BicubicDownsampling(4)
    run = RunFolder("run", root=str(tmp_path))
    run.open("a: 1")

    def predict(on_error):
        model = Restorer(SmallPrior(), Conjugate(steps=2), operator)
        data = RestorationDataModule(ImageFolder(folder), operator, image_size=None, num_workers=workers, on_error=on_error)
        trainer = Trainer(accelerator="cpu", logger=False, enable_progress_bar=False, enable_checkpointing=False)
        return pipeline.predict(model, data, [MetricsCallback(run, [PSNR()])], trainer)

    with pytest.raises(ValueError, match=r"p1 \(number 1\): SmallPrior .*32×36.*set data\.multiple"):
        predict("raise")
    with pytest.warns(UserWarning, match=r"p1 \(number 1\): SmallPrior .*32×36.*set data\.multiple.*: left out"):
        results = predict("skip")
    run.close()
    assert results is not None
    assert list(results.records) == [0, 2]
    assert [left["index"] for left in results.summary["left_out"]] == [1]


class Calls(Prior):
    """A network that counts its calls."""

    def __init__(self) -> None:
        super().__init__(OTPath(), Velocity())
        self.count = 0
        self.second_batch = threading.Event()

    def forward(self, x_t, t):
        self.count += 1
        if self.count > 2:
            self.second_batch.set()
        return 0.5 * x_t


class Late(PSNR):
    """A metric that takes until the second batch is in the network, or fails: at once, or once the network has been called."""

    def __init__(self, calls: Calls, fails: bool = False, late: bool = False) -> None:
        self.calls = calls
        self.fails = fails
        self.late = late

    def measure(self, restored, clean):
        if self.fails and (self.calls.count or not self.late):
            raise RuntimeError("the metric broke")
        assert self.fails or not self.calls.count or self.calls.second_batch.wait(20)
        return super().measure(restored, clean)


def test_the_next_batch_is_restored_while_the_last_one_is_measured(folder, tmp_path):
    run, prior = RunFolder("run", root=str(tmp_path)), Calls()
    run.open("a: 1")
    results = restore(folder, [ImageWriter(run), MetricsCallback(run, [Late(prior)])], prior)
    run.close()
    assert len(results.values("psnr")) == 3


def test_a_metric_that_breaks_does_so_before_the_first_call(folder, tmp_path):
    run, prior = RunFolder("run", root=str(tmp_path)), Calls()
    run.open("a: 1")
    with pytest.raises(RuntimeError, match="the metric broke"):
        restore(folder, [MetricsCallback(run, [Late(prior, fails=True)])], prior)
    assert prior.count == 0


def test_a_metric_of_larger_images_is_told_of_before_the_first_call(folder, tmp_path):
    run, prior = RunFolder("run", root=str(tmp_path)), Calls()
    run.open("a: 1")
    told = []
    prior.register_forward_pre_hook(lambda *_: told.append(len(caught)))
    with pytest.warns(UserWarning, match="MS-SSIM is unavailable: MS-SSIM needs sides of 176 pixels or more") as caught:
        results = restore(folder, [MetricsCallback(run, [PSNR(), MSSSIM()])], prior)
    run.close()
    assert told[0] > 0
    assert "176" in results.metrics["ms_ssim"]["unavailable"]
    assert results.metrics["psnr"]["images"] == 3


def test_a_configuration_that_nobody_could_read_is_refused_before_anything_is_made(tmp_path):
    with pytest.raises(ValueError, match=r"`key: value` lines of YAML, got '- 1'"):
        RunFolder("run", root=str(tmp_path)).open("- 1")


def test_a_file_name_that_is_no_text_does_not_spoil_the_end(folder, tmp_path):
    try:
        (folder / os.fsdecode(b"bad\xff.png")).write_bytes(b"no picture")
    except OSError:
        pytest.skip("this file system takes names of text alone")
    run = RunFolder("run", root=str(tmp_path))
    run.open("a: 1")
    with pytest.warns(UserWarning, match="left out"):
        results = restore(folder, [MetricsCallback(run, [PSNR()])])
    run.close()
    assert results.summary["images"] == 3
    assert "bad\\udcff.png" in Run.read(run.path).summary["left_out"][0]["reason"]


def test_a_logger_that_cannot_write_is_refused_before_the_first_call(folder, tmp_path):
    (tmp_path / "file").touch()
    run, prior = RunFolder("run", root=str(tmp_path)), Calls()
    run.open("a: 1")
    log = TensorBoardLog([CSVLogger(str(tmp_path / "file" / "logs"))])
    with pytest.raises(RunError, match=r"CSVLogger cannot write into .*file/logs: set trainer\.logger"):
        restore(folder, [MetricsCallback(run, [PSNR()]), log], prior)
    assert prior.count == 0


def test_what_a_metric_raises_ends_the_run_and_its_image_is_not_finished(folder, tmp_path):
    run, prior = RunFolder("run", root=str(tmp_path)), Calls()
    run.open("a: 1")
    with pytest.raises(RuntimeError, match="the metric broke"):
        restore(folder, [ImageWriter(run), MetricsCallback(run, [Late(prior, fails=True, late=True)])], prior)
    run.abandon()
    assert not run.path.exists()
