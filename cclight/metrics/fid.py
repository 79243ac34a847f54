r"""FID and KID: how far a set of restored images is from a set of real ones, in the features of a network.

With the mean μ and covariance Σ of the features f of either set, and the kernel k(f, g) = (fᵀg / d + 1)³ in d dimensions,

    FID = |μ_1 - μ_2|² + tr Σ_1 + tr Σ_2 - 2 tr (Σ_1^{1/2} Σ_2 Σ_1^{1/2})^{1/2},
    KID = the unbiased estimate of E k(f, f') + E k(g, g') - 2 E k(f, g), averaged over random subsets; papers print KID × 10³.

Both are measured on the 8-bit pictures of the run folder: `torch_fidelity.calculate_metrics` on the same folders gives the same
numbers, and a resumed run those of an unbroken one. FID needs sums alone; KID keeps the features of at most `kid_images` images
of either set, chosen by a hash of their place.

References:
    Heusel et al., GANs Trained by a Two Time-Scale Update Rule Converge to a Local Nash Equilibrium, NeurIPS 2017 (FID).
    Bińkowski et al., Demystifying MMD GANs, ICLR 2018 (KID).
    Obukhov et al., High-fidelity performance metrics for generative models in PyTorch, 2020 (torch-fidelity).
"""

from __future__ import annotations

import math
import warnings
import zlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import groupby, islice
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from cclight.data.ahead import ahead
from cclight.data.formats import SUFFIXES
from cclight.data.preprocessing import Preprocessing
from cclight.data.sources import Source
from cclight.errors import one_line
from cclight.metrics.gather import gather
from cclight.metrics.inception import Inception
from cclight.metrics.quantity import Quantity, Unavailable
from cclight.metrics.summary import Summary
from cclight.runs.pictures import read_png, to_uint8

FID = Quantity("fid", "FID", "lower", (0, math.inf), "all images at once; features of the 8-bit pictures", 2)


KID = Quantity(
    "kid", "KID", "lower", (-math.inf, math.inf), "all images at once; features of the 8-bit pictures; papers print × 10³", 5
)


_BATCH = 16


@dataclass
class FeatureStatistics:
    """What FID and KID need of one set of images: sums in float64, and the features themselves up to a bound.

    Attributes:
        limit: how many images' features are kept.
        count: images so far.
        total: Σ f, (d,).
        outer: Σ f fᵀ, (d, d).
        kept: the features (d,) of the `limit` images whose places have the lowest hashes, by place.
    """

    limit: int
    count: int = 0
    total: Tensor = field(default_factory=lambda: torch.zeros(0, dtype=torch.float64))
    outer: Tensor = field(default_factory=lambda: torch.zeros(0, 0, dtype=torch.float64))
    kept: dict[int, Tensor] = field(default_factory=dict)

    @classmethod
    def zeros(cls, dimension: int, limit: int) -> FeatureStatistics:
        """The statistics of no images."""
        float64 = torch.float64
        return cls(limit, 0, torch.zeros(dimension, dtype=float64), torch.zeros(dimension, dimension, dtype=float64))

    def update(self, places: Sequence[int], features: Tensor) -> None:
        """Take in features (B, d) of the images at the given places of the set."""
        f = features.detach().cpu().double()
        self.count += len(f)
        self.total += f.sum(dim=0)
        self.outer += f.T @ f
        self.kept.update(zip(places, features.detach().cpu().float(), strict=True))
        self._trim()

    def _trim(self) -> None:
        if len(self.kept) > self.limit:
            self.kept = {place: self.kept[place] for place in lowest_hashes(list(self.kept), self.limit)}

    @property
    def mean(self) -> Tensor:
        """μ, (d,)."""
        return self.total / self.count

    @property
    def covariance(self) -> Tensor:
        """Σ with the factor 1/(n - 1), (d, d)."""
        return (self.outer - self.count * torch.outer(self.mean, self.mean)) / (self.count - 1)

    def merged(self, device: torch.device) -> FeatureStatistics:
        """The statistics of all ranks' images, on every rank. A collective; `device` is where its communication lives."""
        distributed = torch.distributed
        if not (distributed.is_available() and distributed.is_initialized()):
            return self
        sums = torch.cat([torch.tensor([float(self.count)], dtype=torch.float64), self.total, self.outer.flatten()]).to(device)
        distributed.all_reduce(sums)
        count, total, outer = sums.cpu().split([1, self.total.numel(), self.outer.numel()])
        # The hashes first: then no rank receives more than `limit` features.
        chosen = set(lowest_hashes([place for places in gather(list(self.kept)) for place in places], self.limit))
        kept: dict[int, Tensor] = {}
        for part in gather({place: feature for place, feature in self.kept.items() if place in chosen}):
            kept.update(part)
        return FeatureStatistics(self.limit, int(count), total, outer.view_as(self.outer), dict(sorted(kept.items())))


