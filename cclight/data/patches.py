"""PatchDataModule: random patches of photographs, to train a prior on.

The photographs lie as bytes on the device that trains. What travels from the data loader is a batch's number alone; the batch
is cut, mirrored and scaled where the photographs are, from a generator of that number: no batch comes twice, whether gradients
are accumulated, the training is resumed or other ranks draw beside this one.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import count
from typing import Any, NamedTuple

import lightning.pytorch as pl
import torch
from torch import Tensor
from torch.nn import functional
from torch.utils.data import DataLoader, IterableDataset

from cclight.data.noise import training_generator
from cclight.data.sources import Source
from cclight.progress import progress


class PatchBatch(NamedTuple):
    """A batch of patches.

    Attributes:
        images: (B, 3, size, size) in [-1, 1].
        number: which batch of this rank it is, from 0.
    """

    images: Tensor
    number: int


class Photographs:
    """Photographs as bytes, one after another in one tensor, so that a patch of each of many is one look-up.

    Args:
        images: (3, H, W) each, uint8, of any sizes.
        device: where they lie.
    """

    def __init__(self, images: list[Tensor], device: torch.device | str = "cpu") -> None:
        self.pixels = torch.cat([image.permute(1, 2, 0).reshape(-1, 3) for image in images]).to(device)
        counts = [image[0].numel() for image in images]
        self.first = torch.tensor([sum(counts[:place]) for place in range(len(counts))], device=device)
        self.sides = torch.tensor([tuple(image.shape[1:]) for image in images], device=device)
        self.smallest = min(min(image.shape[1:]) for image in images)

    def patches(self, size: int, number: int, grey: float, generator: torch.Generator) -> Tensor:
        """Random patches, (number, 3, size, size) in [-1, 1].

        Half of all batches are cut larger and scaled down, by a factor up to 2, which shows the network sharper detail than
        the photographs have at full size; patches are mirrored at random, some are made grey.

        Args:
            size: height and width of a patch.
            number: how many.
            grey: fraction of them that is made grey, in [0, 1].
            generator: on the CPU, so that every device cuts the same patches.
        """
        larger, scale = torch.rand(2, generator=generator).tolist()
        side = min(self.smallest, int(size * (1 + scale))) if larger < 0.5 else size
        pick, top, left, flip, tint = torch.rand(5, number, generator=generator).to(self.pixels.device)
        image = (pick * len(self.first)).long()
        height, width = self.sides[image].T
        steps = torch.arange(side, device=self.pixels.device)
        y = (top * (height - side + 1)).long()[:, None] + steps
        x = (left * (width - side + 1)).long()[:, None] + torch.where(flip[:, None] < 0.5, steps.flip(0), steps)
        place = self.first[image][:, None, None] + y[:, :, None] * width[:, None, None] + x[:, None, :]
        batch = self.pixels.index_select(0, place.flatten()).view(number, side, side, 3)  # faster than pixels[place]
        batch = batch.permute(0, 3, 1, 2).contiguous().float()
        batch = torch.where(tint[:, None, None, None] < grey, batch.mean(1, keepdim=True), batch)
        if side != size:
            batch = functional.interpolate(batch, size, mode="bicubic", antialias=True).clamp(0, 255)
        return batch / 127.5 - 1


class _Numbers(IterableDataset[int]):
    """The numbers of batches to come, without an end; begun anew, as every epoch does, after the last that was used."""

    def __init__(self, data: PatchDataModule) -> None:
        self.data = data

    def __iter__(self) -> Iterator[int]:
        return count(self.data.next_number)


class PatchDataModule(pl.LightningDataModule):
    """Patches of a source's photographs, which are decoded once and kept on the device (3 bytes a pixel).

    Args:
        source: where the photographs come from.
        val_source: photographs for the validation loss; None goes without.
        patch_size: height and width of a patch, or several that share the training's steps or minutes equally, in their order:
            small ones first, because they are fast, and large ones last, because borders matter less and noise hides more.
        batch_size: patches in a batch; of further sizes as many as have about the same number of pixels.
        grey: fraction of the patches that are turned grey, in [0, 1].
        limit: use the first so many photographs, at most; None uses all.
        seed: batch n of the training depends on (seed, rank, n) alone, so that a resumed training sees what it would have seen.

    Attributes:
        next_number: the number of the next batch; checkpoints keep it.

    Raises:
        ValueError: for a number out of range.
    """

    def __init__(
        self,
        source: Source,
        val_source: Source | None = None,
        patch_size: int | list[int] = 64,
        batch_size: int = 32,
        grey: float = 0.05,
        limit: int | None = None,
        seed: int = 0,
    ) -> None:
        super().__init__()
        self.patch_sizes = [patch_size] if isinstance(patch_size, int) else list(patch_size)
        smallest = {
            "patch_size": min(self.patch_sizes, default=0),
            "batch_size": batch_size,
            "limit": 1 if limit is None else limit,
        }
        for name, value in smallest.items():
            if value < 1:
                raise ValueError(f"{name} must be 1 or more, got {value}.")
        if not 0 <= grey <= 1:
            raise ValueError(f"grey is a fraction, got {grey}: give a number from 0 to 1.")
        self.source, self.val_source = source, val_source
        self.batch_size, self.grey, self.limit, self.seed = batch_size, grey, limit, seed
        self._images: list[Tensor] = []
        self._photographs: Photographs | None = None
        self.next_number = 0

    def _load(self, source: Source) -> list[Tensor]:
        import numpy as np

        images, side = [], max(self.patch_sizes)
        for photograph in source.shard(0, 1):
            image = torch.from_numpy(np.array(photograph.image)).permute(2, 0, 1).contiguous()
            if min(image.shape[1:]) >= side:
                images.append(image)
            if len(images) == self.limit:
                break
        if not images:
            raise ValueError(f"{source} holds no photograph of at least {side}×{side} pixels.")
        return images

    def setup(self, stage: str) -> None:
        if not self._images:
            self._images = self._load(self.source)

    def train_dataloader(self) -> DataLoader[int]:
        assert self.trainer is not None
        self._photographs = Photographs(self._images, self.trainer.strategy.root_device)
        return DataLoader(_Numbers(self), batch_size=None)

    def on_after_batch_transfer(self, batch: Any, dataloader_idx: int) -> Any:
        if isinstance(batch, Tensor):  # of the validation
            return batch
        assert self.trainer is not None
        assert self._photographs is not None
        self.next_number = batch + 1
        generator = training_generator(self.seed, "patches", self.trainer.global_rank, batch)
        first, size = self.patch_sizes[0], self.patch_sizes[0]
        if len(self.patch_sizes) > 1:
            size = self.patch_sizes[min(int(progress(self.trainer) * len(self.patch_sizes)), len(self.patch_sizes) - 1)]
        number = max(1, round(self.batch_size * (first / size) ** 2))
        return PatchBatch(self._photographs.patches(size, number, self.grey, generator), batch)

    def state_dict(self) -> dict[str, Any]:
        return {"next": self.next_number}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.next_number = int(state_dict["next"])

    def val_dataloader(self) -> list[DataLoader[Tensor]]:
        if self.val_source is None:
            return []
        images = self._load(self.val_source)
        side = min(min(image.shape[1:]) for image in images)
        side -= side % 32
        centres = torch.stack([_centre(image, side) for image in images]).float() / 127.5 - 1
        return [DataLoader(centres, batch_size=self.batch_size // 4 or 1)]  # type: ignore[arg-type]


def _centre(image: Tensor, side: int) -> Tensor:
    top, left = ((extent - side) // 2 for extent in image.shape[1:])
    return image[:, top : top + side, left : left + side]
