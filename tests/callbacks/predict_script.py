"""A whole prediction in a script that a test starts as a process: real Trainer, data module, run folder and callbacks.

Only the restoration is a stand-in: H⁺y plus a little noise of the image's own, so that its numbers are known to every test.
"""

import argparse
import json
import os
import resource
import signal
import sys
import threading
import time

import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.utilities.rank_zero import rank_zero_only
from torch import nn

from cclight import pipeline
from cclight.callbacks.images import ImageWriter
from cclight.callbacks.metrics import MetricsCallback
from cclight.callbacks.table import SummaryTable
from cclight.data.datamodule import RestorationDataModule
from cclight.data.sources import ImageFolder
from cclight.errors import RunError
from cclight.metrics.fid import FeatureDistances
from cclight.metrics.image import LPIPS, PSNR, SSIM
from cclight.metrics.perceptual import PerceptualMap
from cclight.metrics.quantity import Unavailable
from cclight.operators.pixelwise import AveragePooling
from cclight.restorer import Restored
from cclight.runs.folder import RunFolder


class PseudoinverseRestorer(LightningModule):
    """x̂ = H⁺y + 0.05 n_i, n_i seeded by the image's index; NaN for some, a long time or a kill where the test wants one."""

    def __init__(self, options):
        super().__init__()
        self.operator = AveragePooling(2)
        self.options = options
        self.restored_here = []

    def predict_step(self, batch, batch_idx):
        if batch_idx == 0 and self.options.kill_after and self.global_rank == self.options.kill_rank:
            threading.Timer(self.options.kill_after, os.kill, (os.getpid(), signal.SIGKILL)).start()
        image = self.operator.pinv(batch.measurement)
        for place, (index, sample) in enumerate(zip(batch.index, batch.sample, strict=True)):
            if index == self.options.kill_at and self.global_rank == self.options.kill_rank:
                os.kill(os.getpid(), signal.SIGKILL)
            noise = torch.randn(image.shape[1:], generator=torch.Generator().manual_seed(index + 1000 * sample))
            image[place] += float("nan") if index in self.options.nan else 0.05 * noise
        time.sleep(self.options.pause)
        while self.options.hold and batch_idx > 0 and not os.path.exists(self.options.hold):
            time.sleep(0.05)
        image = image.clamp(-1, 1)
        residual = self.operator(image) - batch.measurement
        several = self.options.samples > 1
        self.restored_here += list(map(list, zip(batch.index, batch.sample, strict=True))) if several else batch.index
        return Restored(
            image=image,
            nfe=5,
            seconds=0.25,
            consistency=residual.square().flatten(1).mean(1).sqrt(),
            finite=image.isfinite().flatten(1).all(1),
            index=batch.index,
            name=batch.name,
            sample=batch.sample,
        )


class Colours(nn.Module):
    """Features for FID and KID: the mean and the spread of each colour. One rank may lack them."""

    def __init__(self, unavailable_on=-1):
        super().__init__()
        self.unavailable_on = unavailable_on

    def forward(self, images):
        if self.unavailable_on == rank_zero_only.rank:
            raise Unavailable("this rank has no weights")
        pixels = images.double().flatten(2)
        return torch.cat([pixels.mean(-1), pixels.std(-1)], dim=1).float()


def arguments(line=None):
    parser = argparse.ArgumentParser()
    parser.add_argument("photographs")
    parser.add_argument("root")
    parser.add_argument("--devices", type=int, default=1)
    parser.add_argument("--batch-size", type=int, default=3)
    parser.add_argument("--image-size", type=int, default=16)
    parser.add_argument("--config", default="seed: 0")
    parser.add_argument("--nan", type=json.loads, default=[])
    parser.add_argument("--kill-at", type=int, default=-1)
    parser.add_argument("--kill-after", type=float, default=0.0)  # seconds after this rank's first batch
    parser.add_argument("--kill-rank", type=int, default=0)
    parser.add_argument("--samples", type=int, default=1)
    parser.add_argument("--grid", type=int, default=3)
    parser.add_argument("--unavailable-on", type=int, default=-1)
    parser.add_argument("--hold", default="")  # a file to wait for, after the first batch
    parser.add_argument("--pause", type=float, default=0.0)
    parser.add_argument("--limit-batches", type=json.loads, default=1.0)
    parser.add_argument("--file-size-limit", type=int, default=0)
    for flag in ("lpips", "maps", "distances", "measurements", "overwrite", "resume"):
        parser.add_argument(f"--{flag}", action="store_true")
    return parser.parse_args(line)


def predict(options):
    """Run it; returns the run folder, the metrics callback and the indices restored by this process."""
    run = RunFolder("run", root=options.root, overwrite=options.overwrite, resume=options.resume)
    if rank_zero_only.rank == 0:
        run.open(f"{options.config}\nsamples: {options.samples}" if options.samples > 1 else options.config)
    if options.file_size_limit:
        resource.setrlimit(resource.RLIMIT_FSIZE, (options.file_size_limit, options.file_size_limit))
    per_image = [PSNR(), SSIM(), *([LPIPS("squeeze")] if options.lpips else [])]
    distances = (
        FeatureDistances(Colours(options.unavailable_on), kid_subset_size=5, kid_subsets=10) if options.distances else None
    )
    metrics = MetricsCallback(run, per_image, distances)
    trainer = Trainer(
        accelerator="cpu",
        devices=options.devices,
        strategy="ddp" if options.devices > 1 else "auto",
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        inference_mode=False,
        use_distributed_sampler=False,
        limit_predict_batches=options.limit_batches,
    )
    images = ImageWriter(run, options.grid, PerceptualMap() if options.maps else None)
    model = PseudoinverseRestorer(options)
    data = RestorationDataModule(
        ImageFolder(options.photographs),
        model.operator,
        image_size=options.image_size,
        batch_size=options.batch_size,
        measurements=options.measurements,
        samples=options.samples,
    )
    try:
        pipeline.predict(model, data, [SummaryTable(), metrics, images], trainer)
    finally:
        run.close()
    print(f"rank {trainer.global_rank} restored {sorted(model.restored_here)}")
    return run, metrics, sorted(model.restored_here)


if __name__ == "__main__":
    torch.set_num_threads(1)
    try:
        predict(arguments())
    except RunError as error:
        sys.exit(f"error: {error}")
