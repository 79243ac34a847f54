"""`cclight fit`'s training: it learns, resumes where it stopped, and exports its averaged weights."""

from __future__ import annotations

import sys
import zlib
from pathlib import Path

import lightning.pytorch as pl
import numpy as np
import pytest
import torch
from lightning.pytorch.callbacks import EMAWeightAveraging, ModelCheckpoint
from PIL import Image

from cclight import ImageFolder, PatchDataModule, PriorTrainer, SmallPrior
from cclight.data.noise import training_generator
from cclight.data.patches import Photographs
from cclight.training import VALIDATION_RATIOS, export, weighted_error
from tests import processes
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
    clean = torch.stack([_tensor(path)[:, :48, :48] for path in sorted(folder.iterdir())]).float() / 127.5 - 1
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


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def photographs(*sizes: tuple[int, int]) -> list[torch.Tensor]:
    rng = np.random.default_rng(0)
    return [torch.from_numpy(rng.integers(0, 256, (3, *size), dtype=np.uint8)) for size in sizes]


def test_patches_are_pieces_of_the_photographs_or_their_mirror_images():
    images = photographs((40, 50), (41, 37), (48, 40))
    seen = set()
    for seed in range(8):
        patches = Photographs(images).patches(32, 4, 0.0, generator(seed))
        assert patches.shape == (4, 3, 32, 32)
        assert patches.abs().max() <= 1
        if torch.rand(2, generator=generator(seed))[0] < 0.5:
            continue  # scaled down
        for patch in patches:
            found = [
                (place, mirrored)
                for place, image in enumerate(images)
                for mirrored in (False, True)
                for window in [image.unfold(1, 32, 1).unfold(2, 32, 1).permute(1, 2, 0, 3, 4).flatten(0, 1)]
                if ((window.flip(-1) if mirrored else window) == ((patch + 1) * 127.5).round()).flatten(1).all(1).any()
            ]
            assert len(found) == 1
            seen.add(found[0])
    assert len(seen) >= 5  # every photograph, and both ways round


def test_some_patches_are_grey():
    batch = Photographs(photographs((40, 40))).patches(32, 64, 0.5, generator())
    grey = (batch[:, :1] == batch).flatten(1).all(1)
    assert 10 < int(grey.sum()) < 54


class Draws(pl.Callback):
    """What a training saw: a hash of each batch's patches and of the network's first input, which holds its noise."""

    def __init__(self) -> None:
        self.seen: list[tuple[int, int]] = []

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        pl_module.network.register_forward_pre_hook(self._keep)

    def on_train_batch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: tuple, batch_idx: int) -> None:
        self.patches = zlib.crc32(batch[0].numpy().tobytes())

    def _keep(self, module: torch.nn.Module, inputs: tuple[torch.Tensor, torch.Tensor]) -> None:
        if module.training:
            self.seen.append((self.patches, zlib.crc32(inputs[0].detach().numpy().tobytes())))


def draws(folder: Path, run: Path, steps: int, ckpt_path: str | None = None, **trainer: object) -> list[tuple[int, int]]:
    watch = Draws()
    options = {"accelerator": "cpu", "logger": False, "enable_progress_bar": False, "enable_model_summary": False}
    callbacks = [watch, ModelCheckpoint(dirpath=run, save_last=True, every_n_train_steps=1)]
    training = pl.Trainer(max_steps=steps, max_epochs=-1, callbacks=callbacks, **options, **trainer)
    model = PriorTrainer(warm_start=None, widths=(8, 12), depths=(1, 1))
    training.fit(model, PatchDataModule(ImageFolder(str(folder)), patch_size=32, batch_size=2), ckpt_path=ckpt_path)
    return watch.seen


@pytest.mark.parametrize(
    "trainer",
    [{}, {"accumulate_grad_batches": 3}, {"limit_train_batches": 3}, {"accumulate_grad_batches": 2, "limit_train_batches": 4}],
    ids=str,
)
def test_no_batch_and_no_noise_comes_twice_in_a_training_or_after_resuming(folder, tmp_path, trainer):
    unbroken = draws(folder, tmp_path / "unbroken", 6, **trainer)
    assert len(unbroken) == 6 * trainer.get("accumulate_grad_batches", 1)
    first = draws(folder, tmp_path / "resumed", 4, **trainer)
    resumed = draws(folder, tmp_path / "resumed", 6, str(tmp_path / "resumed" / "last.ckpt"), **trainer)
    assert first + resumed == unbroken
    for each in zip(*unbroken, strict=True):
        assert len(set(each)) == len(each)