class FeatureDistances:
    """FID and KID between a run's restored images and real ones.

    Args:
        network: maps uint8 images (B, 3, H, W) to features (B, d); None for `Inception()`. Only with that one are the
            numbers FID and KID in the literature's sense.
        reference: the real images: a source, as a split of a data set; a folder of pictures; or an .npz file with `mu` and
            `sigma` of their features (FID alone). None for the run's own clean images.
        reference_size: the side of the square that a source's photographs are scaled and cut to, as `data.image_size`; None
            keeps each at its own size. Pictures of a folder are taken as they are.
        kid_subsets: the number of random subsets that KID averages over.
        kid_subset_size: the number of images in each, or all where there are fewer.
        kid_images: the most images of either set whose features KID keeps in memory, 8 kB each with `Inception`.
        seed: of the generator that draws the subsets; the default is torch-fidelity's.

    Raises:
        ValueError: for a reference that does not exist, or numbers that do not fit together.
    """

    def __init__(
        self,
        network: Inception | nn.Module | None = None,  # Inception first: other libraries have one too
        reference: Source | str | None = None,
        reference_size: int | None = 256,
        kid_subsets: int = 100,
        kid_subset_size: int = 1000,
        kid_images: int = 10_000,
        seed: int = 2020,
    ) -> None:
        if kid_images < kid_subset_size:
            raise ValueError(f"kid_images ({kid_images}) must be at least kid_subset_size ({kid_subset_size}).")
        file = Path(reference) if isinstance(reference, str) else None
        if file is not None and not file.exists():
            raise ValueError(
                f"The reference {file} does not exist: give a folder of pictures, an .npz file of mu and sigma, or a source."
            )
        if reference_size is not None and reference_size < 1:
            raise ValueError(f"reference_size must be 1 or more, got {reference_size}.")
        self.network = Inception() if network is None else network
        self.reference = reference
        self.preprocessing = Preprocessing(None if reference_size is None else (reference_size, reference_size))
        self.kid_subsets = kid_subsets
        self.kid_subset_size = kid_subset_size
        self.kid_images = kid_images
        self.seed = seed
        self._device = torch.device("cpu")
        self._dimension = 0
        self._reason: str | None = None
        self._given = read_statistics(file) if file is not None and file.is_file() else None

    def prepare(self, device: torch.device) -> None:
        """Load the network onto the device and try it. Weights that cannot be downloaded are warned of, and `compute` says it.

        Raises:
            ValueError: for a network that does not return (B, d) of finite numbers, weights that are none, or a reference
                without photographs or with statistics of another network.
            FileNotFoundError: for a source that is not there.
        """
        self._device = device
        if isinstance(self.reference, Source) and next(iter(self.reference), None) is None:
            raise ValueError(f"The reference {self.reference} holds no photographs.")
        if isinstance(self.reference, str) and self._given is None and len(_in_folder(self.reference)) < 2:
            raise ValueError(f"The reference {self.reference} holds fewer than 2 pictures: give a folder that has them.")
        try:
            features = self.features(torch.zeros(1, 3, 64, 64, dtype=torch.uint8))
            if not features.isfinite().all():
                raise ValueError(f"{type(self.network).__name__} gives NaN or infinity on a black picture: FID needs features.")
            self._dimension, self._reason = features.shape[1], None
        except Unavailable as reason:
            self._reason = str(reason)
            if _rank()[0] == 0:
                warnings.warn(f"FID and KID are unavailable: {reason}.", stacklevel=2)
        if self._given is not None and self._reason is None and len(self._given[0]) != self._dimension:
            raise ValueError(
                f"The reference {self.reference} has {len(self._given[0])} features, the network {self._dimension}: "
                f"make it with the same network."
            )

    @torch.no_grad()
    def features(self, images: Tensor) -> Tensor:
        """The features (B, d) of uint8 images (B, 3, H, W) or grey ones (B, 1, H, W).

        Raises:
            ValueError: for a network that returns anything but (B, d).
        """
        network = self.network.to(self._device).eval()
        features = network(images.to(self._device).expand(-1, 3, -1, -1))
        if not isinstance(features, Tensor) or features.ndim != 2 or features.shape[0] != images.shape[0]:
            raise ValueError(f"{type(network).__name__} must return features of shape ({images.shape[0]}, d) for FID and KID.")
        return features

    def compute(self, restored: Sequence[Path], clean: Sequence[Path]) -> list[Summary]:
        """FID and KID between pictures. A collective: every rank calls it with the same lists and reads its share of them.

        Args:
            restored: the pictures of restored images.
            clean: those of the clean ones, used where no reference was given.
        """
        sets: list[FeatureStatistics] = []
        reason = self._reason or _missing([*restored, *(clean if self.reference is None else [])])
        if reason is None:
            try:
                sets.append(self._statistics(_pictures(restored)))
                if self._given is None:
                    sets.append(self._statistics(self._real(clean)))
            except (OSError, RuntimeError, ValueError) as error:
                reason = one_line(error)
        # All ranks must agree before the collectives, which a rank with a reason would not reach.
        reasons = [reason for reason in gather(reason) if reason]
        if reasons:
            return [Summary(FID, unavailable=reasons[0]), Summary(KID, unavailable=reasons[0])]
        one, *others = [statistics.merged(self._device) for statistics in sets]
        try:
            if self._given is not None:
                no_kid = "KID needs the real images themselves: give a folder or a source as reference"
                return [self._fid(one, *self._given), Summary(KID, unavailable=no_kid)]
            (two,) = others
            if min(one.count, two.count) < 2:
                raise ValueError(f"a distribution needs 2 images or more, there are {one.count} and {two.count}")
            return [self._fid(one, two.mean, two.covariance), self._kid(one, two)]
        except (RuntimeError, ValueError) as error:  # of all ranks, for features that are not finite
            return [Summary(quantity, unavailable=one_line(error)) for quantity in (FID, KID)]

    def _fid(self, one: FeatureStatistics, mean: Tensor, covariance: Tensor) -> Summary:
        if one.count < 2:
            return Summary(FID, unavailable=f"a distribution needs 2 images or more, there are {one.count}")
        return Summary(FID, frechet_distance(one.mean, one.covariance, mean, covariance), images=one.count)

    def _kid(self, one: FeatureStatistics, two: FeatureStatistics) -> Summary:
        from torch_fidelity.metric_kid import KEY_METRIC_KID_MEAN, kid_features_to_metric

        a, b = (torch.stack([s.kept[place] for place in sorted(s.kept)]) for s in (one, two))
        size = min(self.kid_subset_size, len(a), len(b))
        options: dict[str, Any] = {
            "kid_subsets": self.kid_subsets,
            "kid_subset_size": size,
            "rng_seed": self.seed,
            "verbose": False,
        }
        return Summary(KID, kid_features_to_metric(a, b, **options)[KEY_METRIC_KID_MEAN], images=one.count)

    def _statistics(self, images: Iterable[tuple[int, Tensor]]) -> FeatureStatistics:
        statistics = FeatureStatistics.zeros(self._dimension, self.kid_images)
        for places, batch in ahead(_batches(images)):
            statistics.update(places, self.features(batch))
        return statistics

    def _real(self, clean: Sequence[Path]) -> Iterator[tuple[int, Tensor]]:
        """This rank's share of the real images, uint8, with their places."""
        if isinstance(self.reference, Source):
            return ((photo.index, to_uint8(self.preprocessing(photo))) for photo in self.reference.shard(*_rank()))
        if self.reference is not None:
            clean = _in_folder(self.reference)
        return _pictures(clean)


