"""How much time do files cost beside the network? `predict` from photographs to PNGs against the sampler's own time.

    python benchmarks/throughput.py FOLDER [--milliseconds 20] [--limit 24] [--size 256] [--batch-size 1] [--workers 0]

The network is a stand-in that waits, as a host waits for an accelerator: so many milliseconds for an image, in all its calls
together. The table shows the time an image takes to decode and to write where nothing else runs, the sampler's time within
`predict`, and `predict` with all of them at once; the last line is what the whole costs for each second of the sampler.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor

import cclight
from cclight import pipeline
from cclight.callbacks.images import ImageWriter
from cclight.callbacks.metrics import MetricsCallback
from cclight.data.sources import ImageFolder
from cclight.metrics.image import PSNR
from cclight.paths.gaussian import VPPath
from cclight.paths.parameterization import Epsilon
from cclight.runs.files import write_whole
from cclight.runs.folder import RunFolder
from cclight.runs.pictures import encode_picture, read_png

_STEPS = 4


class Waiting(cclight.Prior):
    """The noise is a tenth of what is seen, after a wait."""

    def __init__(self, milliseconds: float) -> None:
        super().__init__(VPPath(), Epsilon())
        self.milliseconds = milliseconds

    def forward(self, x_t: Tensor, t: Tensor) -> Tensor:
        """A tenth of x_t, (B, C, H, W)."""
        time.sleep(len(x_t) * self.milliseconds / 1000 / _STEPS)
        return 0.1 * x_t


class _Begin(Callback):
    at = 0.0

    def on_predict_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.at = time.perf_counter()


def measure(
    folder: str, milliseconds: float = 20, limit: int = 24, size: int = 256, batch_size: int = 1, workers: int = 0
) -> dict[str, float]:
    """Seconds an image takes, by stage: decode, write, sampler, predict."""
    operator = cclight.AveragePooling(4)
    data = cclight.RestorationDataModule(
        ImageFolder(folder), operator, image_size=size, batch_size=batch_size, num_workers=workers, limit=limit
    )
    model = cclight.Restorer(Waiting(milliseconds), cclight.Conjugate(steps=_STEPS), operator)
    with tempfile.TemporaryDirectory() as root:
        run, begin = RunFolder("throughput", root), _Begin()
        run.open("{}")
        trainer = Trainer(
            accelerator="auto", devices=1, logger=False, enable_checkpointing=False, enable_progress_bar=False,
            enable_model_summary=False, inference_mode=False, use_distributed_sampler=False, callbacks=[begin],
        )  # fmt: skip
        metrics = MetricsCallback(run, [PSNR()])
        pipeline.predict(model, data, [ImageWriter(run, grid=0), metrics], trainer)
        run.close()
        whole = time.perf_counter() - begin.at
        count = len(metrics.records)
        sampler = sum(record["seconds"] for record in metrics.records.values())
        decode = _seconds(lambda: [None for _ in data.predict_dataloader()])
        # What the three pictures of an image take where nothing else runs.
        pictures = [read_png(path) for path in sorted(run.path.glob("[crm]*/*.png"))]
        write = _seconds(lambda: [write_whole(Path(root) / "a.png", encode_picture(picture)) for picture in pictures])
    return {"decode": decode / count, "write": write / count, "sampler": sampler / count, "predict": whole / count}


def _seconds(work: Callable[[], object]) -> float:
    begin = time.perf_counter()
    work()
    return time.perf_counter() - begin


def main(arguments: Sequence[str] | None = None) -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", help="photographs")
    parser.add_argument("--milliseconds", type=float, default=20, help="of the network for an image")
    for name, default in (("limit", 24), ("size", 256), ("batch-size", 1), ("workers", 0)):
        parser.add_argument(f"--{name}", type=int, default=default)
    seconds = measure(**vars(parser.parse_args(arguments)))
    print("| stage | ms an image |\n|---|---|")
    for stage, value in seconds.items():
        print(f"| {stage} | {1000 * value:.1f} |")
    print(f"\npredict / sampler: {seconds['predict'] / seconds['sampler']:.2f}")


if __name__ == "__main__":
    main()