@pytest.mark.slow
def test_ranks_see_other_patches_and_other_noise(folder, tmp_path):
    script = tmp_path / "script.py"
    script.write_text(
        "import sys\nfrom pathlib import Path\nfrom tests.test_training import draws\n"
        "seen = draws(Path(sys.argv[1]), Path(sys.argv[2]), 3, devices=2, strategy='ddp')\n"
        "print('seen', *(number for pair in seen for number in pair))\n"
    )
    result = processes.run([sys.executable, str(script), str(folder), str(tmp_path / "run")], cwd=processes.ROOT, ranks=2)
    assert result.returncode == 0, result.stderr
    numbers = [line.split()[1:] for line in result.stdout.splitlines() if line.startswith("seen ")]
    assert [len(each) for each in numbers] == [6, 6]
    assert len({number for each in numbers for number in each}) == 12


def test_ranks_and_names_and_seeds_draw_apart():
    keys = [(seed, name, rank) for seed in (-2, -1, 0, 1) for name in ("patches", "noise") for rank in (0, 1, 255)]
    seeds = {training_generator(*key, number).initial_seed() for key in keys for number in (*range(50), 2**24 - 1)}
    assert len(seeds) == 51 * len(keys)
    assert training_generator(0, "noise", 3, 7).initial_seed() == training_generator(0, "noise", 3, 7).initial_seed()
    with pytest.raises(ValueError, match="got batch 16777216 of rank 0"):
        training_generator(0, "noise", 0, 2**24)


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


def train(
    folder: Path, run: Path, *callbacks: pl.Callback, patch_size: int | list[int] = 32, compile: bool = False, **trainer: object
) -> pl.Trainer:
    from lightning.pytorch.loggers import CSVLogger

    options = {"accelerator": "cpu", "enable_progress_bar": False, "enable_model_summary": False, "log_every_n_steps": 3}
    options |= {"logger": CSVLogger(run, "", ""), "max_epochs": -1, "enable_checkpointing": False}
    training = pl.Trainer(callbacks=list(callbacks), **options, **trainer)
    model = PriorTrainer(warm_start=None, widths=(8, 12), depths=(1, 1), compile=compile)
    training.fit(model, PatchDataModule(ImageFolder(str(folder)), patch_size=patch_size, batch_size=9))
    return training


class Shapes(pl.Callback):
    def __init__(self) -> None:
        self.seen: list[tuple[int, ...]] = []

    def on_train_batch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: tuple, batch_idx: int) -> None:
        self.seen.append(tuple(batch[0].shape))


def test_several_patch_sizes_share_the_training(folder, tmp_path):
    shapes = Shapes()
    train(folder, tmp_path, shapes, patch_size=[16, 48], max_steps=4)
    assert shapes.seen == 2 * [(9, 3, 16, 16)] + 2 * [(1, 3, 48, 48)]


def test_a_training_by_time_ends_with_it_and_its_learning_rate_falls(folder, tmp_path):
    from datetime import timedelta

    training = train(folder, tmp_path, max_time=timedelta(seconds=1.5))
    assert training.global_step > 1
    (rate,) = training.lr_scheduler_configs[0].scheduler.get_last_lr()
    assert rate < 0.1 * training.optimizers[0].param_groups[0]["initial_lr"] / 500 * training.global_step


def test_the_loss_of_every_noise_level_is_logged(folder, tmp_path):
    import csv

    training = train(folder, tmp_path, max_steps=6, accumulate_grad_batches=4)
    assert training.global_step == 6
    with open(tmp_path / "metrics.csv") as file:
        rows = list(csv.DictReader(file))
    assert [row["step"] for row in rows] == ["2", "5"]
    for row in rows:
        levels = [float(row[f"loss_{value:g}"]) for value in VALIDATION_RATIOS]
        drawn = [level for level in levels if not np.isnan(level)]
        assert len(drawn) >= 5
        assert all(0.01 < level < 30 for level in drawn)


def test_mixed_precision_trains(folder, tmp_path):
    assert np.isfinite(float(train(folder, tmp_path, max_steps=3, precision="bf16-mixed").callback_metrics["loss"]))


@pytest.mark.slow
def test_a_compiled_training_has_the_same_loss_and_leaves_the_same_keys(folder, tmp_path):
    """Checkpoints and averages know nothing of it."""
    losses, keys = [], []
    for compiled in (False, True):
        pl.seed_everything(0, verbose=False)
        trainer = train(folder, tmp_path / str(compiled), EMAWeightAveraging(decay=0.9), max_steps=3, compile=compiled)
        losses.append(float(trainer.callback_metrics["loss"]))
        keys.append(trainer.lightning_module.network.state_dict().keys())
        assert (trainer.lightning_module.network._compiled_call_impl is not None) is compiled
    assert losses[1] == pytest.approx(losses[0], rel=1e-4)
    assert keys[1] == keys[0]