def frechet_distance(mean_1: Tensor, covariance_1: Tensor, mean_2: Tensor, covariance_2: Tensor) -> float:
    """The Fréchet distance of two Gaussians (d,), (d, d), in float64.

    The product under the root is taken in its symmetric form, whose eigenvalues are real; rounding's negative ones count as 0.
    """
    values, vectors = torch.linalg.eigh(covariance_1)
    root = (vectors * values.clamp(min=0).sqrt()) @ vectors.T
    trace = torch.linalg.eigvalsh(root @ covariance_2 @ root).clamp(min=0).sqrt().sum()
    distance = (mean_1 - mean_2).square().sum() + covariance_1.trace() + covariance_2.trace() - 2 * trace
    return max(float(distance), 0.0)


def read_statistics(path: Path) -> tuple[Tensor, Tensor]:
    """μ and Σ from an .npz file with `mu` and `sigma`, as float64; what pytorch-fid and torch-fidelity's users exchange.

    Raises:
        ValueError: for any other file.
    """
    import numpy as np

    try:
        with np.load(path, allow_pickle=False) as file:
            mean, covariance = (torch.from_numpy(file[name]).double() for name in ("mu", "sigma"))
        if mean.ndim != 1 or covariance.shape != (len(mean), len(mean)):
            raise ValueError(f"mu has the shape {tuple(mean.shape)} and sigma {tuple(covariance.shape)}")
        if not (mean.isfinite().all() and covariance.isfinite().all()):
            raise ValueError("they are not finite")
    except Exception as error:  # numpy, zipfile and zlib have a class for every kind of damage
        raise ValueError(f"{path} holds no statistics ({one_line(error)}): give an .npz file with mu and sigma.") from error
    return mean, covariance


