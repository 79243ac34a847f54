r"""PriorTrainer: trains a SmallPrior's network, the LightningModule behind `cclight fit`.

Denoising score matching over noise levels, with EDM's weighting, which makes the loss at every level start near 1:

    L = E_ρ E_ε λ(ρ) |x̂_0(x_0 + ρ ε) - x_0|²,    λ = (ρ² + s²)/(ρ s)²,    ln ρ ~ N(mean, std²), one in ten uniform.

Reference:
    Karras et al., Elucidating the Design Space of Diffusion-Based Generative Models, NeurIPS 2022 (section 5).
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from torch import Tensor

from cclight.data.noise import training_generator
from cclight.data.patches import PatchBatch
from cclight.priors.base import per_image
from cclight.priors.checkpoints import CheckpointError, load_state
from cclight.priors.small import RATIO_MAX, RATIO_MIN, SIGMA_DATA, SmallUNet, load, network_of, preconditioned, save
from cclight.progress import progress

VALIDATION_RATIOS = (0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 50.0)


def weighted_error(network: torch.nn.Module, clean: Tensor, noise: Tensor, ratio: Tensor) -> Tensor:
    """λ(ρ) |x̂_0 - x_0|², averaged over each image's values.

    Args:
        network: F of cclight.priors.small.
        clean: x_0, (B, C, H, W) in [-1, 1].
        noise: ε, the same shape.
        ratio: ρ of each image, (B,).

    Returns:
        The error of each image, (B,): about 1 for a network that has learnt nothing, less for a better one.
    """
    x = clean + per_image(ratio, clean) * noise
    error = (preconditioned(network, x, torch.ones_like(ratio), ratio) - clean).square().mean(dim=(1, 2, 3))
    return error * (ratio**2 + SIGMA_DATA**2) / (ratio * SIGMA_DATA) ** 2


class PriorTrainer(pl.LightningModule):
    """Trains a `SmallUNet` with AdamW under a cosine schedule; the trainer's EMA callback keeps the averaged weights.

    Args:
        warm_start: where to start: "embedded" for the weights inside the package, a safetensors file, or None for scratch.
        widths: channels of each level, for training from scratch.
        depths: residual blocks of each level, for training from scratch.
        learning_rate: the highest learning rate.
        warmup_steps: steps of linear growth to it.
        weight_decay: AdamW's.
        log_ratio_mean: mean of ln ρ.
        log_ratio_std: standard deviation of ln ρ.
        seed: noise depends on (seed, rank, the batch's number) alone.
        compile: compile the network with `torch.compile`, which pays off on a GPU.

    Raises:
        ValueError: for a number out of range.
    """

    def __init__(
        self,
        warm_start: str | None = "embedded",
        widths: tuple[int, ...] = (64, 96, 128, 128),
        depths: tuple[int, ...] = (2, 2, 2, 1),
        learning_rate: float = 8e-4,
        warmup_steps: int = 500,
        weight_decay: float = 1e-4,
        log_ratio_mean: float = -0.5,
        log_ratio_std: float = 1.4,
        seed: int = 0,
        compile: bool = False,
    ) -> None:
        super().__init__()
        for name, value in {"learning_rate": learning_rate, "log_ratio_std": log_ratio_std}.items():
            if not 0 < value < math.inf:
                raise ValueError(f"{name} must be a finite number above 0, got {value:g}.")
        if warmup_steps < 0:
            raise ValueError(f"warmup_steps must be 0 or more, got {warmup_steps}.")
        if warm_start is None:
            widths, depths = tuple(widths), tuple(depths)
            if not 0 < len(widths) == len(depths) or min(widths) < 1 or min(depths) < 0:
                raise ValueError(f"widths {widths} and depths {depths} make no network: give both for every level, 1 or more.")
            self.network = SmallUNet(widths, depths)
        else:
            self.network = load(None if warm_start == "embedded" else warm_start)
        self.network.to(memory_format=torch.channels_last)
        self.learning_rate, self.warmup_steps, self.weight_decay = learning_rate, warmup_steps, weight_decay
        self.log_ratio_mean, self.log_ratio_std, self.seed = log_ratio_mean, log_ratio_std, seed
        self.compile_network = compile
        self._levels: Tensor | None = None  # sums of errors and their numbers, by noise level
        self._bounds: Tensor

    def setup(self, stage: str) -> None:
        stride = self.network.stride
        for size in getattr(getattr(self.trainer, "datamodule", None), "patch_sizes", ()):
            if size % stride:
                raise ValueError(f"patch_size must be divisible by {stride}, got {size}: the network halves it as often.")

    def on_fit_start(self) -> None:
        if self.compile_network:
            self.network.compile()

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint["architecture"] = {"widths": list(self.network.widths), "depths": list(self.network.depths)}

    def check_resume(self, content: dict[str, Any], path: Path) -> None:
        """Refuse to go on from a checkpoint of another network.

        Raises:
            CheckpointError: naming both networks.
        """
        theirs, ours = (
            {key: list(map(int, values)) for key, values in each.items()}
            for each in (content["architecture"], {"widths": self.network.widths, "depths": self.network.depths})
        )
        if theirs != ours:
            raise CheckpointError(
                f"{path} trains a network of widths {theirs['widths']} and depths {theirs['depths']}, the configuration one of "
                f"{ours['widths']} and {ours['depths']}: set model.warm_start null and model.widths and model.depths to its."
            )

    def training_step(self, batch: PatchBatch, batch_idx: int) -> Tensor:
        clean, number = batch
        draw = training_generator(self.seed, "noise", self.global_rank, number, clean.device)
        noise = torch.randn(clean.shape, generator=draw, device=clean.device)
        normal = torch.randn(len(clean), generator=draw, device=clean.device)
        uniform, choice = torch.rand(2, len(clean), generator=draw, device=clean.device)
        log_ratio = self.log_ratio_mean + self.log_ratio_std * normal
        spread = math.log(RATIO_MIN) + math.log(RATIO_MAX / RATIO_MIN) * uniform
        log_ratio = torch.where(choice < 0.1, spread, log_ratio)
        ratio = log_ratio.exp().clamp(RATIO_MIN, RATIO_MAX)
        clean, noise = (images.contiguous(memory_format=torch.channels_last) for images in (clean, noise))
        errors = weighted_error(self.network, clean, noise, ratio)
        self._log_levels(errors.detach(), log_ratio, batch_idx)
        loss = errors.mean()
        self.log("loss", loss, prog_bar=True)
        return loss

    def _log_levels(self, errors: Tensor, log_ratio: Tensor, batch_idx: int) -> None:
        """Log the mean error around each of the validation's noise levels since the last time; NaN where none was drawn."""
        if self._levels is None:
            self._levels = torch.zeros(2, len(VALIDATION_RATIOS), device=errors.device)
            centres = torch.tensor(VALIDATION_RATIOS).log()
            self._bounds = ((centres[1:] + centres[:-1]) / 2).to(errors.device)
        self._levels.index_add_(1, torch.bucketize(log_ratio, self._bounds), torch.stack([errors, torch.ones_like(errors)]))
        # Where Lightning writes a line: not before, because these sums are read from the device.
        ends_step = (batch_idx + 1) % self.trainer.accumulate_grad_batches == 0
        if ends_step and (self.global_step + 1) % self.trainer.log_every_n_steps == 0:  # type: ignore[attr-defined]
            means = (self._levels[0] / self._levels[1]).tolist()
            self.log_dict({f"loss_{value:g}": mean for value, mean in zip(VALIDATION_RATIOS, means, strict=True)})
            self._levels.zero_()

    def validation_step(self, batch: Tensor, batch_idx: int) -> None:
        errors = []
        for level, value in enumerate(VALIDATION_RATIOS):
            # The same at every validation and on every device, so that losses compare.
            draw = training_generator(0, f"validation {level}", self.global_rank, batch_idx)
            noise = torch.randn(batch.shape, generator=draw).to(batch)
            ratio = torch.full((batch.shape[0],), value).to(batch)
            errors.append(weighted_error(self.network, batch, noise, ratio).mean())
            self.log(f"val_loss_{value:g}", errors[-1], sync_dist=True)
        self.log("val_loss", torch.stack(errors).mean(), prog_bar=True, sync_dist=True)

    def configure_optimizers(self) -> OptimizerLRScheduler:
        optimizer = torch.optim.AdamW(
            self.network.parameters(), lr=self.learning_rate, weight_decay=self.weight_decay, betas=(0.9, 0.99)
        )
        progress(self.trainer)  # refuses a training without an end before it begins

        def scale(step: int) -> float:
            cosine = 0.5 * (1 + math.cos(math.pi * progress(self.trainer)))
            return min(1.0, (step + 1) / max(1, self.warmup_steps)) * cosine

        scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, scale)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}


