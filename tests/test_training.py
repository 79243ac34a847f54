"""`cclight fit`'s training: it learns, resumes where it stopped, and exports its averaged weights."""

from __future__ import annotations

from pathlib import Path

import lightning.pytorch as pl
import numpy as np
import pytest
import torch
from lightning.pytorch.callbacks import EMAWeightAveraging, ModelCheckpoint
from PIL import Image

from cclight import ImageFolder, PatchDataModule, PriorTrainer, SmallPrior
from cclight.data.patches import Patches
from cclight.training import export, weighted_error
from tests.priors.test_small import random_network


@pytest.fixture
def folder(tmp_path) -> Path:
    """Six smooth pictures."""
    rng = np.random.default_rng(0)
    (tmp_path / "pictures").mkdir()
    for i in range(6):
        small = Image.fromarray(rng.integers(0, 256, (5, 6, 3), dtype=np.uint8))
        small.resize((60, 50), Image.Resampling.BICUBIC).save(tmp_path / "pictures" / f"{i}.png")
    return tmp_path / "pictures"


class StopAt(pl.Callback):
    """Ends a training early, as a kill between two steps would."""

    def __init__(self, step: int) -> None:
        self.step = step

    def on_train_batch_end(self, trainer: pl.Trainer, *_: object) -> None:
        trainer.should_stop = trainer.global_step >= self.step


def fit(folder: Path, run: Path, ckpt_path: str | None = None, stop_at: int = 40) -> dict[str, torch.Tensor]:
    """Train for 40 steps and return the averaged weights."""
    trainer = pl.Trainer(
        max_steps=40,
        max_epochs=-1,
        accelerator="cpu",
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        callbacks=[
            EMAWeightAveraging(decay=0.9),
            ModelCheckpoint(dirpath=run, save_last=True, every_n_train_steps=20),
            StopAt(stop_at),
        ],
    )
    pl.seed_everything(0, verbose=False)
    model = PriorTrainer(warm_start=None, widths=(8, 12), depths=(1, 1), learning_rate=3e-3, warmup_steps=5)
    data = PatchDataModule(ImageFolder(str(folder)), ImageFolder(str(folder)), patch_size=32, batch_size=8)
    trainer.fit(model, data, ckpt_path=ckpt_path, weights_only=True)
    return torch.load(run / "last.ckpt", weights_only=True)["state_dict"]


def test_it_learns_and_exports(folder, tmp_path):
    trained = fit(folder, tmp_path / "run")
    weights = export(str(tmp_path / "run" / "last.ckpt"), str(tmp_path / "small.safetensors"))
    prior = SmallPrior(weights=str(weights))
    for key, value in prior.network.state_dict().items():
        torch.testing.assert_close(value, trained[f"network.{key}"].half().float())
    clean = torch.cat([Patches([_tensor(path)], 32, 1, 0.0, 0, 0).batch(0) for path in sorted(folder.iterdir())])
    noise = torch.randn(clean.shape, generator=torch.Generator().manual_seed(0))
    ratio = torch.full((len(clean),), 0.5)
    untrained = PriorTrainer(warm_start=None, widths=(8, 12), depths=(1, 1)).network
    before = weighted_error(untrained, clean, noise, ratio).mean()
    assert weighted_error(prior.network, clean, noise, ratio).mean() < 0.8 * before


def _tensor(path: Path) -> torch.Tensor:
    return torch.from_numpy(np.array(Image.open(path))).permute(2, 0, 1)


def test_a_resumed_training_ends_where_an_unbroken_one_does(folder, tmp_path):
    unbroken = fit(folder, tmp_path / "unbroken")
    half = fit(folder, tmp_path / "resumed", stop_at=20)
    assert any(not torch.equal(half[key], unbroken[key]) for key in unbroken)
    resumed = fit(folder, tmp_path / "resumed", str(tmp_path / "resumed" / "last.ckpt"))
    for key, value in unbroken.items():
        torch.testing.assert_close(resumed[key], value, rtol=1e-5, atol=1e-6)


def test_patches_depend_on_the_seed_and_the_batch_alone():
    rng = np.random.default_rng(0)
    images = [torch.from_numpy(rng.integers(0, 256, (3, 40 + i, 50), dtype=np.uint8)) for i in range(3)]
    stream = iter(Patches(images, 32, 4, 0.2, seed=1, first=0))
    third = [next(stream) for _ in range(3)][2]
    torch.testing.assert_close(next(iter(Patches(images, 32, 4, 0.2, seed=1, first=2))), third, rtol=0, atol=0)
    assert not torch.equal(next(iter(Patches(images, 32, 4, 0.2, seed=2, first=2))), third)
    assert third.shape == (4, 3, 32, 32)
    assert third.abs().max() <= 1


def test_some_patches_are_grey():
    images = [torch.from_numpy(np.random.default_rng(0).integers(0, 256, (3, 40, 40), dtype=np.uint8))]
    batch = Patches(images, 32, 64, 0.5, seed=0, first=0).batch(0)
    grey = (batch[:, :1] == batch).flatten(1).all(1)
    assert 10 < int(grey.sum()) < 54


def test_photographs_smaller_than_a_patch_are_refused(folder):
    data = PatchDataModule(ImageFolder(str(folder)), patch_size=64)
    with pytest.raises(ValueError, match="holds no photograph of at least 64×64 pixels"):
        data.setup("fit")


def test_an_untrained_network_has_an_error_of_about_one():
    network = random_network()
    torch.nn.init.zeros_(network.head.weight)
    torch.nn.init.zeros_(network.head.bias)
    generator = torch.Generator().manual_seed(0)
    clean = 0.5 * torch.randn(64, 3, 16, 16, generator=generator)
    for value in (0.01, 0.5, 50.0):
        noise = torch.randn(clean.shape, generator=generator)
        error = weighted_error(network, clean, noise, torch.full((64,), value)).mean()
        torch.testing.assert_close(error, torch.tensor(1.0), rtol=0.02, atol=0)


def test_foreign_checkpoints_are_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"No checkpoint at .*none\.ckpt: `cclight fit` leaves last\.ckpt"):
        export(str(tmp_path / "none.ckpt"), str(tmp_path / "out.safetensors"))
    torch.save({"state_dict": {}}, tmp_path / "foreign.ckpt")
    with pytest.raises(ValueError, match="is no checkpoint of `cclight fit`"):
        export(str(tmp_path / "foreign.ckpt"), str(tmp_path / "out.safetensors"))
    assert not (tmp_path / "out.safetensors").exists()
