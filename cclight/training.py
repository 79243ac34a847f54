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

from cclight.priors.small import RATIO_MAX, RATIO_MIN, SIGMA_DATA, SmallUNet, load, preconditioned, save

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
    x = clean + ratio.view(-1, 1, 1, 1) * noise
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
        seed: noise depends on (seed, rank, step) alone.
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
    ) -> None:
        super().__init__()
        if warm_start is None:
            self.network = SmallUNet(tuple(widths), tuple(depths))
        else:
            self.network = load(None if warm_start == "embedded" else warm_start)
        self.network.to(memory_format=torch.channels_last)
        self.learning_rate, self.warmup_steps, self.weight_decay = learning_rate, warmup_steps, weight_decay
        self.log_ratio_mean, self.log_ratio_std, self.seed = log_ratio_mean, log_ratio_std, seed

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint["architecture"] = {"widths": list(self.network.widths), "depths": list(self.network.depths)}

    def training_step(self, batch: Tensor, batch_idx: int) -> Tensor:
        seed = hash((self.seed, self.global_rank, self.global_step)) & 0x7FFFFFFFFFFFFFFF
        generator = torch.Generator().manual_seed(seed)
        noise = torch.randn(batch.shape, generator=generator).to(batch)
        count = batch.shape[0]
        log_ratio = self.log_ratio_mean + self.log_ratio_std * torch.randn(count, generator=generator)
        spread = math.log(RATIO_MIN) + math.log(RATIO_MAX / RATIO_MIN) * torch.rand(count, generator=generator)
        log_ratio = torch.where(torch.rand(count, generator=generator) < 0.1, spread, log_ratio)
        ratio = log_ratio.exp().clamp(RATIO_MIN, RATIO_MAX).to(batch)
        batch, noise = (images.contiguous(memory_format=torch.channels_last) for images in (batch, noise))
        loss = weighted_error(self.network, batch, noise, ratio).mean()
        self.log("loss", loss, prog_bar=True)
        return loss

    def validation_step(self, batch: Tensor, batch_idx: int) -> None:
        errors = []
        for level, value in enumerate(VALIDATION_RATIOS):
            generator = torch.Generator().manual_seed(hash((batch_idx, level)) & 0x7FFFFFFFFFFFFFFF)
            noise = torch.randn(batch.shape, generator=generator).to(batch)
            ratio = torch.full((batch.shape[0],), value).to(batch)
            errors.append(weighted_error(self.network, batch, noise, ratio).mean())
            self.log(f"val_loss_{value:g}", errors[-1], sync_dist=True)
        self.log("val_loss", torch.stack(errors).mean(), prog_bar=True, sync_dist=True)

    def configure_optimizers(self) -> OptimizerLRScheduler:
        optimizer = torch.optim.AdamW(
            self.network.parameters(), lr=self.learning_rate, weight_decay=self.weight_decay, betas=(0.9, 0.99)
        )
        total = int(self.trainer.estimated_stepping_batches)

        def scale(step: int) -> float:
            cosine = 0.5 * (1 + math.cos(math.pi * min(1.0, step / max(1, total))))
            return min(1.0, (step + 1) / self.warmup_steps) * cosine

        scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, scale)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}


def export(checkpoint: str, output: str, note: str = "") -> Path:
    """Write the averaged weights of a training checkpoint in the packaged format.

    Args:
        checkpoint: a Lightning checkpoint of `cclight fit`.
        output: the safetensors file to write.
        note: a line for the file's metadata.

    Raises:
        FileNotFoundError: when there is no such checkpoint.
        ValueError: when it is no checkpoint of a PriorTrainer.
    """
    if not Path(checkpoint).is_file():
        raise FileNotFoundError(f"No checkpoint at {checkpoint}: `cclight fit` leaves last.ckpt in its run folder.")
    content = torch.load(checkpoint, map_location="cpu", weights_only=True)
    if "architecture" not in content:
        raise ValueError(f"{checkpoint} is no checkpoint of `cclight fit`: it does not say which network it holds.")
    architecture = content["architecture"]
    network = SmallUNet(tuple(architecture["widths"]), tuple(architecture["depths"]))
    network.load_state_dict({key.removeprefix("network."): value for key, value in content["state_dict"].items()})
    path = Path(output)
    save(network, path, note or f"{content['global_step']} steps")
    return path
