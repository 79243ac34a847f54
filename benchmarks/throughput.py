"""How much time do files cost beside the network? `predict` from photographs to PNGs against the sampler's own time.

    python benchmarks/throughput.py FOLDER [--milliseconds 20] [--limit 24] [--size 256] [--batch-size 1] [--workers 0]
                                    [--repeats 3]

The network is a stand-in that waits, as a host waits for an accelerator: so many milliseconds for an image, in all its calls
together. The table shows what an image takes to decode, to write and to restore where nothing else runs, what `predict` takes
with all of them at once, and of it the processor's time that the main thread spends on anything but the sampler: where cores
are free that is all that files cost. The least of some repeats, for other programs only ever add to a time; the last line is
what the whole costs for each second of the sampler.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from lightning.fabric.utilities import move_data_to_device
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor

import cclight
from cclight import pipeline
from cclight.callbacks.images import ImageWriter
from cclight.callbacks.metrics import MetricsCallback
from cclight.data.loader import Decoded
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


class _Clock(Callback):
    """Processor's time of the main thread and time, of the whole from its first batch on, and of the sampler."""

    def __init__(self) -> None:
        self.whole = self.sampler = (0.0, 0.0)

    def on_predict_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.begun = _now()
        restore = pl_module.predict_step

        def timed(*batch: object) -> object:
            begun = _now()
            try:
                return restore(*batch)
            finally:
                self.sampler = tuple(map(sum, zip(self.sampler, _since(begun), strict=True)))

        pl_module.predict_step = timed  # type: ignore[method-assign]


def _now() -> tuple[float, float]:
    return time.thread_time(), time.perf_counter()


def _since(begun: tuple[float, float]) -> tuple[float, float]:
    return time.thread_time() - begun[0], time.perf_counter() - begun[1]


def measure(
    folder: str, milliseconds: float = 20, limit: int = 24, size: int = 256, batch_size: int = 1, workers: int = 0
) -> dict[str, float]:
    """Seconds an image takes, by stage: decode, write, sampler, predict, main thread."""
    operator = cclight.AveragePooling(4)
    data = cclight.RestorationDataModule(
        ImageFolder(folder), operator, image_size=size, batch_size=batch_size, num_workers=workers, limit=limit
    )
    model = cclight.Restorer(Waiting(milliseconds), cclight.Conjugate(steps=_STEPS), operator)
    with tempfile.TemporaryDirectory() as root:
        run, clock = RunFolder("throughput", root), _Clock()
        run.open("{}")
        trainer = Trainer(
            accelerator="auto", devices=1, logger=False, enable_checkpointing=False, enable_progress_bar=False,
            enable_model_summary=False, inference_mode=False, use_distributed_sampler=False, callbacks=[clock],
        )  # fmt: skip
        metrics = MetricsCallback(run, [PSNR()])
        pipeline.predict(model, data, [ImageWriter(run, grid=0), metrics], trainer)
        run.close()
        whole, beside = _since(clock.begun), clock.sampler
        count = len(metrics.records)
        decoded: list[Decoded] = []
        decode = _seconds(lambda: decoded.extend(data.predict_dataloader()))
        device = trainer.strategy.root_device
        batches = [data.on_after_batch_transfer(move_data_to_device(batch, device), 0) for batch in decoded]
        sampler = _seconds(lambda: [model.predict_step(batch, 0) for batch in batches])
        # What the three pictures of an image take where nothing else runs.
        pictures = [read_png(path) for path in sorted(run.path.glob("[crm]*/*.png"))]
        write = _seconds(lambda: [write_whole(Path(root) / "a.png", encode_picture(picture)) for picture in pictures])
    seconds = {"decode": decode, "write": write, "sampler": sampler, "predict": whole[1]}
    seconds["main thread beside the sampler"] = whole[0] - beside[0]
    return {stage: value / count for stage, value in seconds.items()}


def _seconds(work: Callable[[], object]) -> float:
    begin = time.perf_counter()
    work()
    return time.perf_counter() - begin


def main(arguments: Sequence[str] | None = None) -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", help="photographs")
    parser.add_argument("--milliseconds", type=float, default=20, help="of the network for an image")
    for name, default in (("limit", 24), ("size", 256), ("batch-size", 1), ("workers", 0), ("repeats", 3)):
        parser.add_argument(f"--{name}", type=int, default=default)
    chosen = vars(parser.parse_args(arguments))
    runs = [measure(**chosen) for _ in range(chosen.pop("repeats"))]
    seconds = {stage: min(run[stage] for run in runs) for stage in runs[0]}
    print("| stage | ms an image |\n|---|---|")
    for stage, value in seconds.items():
        print(f"| {stage} | {1000 * value:.1f} |")
    print(f"\npredict / sampler: {seconds['predict'] / seconds['sampler']:.2f}")


if __name__ == "__main__":
    main()
