r"""Many answers to one measurement: how good they are together, and whether their spread can be believed.

K restorations x_1 … x_K of one measurement are samples of the posterior where they are exchangeable with the clean image x.
Everything here is a mean over an image's pixels (channels count as pixels), in float64, and ideal samples reach the ideal at
every K >= 2. With x̄ = (1/K) Σ_k x_k and s² = 1/(K-1) Σ_k (x_k - x̄)², pixel by pixel:

| number              | definition                                                                     | best        |
|---------------------|--------------------------------------------------------------------------------|-------------|
| `mean_psnr`         | 10 log10(range² / mean (x̄ - x)²) dB, at most 100                               | high        |
| `diversity`         | √(mean 2 s²) / range: the root mean square distance of two samples             | the truth's |
| `spread_error`      | (1 + 1/K) mean s² / mean (x̄ - x)²                                              | 1           |
| `crps`              | mean of (1/K) Σ_k abs(x_k - x) - 1/(2K(K-1)) Σ_jk abs(x_j - x_k), over range   | low         |
| `coverage_50`, `90` | how often x lies in the samples' central interval of 50 % and 90 %             | 0.5 and 0.9 |
| `calibration_error` | mean abs(coverage - nominal) at nominal 0.1 … 0.9                              | 0           |

**Spread over error.** For x and x_k independent from one distribution of variance v, E s² = v (unbiased), and x̄ - x has the
variance v/K + v: hence 1 + 1/K. Below 1 the samples are too sure of themselves, above 1 not sure enough. A ratio of means is 1
where a mean of ratios is not, so images are pooled (`Evidence` adds up) before they are divided. Nor is the calibration error
of one image 0 for ideal samples, whose pixels are alike: that of the mean coverage of many images is.

**Coverage.** The rank of x, the number of samples below it, is uniform on 0 … K for ideal samples. Spread evenly, rank r takes
[r/(K+1), (r+1)/(K+1)] of [0, 1], and coverage at level p is how much of the ranks' histogram lies in the central p: p itself
where the histogram is flat, at every K. (The interval between two order statistics is exact only at K's own levels.) The rank
of a truth that equals m samples is spread over the m + 1 that it could have. Pixels on which all samples and the truth agree,
those that the measurement tells, are left out: a symmetric choice, which leaves ideal samples ideal. Few samples show little of
what is wrong: of two, coverage at 0.9 cannot be below 0.85.

**CRPS** is the fair one: its expectation is that of infinitely many samples, minimal for the posterior; few samples are neither
punished nor favoured. Sorted, Σ_jk abs(x_j - x_k) = 2 Σ_i (2i - K - 1) x_(i), which costs O(K log K).

The mean of K samples has a higher PSNR than each of them, and the best of K than their mean: `best_and_mean` gives both, as
the best alone says how large K was.

References:
    Fortin et al., Why Should Ensemble Spread Match the RMSE of the Ensemble Mean?, J. Hydrometeorology 2014 (spread, error, K).
    Hamill, Interpretation of Rank Histograms for Verifying Ensemble Forecasts, Monthly Weather Review 2001.
    Czado, Gneiting, Held, Predictive Model Assessment for Count Data, Biometrics 2009 (ranks spread evenly).
    Ferro, Fair Scores for Ensemble Forecasts, Quarterly Journal of the Royal Meteorological Society 2014.
    Gneiting and Raftery, Strictly Proper Scoring Rules, Prediction, and Estimation, JASA 2007.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from cclight.metrics.quantity import Quantity

LEVELS = tuple(n / 10 for n in range(1, 10))
EQUAL = 1e-5  # numbers closer than this part of the range are one number: rounding in float32
_CHUNK = 1 << 20  # numbers of the samples that are looked at together
_CAP = 100.0  # dB, as of `cclight.metrics.image.PSNR`

_INF = math.inf
POSTERIOR = (
    Quantity("mean_psnr", "PSNR of the mean (dB)", "higher", (0, _CAP), "mean over images; the mean of the samples and x", 2),
    Quantity("diversity", "diversity", "none", (0, _INF), "RMS distance of two samples over the range, by pixel"),
    Quantity("spread_error", "spread / error", "none", (0, _INF), "(1 + 1/K) variance / squared error of the mean, ideal 1"),
    Quantity("crps", "CRPS", "lower", (-_INF, _INF), "fair continuous ranked probability score over the range, by pixel", 4),
    Quantity("coverage_50", "coverage of 50 %", "none", (0, 1), "pixels inside the central interval of 50 %, ideal 0.5"),
    Quantity("coverage_90", "coverage of 90 %", "none", (0, 1), "pixels inside the central interval of 90 %, ideal 0.9"),
    Quantity(
        "calibration_error",
        "calibration error",
        "lower",
        (0, 0.5),
        "|coverage - nominal| of all images together, mean of 0.1 to 0.9",
    ),
)
"""What the numbers of `posterior_metrics` are."""


@dataclass(frozen=True)
class BestAndMean:
    """A metric of K samples of one image.

    Attributes:
        best: of the sample that is best by it; it improves with K, whatever the samples.
        mean: over the samples.
    """

    best: float
    mean: float


def best_and_mean(values: Sequence[float] | Tensor, direction: Literal["higher", "lower"]) -> BestAndMean:
    """The best of K beside the mean of K.

    Args:
        values: a metric of each sample, (K,).
        direction: which way is better, as the metric's `Quantity` says.

    Raises:
        ValueError: for no values.
    """
    numbers = [float(value) for value in values]
    if not numbers:
        raise ValueError("The best of no samples: give the metric of each sample.")
    return BestAndMean(max(numbers) if direction == "higher" else min(numbers), math.fsum(numbers) / len(numbers))


@dataclass(frozen=True)
class Reliability:
    """A reliability curve: how often the truth lies in intervals that claim to hold it.

    Attributes:
        nominal: the levels claimed.
        actual: the coverage found at each.
    """

    nominal: tuple[float, ...]
    actual: tuple[float, ...]

    @property
    def calibration_error(self) -> float:
        """The mean of abs(actual - nominal)."""
        return math.fsum(abs(a - n) for a, n in zip(self.actual, self.nominal, strict=True)) / len(self.nominal)


@dataclass(frozen=True)
class Evidence:
    """What the pixels of images, or of parts of one, say about K samples: sums, which `+` adds up.

    Attributes:
        data_range: the largest value less the smallest one, 2 for images in [-1, 1].
        pixels: how many numbers were looked at.
        error: the sum of (x̄ - x)².
        variance: the sum of s².
        crps: the sum of the fair scores, in the units of the data.
        ranks: how many pixels had each rank 0 … K, in fractions where the truth equals samples.
    """

    data_range: float
    pixels: int
    error: float
    variance: float
    crps: float
    ranks: tuple[float, ...]

    def __add__(self, other: Evidence) -> Evidence:
        """Both together.

        Raises:
            ValueError: for another K or data range.
        """
        if (self.data_range, self.samples) != (other.data_range, other.samples):
            raise ValueError(
                f"{self.samples} samples on a range of {self.data_range:g} do not add up with {other.samples} on "
                f"{other.data_range:g}: pool images of as many samples and one range."
            )
        ranks = tuple(a + b for a, b in zip(self.ranks, other.ranks, strict=True))
        pixels, error, variance = self.pixels + other.pixels, self.error + other.error, self.variance + other.variance
        return Evidence(self.data_range, pixels, error, variance, self.crps + other.crps, ranks)

    @property
    def samples(self) -> int:
        """K."""
        return len(self.ranks) - 1

    @property
    def mean_psnr(self) -> float:
        """PSNR of the samples' mean in dB; of several images that of their pooled error, where tables want a mean."""
        error = self.error / self.pixels
        return min(_CAP, 10 * math.log10(self.data_range**2 / error)) if error else _CAP

    @property
    def diversity(self) -> float:
        """The root mean square distance of two samples, in units of the range."""
        return math.sqrt(2 * self.variance / self.pixels) / self.data_range

    @property
    def spread_error(self) -> float:
        """Variance over squared error, 1 for ideal samples; NaN where both vanish, as of a measurement that tells all."""
        if self.error == 0:
            return math.inf if self.variance else math.nan
        return (1 + 1 / self.samples) * self.variance / self.error

    @property
    def score(self) -> float:
        """The fair CRPS in units of the range."""
        return self.crps / self.pixels / self.data_range

    def coverage(self, level: float) -> float:
        """How often the truth lies in the central interval; NaN where all samples and the truth agree everywhere.

        Args:
            level: the interval's nominal probability, between 0 and 1.

        Raises:
            ValueError: for a level out of range.
        """
        if not 0 <= level <= 1:
            raise ValueError(f"The level of an interval is a probability, got {level}.")
        total, places = math.fsum(self.ranks), len(self.ranks)
        if not total:
            return math.nan
        low, high = places * (1 - level) / 2, places * (1 + level) / 2
        inside = (count * max(0.0, min(r + 1, high) - max(r, low)) for r, count in enumerate(self.ranks))
        return math.fsum(inside) / total

    def reliability(self, levels: Sequence[float] = LEVELS) -> Reliability:
        """Coverage at each level."""
        return Reliability(tuple(levels), tuple(self.coverage(level) for level in levels))

    def as_dict(self) -> dict[str, float]:
        """The numbers of `POSTERIOR` by name."""
        return {
            "mean_psnr": self.mean_psnr,
            "diversity": self.diversity,
            "spread_error": self.spread_error,
            "crps": self.score,
            "coverage_50": self.coverage(0.5),
            "coverage_90": self.coverage(0.9),
            "calibration_error": self.reliability().calibration_error,
        }