def _in_folder(folder: str) -> list[Path]:
    return sorted(path for path in Path(folder).iterdir() if path.suffix.lower() in SUFFIXES)


def lowest_hashes(places: list[int], limit: int) -> list[int]:
    """The `limit` places with the lowest hashes: a random choice that depends on nothing but the places."""
    return sorted(places, key=lambda place: (zlib.crc32(place.to_bytes(8, "little")), place))[:limit]


def _rank() -> tuple[int, int]:
    """This process's rank, and how many there are."""
    distributed = torch.distributed
    parallel = distributed.is_available() and distributed.is_initialized()
    return (distributed.get_rank(), distributed.get_world_size()) if parallel else (0, 1)


def _missing(pictures: Sequence[Path]) -> str | None:
    absent = [path for path in pictures if not path.is_file()]
    if not absent:
        return None
    return f"{len(absent)} of {len(pictures)} pictures are not saved ({absent[0]}): FID and KID are measured on saved ones"


def _pictures(paths: Sequence[Path]) -> Iterator[tuple[int, Tensor]]:
    """This rank's share of the pictures, uint8 (C, H, W), with their places."""
    rank, world_size = _rank()
    return ((place, to_uint8(read_png(paths[place]))) for place in range(rank, len(paths), world_size))


def _batches(images: Iterable[tuple[int, Tensor]]) -> Iterator[tuple[list[int], Tensor]]:
    """Images (B, C, H, W) with their places, a batch at a time and one size in each."""
    for _, alike in groupby(images, key=lambda item: item[1].shape):
        while batch := list(islice(alike, _BATCH)):
            yield [place for place, _ in batch], torch.stack([image for _, image in batch])
