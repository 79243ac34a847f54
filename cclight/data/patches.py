"""PatchDataModule: random patches of photographs, to train a prior on."""

from __future__ import annotations

from collections.abc import Iterator

import lightning.pytorch as pl
import torch
from torch import Tensor
from torch.nn import functional
from torch.utils.data import DataLoader, IterableDataset

from cclight.data.sources import Source


class Patches(IterableDataset[Tensor]):
    """An endless stream of batches of patches, (B, 3, size, size) in [-1, 1].

    Batch n depends on (seed, n) alone. Half of the batches are cut larger and scaled down, by a factor up to 2, which shows
    the network sharper detail than the photographs have at full size; patches are mirrored at random, some are made grey.
    """

    def __init__(self, images: list[Tensor], size: int, batch_size: int, grey: float, seed: int, first: int) -> None:
        self.images, self.size, self.batch_size, self.grey, self.seed, self.first = images, size, batch_size, grey, seed, first

    def __iter__(self) -> Iterator[Tensor]:
        n = self.first
        while True:
            yield self.batch(n)
            n += 1

    def batch(self, n: int) -> Tensor:
        """Batch n of the stream."""
        generator = torch.Generator().manual_seed(hash((self.seed, n)) & 0x7FFFFFFFFFFFFFFF)

        def uniform(*shape: int) -> Tensor:
            return torch.rand(shape, generator=generator)

        side = self.size
        if uniform(1).item() < 0.5:
            smallest = min(min(image.shape[1:]) for image in self.images)
            side = int(min(smallest, self.size * (1 + uniform(1).item())))
        patches = []
        for pick, top, left, flip, grey in uniform(self.batch_size, 5).tolist():
            image = self.images[int(pick * len(self.images))]
            y, x = (int(place * (extent - side + 1)) for place, extent in zip((top, left), image.shape[1:], strict=True))
            patch = image[:, y : y + side, x : x + side].float()
            patch = patch.flip(-1) if flip < 0.5 else patch
            patches.append(patch.mean(0, keepdim=True).expand(3, -1, -1) if grey < self.grey else patch)
        batch = torch.stack(patches)
        if side != self.size:
            batch = functional.interpolate(batch, self.size, mode="bicubic", antialias=True).clamp(0, 255)
        return batch / 127.5 - 1


class PatchDataModule(pl.LightningDataModule):
    """Patches of a source's photographs, which are decoded once and kept in memory (3 bytes a pixel).

    Args:
        source: where the photographs come from.
        val_source: photographs for the validation loss; None goes without.
        patch_size: height and width of a patch.
        batch_size: patches in a batch.
        grey: fraction of the patches that are turned grey, in [0, 1].
        limit: use the first so many photographs, at most; None uses all.
        seed: batch n of the training depends on (seed, rank, n) alone, so that a resumed training sees what it would have seen.
    """

    def __init__(
        self,
        source: Source,
        val_source: Source | None = None,
        patch_size: int = 64,
        batch_size: int = 32,
        grey: float = 0.05,
        limit: int | None = None,
        seed: int = 0,
    ) -> None:
        super().__init__()
        self.source, self.val_source = source, val_source
        self.patch_size, self.batch_size, self.grey, self.limit, self.seed = patch_size, batch_size, grey, limit, seed
        self._images: list[Tensor] = []

    def _load(self, source: Source) -> list[Tensor]:
        import numpy as np

        images = []
        for photograph in source.shard(0, 1):
            image = torch.from_numpy(np.array(photograph.image)).permute(2, 0, 1).contiguous()
            if min(image.shape[1:]) >= self.patch_size:
                images.append(image)
            if len(images) == self.limit:
                break
        if not images:
            raise ValueError(f"{source} holds no photograph of at least {self.patch_size}×{self.patch_size} pixels.")
        return images

    def setup(self, stage: str) -> None:
        if not self._images:
            self._images = self._load(self.source)

    def train_dataloader(self) -> DataLoader[Tensor]:
        trainer = self.trainer
        assert trainer is not None
        seed = hash((self.seed, trainer.global_rank))
        patches = Patches(self._images, self.patch_size, self.batch_size, self.grey, seed, first=trainer.global_step)
        return DataLoader(patches, batch_size=None)

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
