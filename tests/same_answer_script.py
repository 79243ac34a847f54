"""Every sampler restores the same photographs in one process, or in two under DDP; the floats and the metrics are written down.

A script that tests/test_same_answer.py starts: all samplers share a process, because most of a run this small is imports.
"""

import sys
from pathlib import Path

import torch
from lightning.pytorch import Callback, Trainer

import cclight
from cclight import PSNR, SSIM, BicubicDownsampling, ImageFolder, RestorationDataModule, Restorer, SmallPrior
from cclight.callbacks.images import ImageWriter
from cclight.callbacks.metrics import MetricsCallback
from cclight.runs.folder import RunFolder

SAMPLERS = {
    "conjugate": ("Conjugate", {}),
    "conjugate-order-2": ("Conjugate", {"order": 2}),
    "conjugate-churn": ("Conjugate", {"churn": 0.5}),
    "conjugate-no-vjp": ("Conjugate", {"jacobian": "none"}),
    "heun": ("ConjugateHeun", {}),
    "moments": ("ConjugateMoments", {}),
    "tilt": ("ConjugateTilt", {}),
    "pigdm": ("PiGDM", {}),
    "dps": ("DPS", {}),
    "ddnm": ("DDNM", {}),
    "ddrm": ("DDRM", {}),
    "diffpir": ("DiffPIR", {}),
    "reddiff": ("REDDiff", {}),
    "otode": ("OTODE", {}),
    "pnpflow": ("PnPFlow", {}),
}


class Keep(Callback):
    """Writes each restoration's floats under its index."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def on_predict_batch_end(self, trainer, module, outputs, batch, batch_idx, dataloader_idx=0):
        self.folder.mkdir(parents=True, exist_ok=True)
        for index, image in zip(outputs.index, outputs.image, strict=True):
            with open(self.folder / f"{index}.pt", "xb") as file:  # x: no image is restored twice
                torch.save(image.clone(), file)


def main(photographs: str, weights: str, root: str, batch_size: int, devices: int) -> None:
    torch.set_num_threads(1)
    for name, (sampler, options) in SAMPLERS.items():
        flow = sampler in ("OTODE", "PnPFlow")
        path, output = (cclight.OTPath(), cclight.Velocity()) if flow else (cclight.VPPath(), cclight.Epsilon())
        prior = SmallPrior(weights, path, output)
        if sampler == "ConjugateTilt":  # it takes no trained network
            means = 0.3 * torch.randn(4, 3, 32, 32, generator=torch.Generator().manual_seed(0))
            prior = cclight.GaussianMixture(means, torch.full((4,), 0.1)).float()
        operator = BicubicDownsampling(4)
        run = RunFolder(name, root)
        trainer = Trainer(
            accelerator="cpu",
            devices=devices,
            strategy="ddp" if devices > 1 else "auto",
            logger=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            inference_mode=False,
            use_distributed_sampler=False,
            callbacks=[
                ImageWriter(run, grid=0),
                MetricsCallback(run, [PSNR(), SSIM()]),
                Keep(Path(root, name, "floats")),
            ],
        )
        if trainer.global_rank == 0:
            run.open(f"sampler: {name}")
        model = Restorer(prior, getattr(cclight, sampler)(steps=3, **options), operator, noise_std=0.05)
        data = RestorationDataModule(
            ImageFolder(photographs), operator, noise_std=0.05, image_size=32, batch_size=batch_size, seed=3
        )
        trainer.predict(model, datamodule=data, return_predictions=False)
        run.close()


if __name__ == "__main__":
    main(*sys.argv[1:4], *map(int, sys.argv[4:]))
