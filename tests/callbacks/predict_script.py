"""A whole prediction in a script that a test starts as a process: real Trainer, data module, run folder and callbacks.

Only the restoration is a stand-in: H⁺y plus a little noise of the image's own, so that its numbers are known to every test.
"""

import argparse
import json
import os
import signal
import sys
import time

import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.utilities.rank_zero import rank_zero_only

from cclight.callbacks.images import ImageWriter
from cclight.callbacks.metrics import MetricsCallback
from cclight.callbacks.resume import Resume
from cclight.callbacks.table import SummaryTable
from cclight.data.datamodule import RestorationDataModule
from cclight.data.sources import ImageFolder
from cclight.metrics import LPIPS, PSNR, SSIM
from cclight.operators.pixelwise import AveragePooling
from cclight.restorer import Restored
from cclight.runs import RunError, RunFolder


class PseudoinverseRestorer(LightningModule):
    """x̂ = H⁺y + 0.05 n_i, n_i seeded by the image's index; NaN for some, a long time or a kill where the test wants one."""

    def __init__(self, options):
        super().__init__()
        self.operator = AveragePooling(2)
        self.options = options
        self.restored_here = []

    def predict_step(self, batch, batch_idx):
        image = self.operator.pinv(batch.measurement)
        for place, index in enumerate(batch.index):
            if index == self.options.kill_at and self.global_rank == self.options.kill_rank:
                os.kill(os.getpid(), signal.SIGKILL)
            noise = torch.randn(image.shape[1:], generator=torch.Generator().manual_seed(index))
            image[place] += float("nan") if index in self.options.nan else 0.05 * noise
        time.sleep(self.options.pause)
        image = image.clamp(-1, 1)
        residual = self.operator(image) - batch.measurement
        self.restored_here += batch.index
        return Restored(
            image=image,
            nfe=5,
            seconds=0.25,
            consistency=residual.square().flatten(1).mean(1).sqrt(),
            finite=image.isfinite().flatten(1).all(1),
            index=batch.index,
            name=batch.name,
        )


def arguments():
    parser = argparse.ArgumentParser()
    parser.add_argument("photographs")
    parser.add_argument("root")
    parser.add_argument("--devices", type=int, default=1)
    parser.add_argument("--batch-size", type=int, default=3)
    parser.add_argument("--config", default="seed: 0")
    parser.add_argument("--nan", type=json.loads, default=[])
    parser.add_argument("--kill-at", type=int, default=-1)
    parser.add_argument("--kill-rank", type=int, default=0)
    parser.add_argument("--pause", type=float, default=0.0)
    parser.add_argument("--lpips", action="store_true")
    parser.add_argument("--measurements", action="store_true")
    parser.add_argument("--overwrite", action="store_true")
    parser.add_argument("--resume", action="store_true")
    return parser.parse_args()


def main():
    options = arguments()
    run = RunFolder("run", root=options.root, overwrite=options.overwrite, resume=options.resume)
    if rank_zero_only.rank == 0:
        run.open(options.config)
    metrics = MetricsCallback(run, per_image=[PSNR(), SSIM(), *([LPIPS("squeeze")] if options.lpips else [])])
    trainer = Trainer(
        accelerator="cpu",
        devices=options.devices,
        strategy="ddp" if options.devices > 1 else "auto",
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        inference_mode=False,
        callbacks=[Resume(run), ImageWriter(run, grid=3), metrics, SummaryTable(run)],
    )
    model = PseudoinverseRestorer(options)
    data = RestorationDataModule(
        ImageFolder(options.photographs),
        model.operator,
        image_size=16,
        batch_size=options.batch_size,
        measurements=options.measurements,
    )
    trainer.predict(model, datamodule=data, return_predictions=False)
    print(f"rank {trainer.global_rank} restored {sorted(model.restored_here)}")


if __name__ == "__main__":
    torch.set_num_threads(1)
    try:
        main()
    except RunError as error:
        sys.exit(f"error: {error}")
