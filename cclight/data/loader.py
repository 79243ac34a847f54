"""A process' share of a source, decoded by workers and handed on in batches.

Worker j of process k takes what belongs to share j · world_size + k of workers · world_size: the images of a process are
index mod world_size = k whatever the number of its workers.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import NamedTuple

import torch
from torch import Tensor
from torch.utils.data import DataLoader, IterableDataset, get_worker_info

from cclight.data.ahead import ahead
from cclight.data.noise import generator, standard_normal
from cclight.data.preprocessing import Preprocessing
from cclight.data.sources import Form, Source


class Decoded(NamedTuple):
    """Photographs of one size, or arrays of one shape; a photograph stands in it once for each of its samples.

    Attributes:
        images: (B, C, H, W) in [-1, 1]; arrays, (B, C, ...), in their source's units.
        indices: their numbers in the source.
        names: their names.
        contents: their hashes.
        labels: their classes, -1 for none.
        forms: how they were stored.
        parameters: the further arrays that each brings for its operator, by name.
        samples: which of its photograph's restorations each is for.
        noise: what restoring them begins with, (B, C, ...), float32; None where it is drawn later.
    """

    images: Tensor
    indices: list[int]
    names: list[str]
    contents: list[str]
    labels: list[int]
    forms: list[Form]
    parameters: list[dict[str, Tensor]]
    samples: list[int]
    noise: Tensor | None = None


_Item = tuple[Tensor, int, str, str, int, Form, dict[str, Tensor], int]


@dataclass(frozen=True)
class Notice:
    """Something to tell about one photograph, on its way from a worker to the main process.

    Attributes:
        index: its number in the source.
        text: a sentence without its full stop.
        left_out: whether the photograph could not be used.
    """

    index: int
    text: str
    left_out: bool


class Share(IterableDataset[Decoded | Notice]):
    """One process' share of a source, in batches of consecutive photographs of equal size, each as often as it has samples.

    Args:
        source: where the photographs come from.
        preprocessing: makes tensors of them.
        batch_size: samples in a batch, at most: another size begins a new batch.
        rank: this process' number.
        world_size: the number of processes.
        skip: indices that are done.
        limit: look at the first so many photographs of the source only; None looks at all.
        samples: how often each photograph is restored.
        done: samples that are done, of photographs of which others are not.
        apart: two photographs share no batch.
        seed: of the initial noise, where restorations have the shape of what is loaded; None draws none here.
    """

    def __init__(
        self,
        source: Source,
        preprocessing: Preprocessing,
        batch_size: int,
        rank: int = 0,
        world_size: int = 1,
        skip: Collection[int] = frozenset(),
        limit: int | None = None,
        samples: int = 1,
        done: Mapping[int, Collection[int]] = MappingProxyType({}),
        apart: bool = False,
        seed: int | None = None,
    ) -> None:
        self.source = source
        self.preprocessing = preprocessing
        self.batch_size = batch_size
        self.rank = rank
        self.world_size = world_size
        self.skip = skip
        self.limit = limit
        self.samples = samples
        self.done = dict(done)
        self.apart = apart
        self.seed = seed

    def _wanted(self, index: int) -> list[int]:
        """A photograph's samples that are still to be made."""
        done = self.done.get(index, ())
        return [sample for sample in range(self.samples) if sample not in done]

    def __iter__(self) -> Iterator[Decoded | Notice]:
        info = get_worker_info()
        worker, workers = (info.id, info.num_workers) if info is not None else (0, 1)
        share, shares = worker * self.world_size + self.rank, workers * self.world_size
        batch: list[_Item] = []
        for entry in self.source.entries(share, shares, self.skip, self.limit):
            try:
                photograph = entry.load()
                image = self.preprocessing(photograph)
            except ValueError as error:
                yield Notice(entry.index, str(error), left_out=True)
                continue
            for note in photograph.notes:
                yield Notice(entry.index, f"{entry.place}: {note}", left_out=False)
            if self.preprocessing.enlarges(photograph):
                yield Notice(
                    entry.index, f"{entry.place} is smaller than the images asked for and was enlarged", left_out=False
                )
            if batch and (self.apart or (batch[0][0].shape, batch[0][0].dtype) != (image.shape, image.dtype)):
                yield self._collate(batch)
                batch = []
            own = (photograph.index, photograph.name, entry.fingerprint(), entry.label, photograph.form, photograph.parameters)
            for sample in self._wanted(entry.index):
                if len(batch) == self.batch_size:
                    yield self._collate(batch)
                    batch = []
                batch.append((image, *own, sample))
        if batch:
            yield self._collate(batch)

    def _collate(self, batch: list[_Item]) -> Decoded:
        images, *others = zip(*batch, strict=True)
        decoded, noise = torch.stack(images), None
        if self.seed is not None:
            generators = [generator(self.seed, index, "initial", sample) for _, index, *_, sample in batch]
            noise = standard_normal(tuple(decoded.shape[1:]), generators)
        return Decoded._make([decoded, *map(list, others), noise])

    def batches(self, workers: int) -> int:
        """The number of batches when every photograph can be used: never too small, for Lightning reads no further.

        Args:
            workers: the number of processes that decode, 0 for the main one.

        Raises:
            TypeError: where only reading to the end would tell.
        """
        length = len(self.source) if self.limit is None else min(len(self.source), self.limit)
        if self.preprocessing.size is None and self.batch_size > 1:
            raise TypeError("Photographs of several sizes share no batch: the number of batches is known at the end.")
        counts = [0] * max(workers, 1)
        batches = 0
        for index in range(self.rank, length, self.world_size):
            wanted = 0 if index in self.skip else len(self._wanted(index))
            if self.apart:
                batches += math.ceil(wanted / self.batch_size)
            else:
                counts[index // self.world_size % len(counts)] += wanted
        return batches + sum(math.ceil(count / self.batch_size) for count in counts)


def part_of(part: str | None) -> tuple[int, int]:
    """A part of a source, as "2/3", as its number from 0 and the number of parts; None is the whole.

    Raises:
        ValueError: for anything else.
    """
    if part is None:
        return 0, 1
    number, _, parts = part.partition("/")
    if not (number.isascii() and number.isdigit() and parts.isascii() and parts.isdigit() and 1 <= int(number) <= int(parts)):
        raise ValueError(f"part is which of how many jobs restores, from 1/3 to 3/3 of three, got {part!r}.")
    return int(number) - 1, int(parts)


class Loader:
    """The batches of a share. No DataLoader itself, because Lightning takes those apart and builds them anew.

    Args:
        share: what to load.
        num_workers: processes that decode; 0 decodes in the main one, on a thread.
        pin_memory: put batches where a GPU fetches them faster.
        refuse: gives the reason why a batch cannot be used, or None for one that can.
        tell: is called with every notice, in the main process.
    """

    def __init__(
        self,
        share: Share,
        num_workers: int,
        pin_memory: bool,
        refuse: Callable[[Decoded], str | None],
        tell: Callable[[Notice], None],
    ) -> None:
        self.share = share
        self.num_workers = num_workers
        self.pin_memory = pin_memory
        self.refuse = refuse
        self.tell = tell

    def __iter__(self) -> Iterator[Decoded]:
        # A generator of its own: the default would draw from torch's global one.
        loader: DataLoader[Decoded | Notice] = DataLoader(
            self.share,
            batch_size=None,
            num_workers=self.num_workers,
            pin_memory=self.pin_memory,
            generator=torch.Generator(),
        )
        for item in loader if self.num_workers else ahead(loader):
            if isinstance(item, Notice):
                self.tell(item)
            elif (reason := self.refuse(item)) is not None:
                for index, name in dict(zip(item.indices, item.names, strict=True)).items():
                    self.tell(Notice(index, f"{name} (number {index}): {reason}", left_out=True))
            else:
                yield item

    def __len__(self) -> int:
        return self.share.batches(self.num_workers)