def read_checkpoint(path: Path) -> dict[str, Any]:
    """A checkpoint of `cclight fit`, checked. Nothing that it holds is executed.

    Raises:
        FileNotFoundError: where there is none.
        CheckpointError: for a file of anything else, or one whose weights are not finite.
    """
    if path.is_dir():
        raise FileNotFoundError(f"{path} is a folder: name the checkpoint in it, as {path / 'last.ckpt'}.")
    if not path.is_file():
        raise FileNotFoundError(f"No checkpoint at {path}: `cclight fit` leaves last.ckpt in its run folder.")
    content = load_state(path)
    if not ({"architecture", "state_dict", "global_step"} <= content.keys() and "widths" in content["architecture"]):
        raise CheckpointError(f"{path} is no checkpoint of `cclight fit`: it does not say which network it holds.")
    network_in(content, path)
    return content


def network_in(content: dict[str, Any], path: Path) -> SmallUNet:
    """The network of a checkpoint's content, with its (averaged, where they were averaged) weights.

    Raises:
        CheckpointError: where they do not fit each other or are not finite.
    """
    try:
        widths, depths = (tuple(int(n) for n in content["architecture"][key]) for key in ("widths", "depths"))
        state = {key.removeprefix("network."): value for key, value in content["state_dict"].items()}
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise CheckpointError(f"{path} is no checkpoint of `cclight fit`: it does not say which network it holds.") from error
    return network_of(widths, depths, state, path)