def evidence(samples: Any, truth: Any, data_range: float) -> Evidence:
    """What all pixels of one image say, a few at a time.

    Args:
        samples: (K, ...), a tensor or a NumPy array, which may be a memory map: at most 8 MB of it are copied at once.
        truth: the clean image, (...), finite as they are.
        data_range: the largest value less the smallest one, 2 for images in [-1, 1].

    Raises:
        ValueError: for K < 2, shapes that do not fit, a range that is not positive, values that are not finite.
    """
    count, shape = len(samples), tuple(truth.shape)
    if tuple(samples.shape[1:]) != shape:
        raise ValueError(f"{count} samples of shape {tuple(samples.shape[1:])} and a truth of shape {shape}: give one shape.")
    if count < 2:
        raise ValueError(f"Spread and calibration need samples >= 2 of each measurement, got {count}: --samples 8 makes eight.")
    if not 0 < data_range < math.inf:
        raise ValueError(f"data_range is the largest value less the smallest one, got {data_range}.")
    if not math.prod(shape):
        raise ValueError(f"An image of shape {shape} has no pixels.")
    flat, clean = samples.reshape(count, -1), truth.reshape(-1)
    step = max(1, _CHUNK // count)
    parts = [
        _evidence(_float64(flat[:, at : at + step]), _float64(clean[at : at + step]), data_range)
        for at in range(0, len(clean), step)
    ]
    return sum(parts[1:], parts[0])


def posterior_metrics(samples: Any, truth: Any, data_range: float) -> dict[str, float]:
    """The numbers of `POSTERIOR` of one image by name; arguments and errors as of `evidence`."""
    return evidence(samples, truth, data_range).as_dict()


def _float64(values: Any) -> Tensor:
    return values.cpu().double() if isinstance(values, Tensor) else torch.from_numpy(np.array(values, dtype=np.float64))


def _evidence(x: Tensor, truth: Tensor, data_range: float) -> Evidence:
    """The evidence of a few pixels: (K, n) and (n,), float64."""
    off = (x - truth).sort(dim=0).values
    if not bool(off.isfinite().all()):
        raise ValueError("Samples or truth hold NaN or infinity: leave such images out.")
    count = len(off)
    places = torch.arange(1 - count, count, 2, dtype=off.dtype)  # 2i - K - 1
    score = off.abs().mean(0) - (places @ off) / (count * (count - 1))
    return Evidence(
        data_range,
        len(truth),
        float(off.mean(0).square().sum()),
        float(off.var(0).sum()),
        float(score.sum()),
        tuple(_ranks(off, EQUAL * data_range).tolist()),
    )


def _ranks(off: Tensor, equal: float) -> Tensor:
    """How many pixels have each rank, (K + 1,), of the samples' sorted distances from the truth, (K, n)."""
    count = len(off)
    off = off[:, torch.maximum(off[-1], -off[0]).maximum(off[-1] - off[0]) > equal]
    below, same = (off < -equal).sum(0), (off.abs() <= equal).sum(0)
    share = 1 / (same + 1).double()
    # Each pixel adds its share to the ranks below … below + same: up at the first, down after the last, then summed.
    steps = torch.zeros(count + 2, dtype=torch.float64)
    steps.index_add_(0, below, share).index_add_(0, below + same + 1, -share)
    return steps.cumsum(0)[: count + 1].clamp_min(0)
