r"""What is measured: numbers per image, their mean, and how far the mean can be trusted.

Every number says what it is (`Quantity`): its direction, range, input and what it aggregates. Per-image metrics compare the
restored image x̂ with the clean x, both clamped to [-1, 1] and not rounded to 8 bits:

| metric        | definition                                                                                    | better |
|---------------|-----------------------------------------------------------------------------------------------|--------|
| `PSNR`        | 10 log10(4 / mean (x̂ - x)²) dB, of each image; never of a pooled squared error                  | higher |
| `NRMSE`       | ‖x̂ - x‖ / ‖x‖ in the units of the data: the relative error                                      | lower  |
| `SSIM`        | Wang et al. 2004: Gaussian window of 11, σ 1.5, on [0, 1], borders reflected                    | higher |
| `MSSSIM`      | Wang et al. 2003: five scales, sides of 176 pixels or more                                     | higher |
| `LPIPS`       | Zhang et al. 2018, on [-1, 1]; the paper's tables use net "alex"                                | lower  |
| consistency   | the root mean square of H x̂ - y                                                                | lower  |
| NFE, seconds  | network evaluations and time spent on each image                                              | lower  |

Arrays (`cclight.data.units`) are not clamped unless their values end. Those with a range are measured on it as photographs are
on [-1, 1]; those with a mean and standard deviation on each clean image's own range.

The interval around a mean is a 95 % bootstrap percentile interval over images. What cannot be measured is reported as
unavailable, with the reason and the remedy, and never left out.

References:
    Wang et al., Image Quality Assessment: From Error Visibility to Structural Similarity, IEEE TIP 2004.
    Wang et al., Multiscale Structural Similarity for Image Quality Assessment, Asilomar 2003.
    Zhang et al., The Unreasonable Effectiveness of Deep Features as a Perceptual Metric, CVPR 2018.
    Efron and Tibshirani, An Introduction to the Bootstrap, 1993.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from typing import ClassVar

import torch
from torch import Tensor

from cclight.data.units import Units
from cclight.metrics.perceptual import BACKBONES, Net, as_rgb, load_network
from cclight.metrics.quantity import Quantity, Unavailable
from cclight.priors.base import per_image

_LIGHT = Units(0.5, 0.5)


class ImageMetric(ABC):
    """A metric of one restored image against the clean one. To add one, subclass, set `quantity` and write `measure`."""

    quantity: Quantity
    in_units: ClassVar[bool] = False  # whether `measure` is given the numbers of the data, of photographs light in [0, 1]

    def prepare(self, device: torch.device) -> None:  # noqa: B027 - most metrics need nothing
        """Get ready, before any long work: load weights onto the device.

        Raises:
            Unavailable: naming the reason and the remedy.
        """

    @abstractmethod
    def measure(self, restored: Tensor, clean: Tensor) -> Tensor:
        """The metric of each image.

        Args:
            restored: (B, C, H, W) in [-1, 1], float32, finite; arrays are (B, C, ...), and may leave the range.
            clean: the same shape and range.

        Returns:
            (B,).

        Raises:
            Unavailable: for images it is not defined on.
        """

    @torch.no_grad()
    def __call__(self, restored: Tensor, clean: Tensor, units: Units | None = None) -> Tensor:
        """`measure` on images of any floating dtype, clamped where they end: (B, C, ...) twice -> (B,), float64 on the CPU.

        Args:
            restored: as the prior knows images.
            clean: the same shape.
            units: what the numbers of arrays mean; None for photographs.
        """
        a, b = restored.float(), clean.float()
        if units is None or units.ends:
            a, b = a.clamp(-1, 1), b.clamp(-1, 1)
        if self.in_units:
            own = _LIGHT if units is None else units
            a, b = own.values(a), own.values(b)
        elif units is not None and not units.ranged:
            low, high = (per_image(bound, b) for bound in torch.aminmax(b.flatten(1), dim=1))
            span = torch.where(high > low, high - low, 1)
            a, b = (2 * (part - low) / span - 1 for part in (a, b))
        values = self.measure(a, b).reshape(-1).cpu().double()
        if len(values) != len(a):
            raise ValueError(f"{type(self).__name__} measures {len(a)} images by {len(values)} numbers: give one for each.")
        return values


class PSNR(ImageMetric):
    """Peak signal-to-noise ratio of each image in dB, capped at 100 dB: identical images have no finite one."""

    quantity = Quantity("psnr", "PSNR (dB)", "higher", (0, 100), "mean over images; x̂ and x in [-1, 1]", 2)

    def measure(self, restored: Tensor, clean: Tensor) -> Tensor:
        from torchmetrics.functional.image import peak_signal_noise_ratio

        # In float64, on the CPU because not every accelerator has it: float32 keeps only 2e-6 dB.
        a, b = restored.cpu().double(), clean.cpu().double()
        return peak_signal_noise_ratio(a, b, data_range=2.0, dim=tuple(range(1, a.ndim)), reduction="none").clamp(max=100)


class NRMSE(ImageMetric):
    """Relative error ‖x̂ - x‖ / ‖x‖ of each image, in the units of the data; of photographs light is in [0, 1]."""

    quantity = Quantity("nrmse", "NRMSE", "lower", (0, math.inf), "mean over images; ‖x̂ - x‖ / ‖x‖ in the data's units", 4)
    in_units = True

    def measure(self, restored: Tensor, clean: Tensor) -> Tensor:
        size = clean.flatten(1).double().norm(dim=1)
        if not bool(size.all()):
            raise Unavailable("NRMSE is relative to the clean image, and one is 0 everywhere")
        return (restored - clean).flatten(1).double().norm(dim=1) / size


class SSIM(ImageMetric):
    """Structural similarity of each image (Wang et al. 2004), for images and volumes of 11 pixels a side or more.

    As in torchmetrics, the image is reflected at its borders; scikit-image leaves out a border of 5 pixels instead.
    """

    quantity = Quantity("ssim", "SSIM", "higher", (-1, 1), "mean over images; x̂ and x in [0, 1], Gaussian window of 11")

    def measure(self, restored: Tensor, clean: Tensor) -> Tensor:
        from torchmetrics.functional.image import structural_similarity_index_measure

        _need_side(self.quantity, restored, 11)
        # Not shift-invariant: the convention is [0, 1].
        a, b = (restored + 1) / 2, (clean + 1) / 2
        value = structural_similarity_index_measure(a, b, data_range=1.0, reduction="none")
        assert isinstance(value, Tensor)
        return value


class MSSSIM(ImageMetric):
    """Multi-scale structural similarity of each image (Wang et al. 2003), for images of 176 × 176 pixels or more."""

    quantity = Quantity("ms_ssim", "MS-SSIM", "higher", (0, 1), "mean over images; x̂ and x in [0, 1], five scales")

    def measure(self, restored: Tensor, clean: Tensor) -> Tensor:
        from torchmetrics.functional.image import multiscale_structural_similarity_index_measure

        _need_side(self.quantity, restored, 176)
        a, b = (restored + 1) / 2, (clean + 1) / 2
        return multiscale_structural_similarity_index_measure(a, b, data_range=1.0, reduction="none", normalize="relu")


class LPIPS(ImageMetric):
    """Learned perceptual image patch similarity (Zhang et al. 2018), for 1 or 3 channels and sides of 32 pixels or more.

    Args:
        net: the backbone, whose ImageNet weights torchvision downloads once: squeeze (5 MB), alex (233 MB, what papers report)
            or vgg (528 MB). Values of different nets do not compare.
    """

    def __init__(self, net: Net = "squeeze") -> None:
        if net not in BACKBONES:
            raise ValueError(f"LPIPS knows no net {net!r}: choose one of {', '.join(BACKBONES)}.")
        self.net = net
        self.quantity = Quantity(
            "lpips", f"LPIPS ({net})", "lower", (0, math.inf), f"mean over images; x̂ and x in [-1, 1], {net} features"
        )
        self._network: torch.nn.Module | None = None

    def prepare(self, device: torch.device) -> None:
        self._network = load_network(self.net).to(device)

    def measure(self, restored: Tensor, clean: Tensor) -> Tensor:
        if self._network is None:
            self.prepare(restored.device)
        assert self._network is not None
        return self._network(as_rgb(restored), as_rgb(clean))


def default_metrics() -> list[ImageMetric]:
    """PSNR, SSIM, MS-SSIM and LPIPS (squeeze)."""
    return [PSNR(), SSIM(), MSSSIM(), LPIPS()]


def array_metrics() -> list[ImageMetric]:
    """PSNR, NRMSE and SSIM."""
    return [PSNR(), NRMSE(), SSIM()]


def _need_side(quantity: Quantity, images: Tensor, side: int) -> None:
    sides = images.shape[2:]
    size = "×".join(map(str, sides)) or "single numbers"
    if len(sides) not in (2, 3):
        raise Unavailable(
            f"{quantity.title} is defined on images and volumes, and not on arrays of {len(sides)} sides ({size})"
        )
    if min(sides) < side:
        raise Unavailable(f"{quantity.title} needs sides of {side} pixels or more, the images are {size}")