def export(checkpoint: str, output: str, note: str = "", overwrite: bool = False) -> Path:
    """Write the averaged weights of a training checkpoint in the packaged format.

    Args:
        checkpoint: a Lightning checkpoint of `cclight fit`.
        output: the safetensors file to write.
        note: a line for the file's metadata.
        overwrite: replace a file that is there.

    Raises:
        FileNotFoundError: when there is no such checkpoint.
        FileExistsError: when there is such an output.
        CheckpointError: when it is no checkpoint of a PriorTrainer.
        RunError: where the output cannot be written; nothing partial stays behind.
    """
    source, path = Path(checkpoint).expanduser(), Path(output).expanduser()
    if path.is_dir():
        raise FileExistsError(f"{path} is a folder: name the file to write, as {path / 'small.safetensors'}.")
    if path.exists() and not overwrite:
        raise FileExistsError(f"{path} exists: name another file, or replace it with --overwrite.")
    content = read_checkpoint(source)
    newer = [file for file in source.parent.glob("last*.ckpt") if file.stat().st_mtime > source.stat().st_mtime]
    if source.stem.startswith("last") and newer:
        newest = max(newer, key=lambda file: file.stat().st_mtime)
        raise CheckpointError(
            f"{source} is older than {newest.name} beside it, of a later training: name that, or move it away."
        )
    save(network_in(content, source), path, note or f"{content['global_step']} steps")
    return path
