"""Run with `python -m tests.data.two_processes FOLDER HUB OUT`: predicts on two real processes and writes what each one saw."""

import json
import sys
from pathlib import Path

import lightning.pytorch as pl
import torch

from cclight.data.datamodule import Batch, RestorationDataModule
from cclight.data.huggingface import HFDataset
from cclight.data.sources import ImageFolder
from cclight.operators.pixelwise import AveragePooling

CASES = {
    "seven": {},
    "seven by four": {"batch_size": 4},
    "one": {"limit": 1},
    "nothing": {"limit": 3},  # and the three are done
    "resumed": {},
    "native size": {"image_size": None, "multiple": 8},
    "streamed": {},
    "workers": {"num_workers": 2},
    "streamed to workers": {"num_workers": 2},
}
DONE = {"nothing": {0, 1, 2}, "resumed": {0, 2, 4, 5}}


class Recorder(pl.LightningModule):
    """Notes what it is given, and nothing else."""

    def __init__(self):
        super().__init__()
        self.seen = []

    def predict_step(self, batch: Batch) -> None:
        for place, index in enumerate(batch.index):
            draws = torch.randn(2, generator=batch.generators[place])
            sums = [tensor[place].double().sum().item() for tensor in (batch.clean, batch.measurement, batch.noise)]
            self.seen.append([index, batch.name[place], *sums, *draws.tolist()])
        return torch.zeros(())


def run(folder: Path, hub: Path, trainer: pl.Trainer) -> dict[str, list]:
    """What this process sees in every case."""
    seen = {}
    for case, settings in CASES.items():
        source = (
            HFDataset(hub / "parquet", "validation", streaming=True) if case.startswith("streamed") else ImageFolder(folder)
        )
        arguments = {"image_size": 16, "batch_size": 3, "noise_std": 0.1, "seed": 5} | settings
        data = RestorationDataModule(source, AveragePooling(4), **arguments)
        data.skip = DONE.get(case, set())
        recorder = Recorder()
        trainer.predict(recorder, datamodule=data, return_predictions=False)
        seen[case] = recorder.seen
    return seen


def make_trainer(devices: int) -> pl.Trainer:
    """A trainer for so many processes of one machine's CPU."""
    return pl.Trainer(
        accelerator="cpu",
        devices=devices,
        strategy=pl.strategies.DDPStrategy(process_group_backend="gloo") if devices > 1 else "auto",
        inference_mode=False,
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )


if __name__ == "__main__":
    trainer = make_trainer(devices=2)
    seen = run(Path(sys.argv[1]), Path(sys.argv[2]), trainer)
    Path(sys.argv[3], f"{trainer.global_rank}.json").write_text(json.dumps(seen))
