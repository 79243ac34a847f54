r"""Fourier sampling, as in magnetic resonance imaging: some frequencies of the image are measured, the others are missing.

    y = m · F x,      F the orthonormal Fourier transform, m in {0, 1}, 1 where a frequency is measured.

Frequency 0 lies in the middle of y and of the mask, as the raw data of scanners come (the transform of fastMRI and of
InverseBench). What images mean decides the singular value decomposition, which is exact for every mask:

| images                               | s                           | Vᵀ x                                       |
|--------------------------------------|-----------------------------|--------------------------------------------|
| real, each channel by itself         | √((m(k) + m(-k)) / 2)       | Hartley's transform, Re F x - Im F x       |
| complex, two channels (re, im)       | m(k)                        | F x as two channels                        |

A real image's frequencies k and -k hold the same: measured once they count half (s² = 1/2), measured twice they count whole.

`MultiCoil` sees the image through the sensitivity S_c of each coil, y_c = m · F S_c x, for which there is no such
decomposition: noise is taken by Lanczos' method, H⁺ by conjugate gradients.

References:
    Zbontar et al., fastMRI: An Open Dataset and Benchmarks for Accelerated MRI, arXiv 1811.08839, 2018.
    Pruessmann et al., SENSE: Sensitivity Encoding for Fast MRI, Magnetic Resonance in Medicine 42, 1999.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from cclight.operators.base import LinearOperator, SpectralOperator
from cclight.operators.masks import FixedMask, Mask, MaskLike
from cclight.operators.own import own_array
from cclight.operators.tables import Table

if TYPE_CHECKING:
    import numpy as np


class CartesianLines(Mask):
    """Columns of frequencies that a scanner takes: all around the middle, and so many of the others that one in R is left.

    Args:
        acceleration: R > 1: one column in R is measured, those of the middle counted.
        centre: the share of the columns around the middle that are all measured, in [0, 1/R];
            0.08 is usual at R = 4, 0.04 at 8.
        equispaced: the others at equal distances; else at random.
        seed: which columns.

    Raises:
        ValueError: for values outside these ranges.
    """

    def __init__(self, acceleration: float = 4.0, centre: float = 0.08, equispaced: bool = False, seed: int = 0) -> None:
        if not 1 < acceleration < float("inf"):
            raise ValueError(f"CartesianLines needs an acceleration > 1, got {acceleration}.")
        if not 0 <= centre <= 1 / acceleration:
            raise ValueError(
                f"CartesianLines at acceleration {acceleration:g} measures {1 / acceleration:.3g} of the columns, and centre "
                f"asks for {centre:g} of them: give one from 0 to {1 / acceleration:.3g}."
            )
        self.acceleration = acceleration
        self.centre = centre
        self.equispaced = equispaced
        self.seed = seed

    def __call__(self, image_shape: tuple[int, ...]) -> Tensor:
        width = image_shape[-1]
        wanted = max(1, round(width / self.acceleration))
        middle = min(wanted, round(self.centre * width))
        kept = torch.zeros(width, dtype=torch.bool)
        first = width // 2 - middle // 2
        kept[first : first + middle] = True
        others = (~kept).nonzero().flatten()
        generator = torch.Generator().manual_seed(self.seed)
        if self.equispaced:
            offset = torch.rand((), generator=generator, dtype=torch.float64)
            spread = (torch.arange(wanted - middle) + offset) * (len(others) / max(1, wanted - middle))
            chosen = spread.long().clamp(max=len(others) - 1)
        else:
            chosen = torch.randperm(len(others), generator=generator)[: wanted - middle]
        kept[others[chosen]] = True
        return kept.expand(1, *image_shape[-2:])


class FourierSampling(SpectralOperator):
    """Masked, orthonormal Fourier transform: y is complex, (B, C, H, W), zero where nothing is measured.

    Args:
        mask: which frequencies are measured, 0 in the middle; a `Mask` or what `FixedMask` takes; None is `CartesianLines()`.
        complex_images: images have two channels, real and imaginary part, and y has one; else every channel is real.
    """

    least_sides = 2

    def __init__(self, mask: MaskLike | None = None, complex_images: bool = False) -> None:
        super().__init__()
        self.mask = _mask(mask)
        self.complex_images = complex_images
        self.per_image = self.mask.per_image
        self._measured = Table(self._draw)

    def of(self, name: str, parameters: Mapping[str, Tensor] | None = None) -> FourierSampling:
        return FourierSampling(self.mask.of(name, parameters), self.complex_images) if self.per_image else self

    def image_shape(self, measurement_shape: tuple[int, ...]) -> tuple[int, ...]:
        return (2, *measurement_shape[1:]) if self.complex_images else measurement_shape

    def forward(self, x: Tensor) -> Tensor:
        self.check_images(tuple(x.shape[1:]))
        k = _to_frequencies(self._seen(x))
        return k * self._kept(k)

    def adjoint(self, y: Tensor) -> Tensor:
        x = _from_frequencies(y * self._kept(y))
        return _channels(x) if self.complex_images else x.real

    def spectral(self, x: Tensor) -> Tensor:
        k = torch.fft.fft2(self._seen(x), norm="ortho")
        return (_channels(k) if self.complex_images else k.real - k.imag).to(x.dtype)

    def from_spectral(self, z: Tensor) -> Tensor:
        if not self.complex_images:
            return self.spectral(z)  # Hartley's transform is its own inverse
        return _channels(torch.fft.ifft2(self._seen(z), norm="ortho")).to(z.dtype)

    def singular_values(self, image_shape: tuple[int, ...]) -> Tensor:
        (kept,) = self._measured.exact(tuple(image_shape))
        m = torch.fft.ifftshift(kept, dim=(-2, -1))
        if self.complex_images:
            return m
        mirrored = torch.roll(m.flip(-2, -1), (1, 1), (-2, -1))  # m(-k)
        return ((m + mirrored) / 2).sqrt()

    def check_images(self, shape: tuple[int, ...]) -> None:
        super().check_images(shape)
        if self.complex_images and shape[0] != 2:
            raise ValueError(
                f"FourierSampling of complex images takes 2 channels, real and imaginary part, got {shape[0]}: give it such, "
                "or set complex_images to false."
            )
        if not self.per_image:
            self._measured.exact(tuple(shape))

    def _seen(self, x: Tensor) -> Tensor:
        """Images as the transform takes them: real ones, or of two channels one complex one."""
        wide = x.to(torch.promote_types(x.dtype, torch.float32))  # Fourier transforms know no half precision
        return _complex(wide) if self.complex_images else wide

    def _kept(self, k: Tensor) -> Tensor:
        shape = (2 if self.complex_images else k.shape[1], *k.shape[2:])
        return self._measured.like(shape, k.real)[0]

    def _draw(self, image_shape: tuple[int, ...]) -> tuple[Tensor]:
        channels = 1 if self.complex_images else image_shape[0]
        return (self.mask((channels, *image_shape[1:])).double(),)


# Hidden from jsonargparse, which reads blocks for type checkers and would offer tensors in configurations.
if not TYPE_CHECKING:  # noqa: SIM108
    MapsLike = str
else:
    MapsLike = str | Tensor | np.ndarray


class MultiCoil(LinearOperator):
    """Fourier sampling through several receiver coils: complex images (B, 2, H, W) become complex y, (B, coils, H, W).

    Args:
        maps: the coils' sensitivities S_c, complex (coils, H, W): an array file, a tensor or an array; None takes
            those that lie beside each image in its array file, as maps.
        mask: which frequencies are measured, 0 in the middle; a `Mask` or what `FixedMask` takes; None is `CartesianLines()`.
        tolerance: conjugate gradients are done with an image at ||Hᵀ (y - H x)|| <= tolerance · ||Hᵀ y||.
        max_iterations: where they stop at the latest, with a warning.

    Raises:
        FileNotFoundError: where there is no such file.
        ValueError: where it holds no maps.
    """

    def __init__(
        self, maps: MapsLike | None = None, mask: MaskLike | None = None, tolerance: float = 1e-4, max_iterations: int = 200
    ) -> None:
        super().__init__()
        self._own_maps = maps is None
        self.maps = torch.empty(0, 0, 0) if maps is None else _maps(maps)
        self.mask = _mask(mask)
        self.per_image = self.mask.per_image or self._own_maps
        self.tolerance = tolerance
        self.max_iterations = max_iterations
        self._tables = Table(self._draw)

    def of(self, name: str, parameters: Mapping[str, Tensor] | None = None) -> MultiCoil:
        if not self.per_image:
            return self
        maps = own_array("maps", name, parameters) if self._own_maps else self.maps
        return MultiCoil(maps, self.mask.of(name, parameters), self.tolerance, self.max_iterations)

    def image_shape(self, measurement_shape: tuple[int, ...]) -> tuple[int, ...]:
        return (2, *measurement_shape[1:])

    def forward(self, x: Tensor) -> Tensor:
        self.check_images(tuple(x.shape[1:]))
        wide = _complex(x.to(torch.promote_types(x.dtype, torch.float32)))
        maps, kept = self._like(wide)
        return kept * _to_frequencies(maps * wide)

    def adjoint(self, y: Tensor) -> Tensor:
        maps, kept = self._like(y)
        return _channels((maps.conj() * _from_frequencies(kept * y)).sum(1, keepdim=True))

    def check_images(self, shape: tuple[int, ...]) -> None:
        if self._own_maps:
            return
        expected = (2, *self.maps.shape[1:])
        if tuple(shape) != expected:
            wanted, given = ("×".join(map(str, sides)) for sides in (expected, shape))
            raise ValueError(
                f"MultiCoil's maps are for images of {wanted} (real and imaginary part × height × width), got {given}: give "
                "such images, or maps of their size."
            )
        if not self.per_image:
            self._tables.exact(tuple(shape[-2:]))

    def _like(self, k: Tensor) -> tuple[Tensor, Tensor]:
        real, imaginary, kept = self._tables.like(tuple(k.shape[-2:]), k.real)
        return torch.complex(real, imaginary), kept

    def _draw(self, sides: tuple[int, ...]) -> tuple[Tensor, ...]:
        if self._own_maps:
            raise ValueError("Each image has coil maps of its own: of(name, parameters) has the operator of one.")
        return self.maps.real.clone(), self.maps.imag.clone(), self.mask((1, *sides)).double()


def _mask(mask: MaskLike | None) -> Mask:
    return CartesianLines() if mask is None else mask if isinstance(mask, Mask) else FixedMask(mask)


def _maps(given: MapsLike) -> Tensor:
    """Coil sensitivities as complex128 on the CPU, (coils, H, W)."""
    import numpy as np

    what = "MultiCoil's maps"
    if isinstance(given, str | Path):
        what = f"The coil maps {given}"
        file = Path(given).expanduser()
        if not file.is_file():
            raise FileNotFoundError(f"There are no coil maps {given}: give an array file of complex numbers, (coils, H, W).")
        from cclight.data.array_files import read_array

        given = read_array(file, "maps")
    if not isinstance(given, Tensor):
        given = np.asarray(given)
        if given.dtype.kind not in "iufc":
            raise ValueError(f"{what} hold {given.dtype}: give complex numbers, (coils, H, W).")
        given = torch.from_numpy(np.ascontiguousarray(given))
    maps = given.detach().cpu().to(torch.complex128)
    if maps.dim() != 3 or not maps.isfinite().all() or not maps.abs().sum() > 0:
        shape = "×".join(map(str, maps.shape)) or "one number"
        raise ValueError(f"{what} are {shape}: give finite numbers that are not all zero, (coils, H, W).")
    return maps


def _to_frequencies(x: Tensor) -> Tensor:
    """F x, frequency 0 and the image's middle both in the middle."""
    sides = (-2, -1)
    return torch.fft.fftshift(torch.fft.fft2(torch.fft.ifftshift(x, sides), norm="ortho"), sides)


def _from_frequencies(k: Tensor) -> Tensor:
    sides = (-2, -1)
    return torch.fft.fftshift(torch.fft.ifft2(torch.fft.ifftshift(k, sides), norm="ortho"), sides)


def _complex(x: Tensor) -> Tensor:
    """Two channels (re, im) as one complex one."""
    return torch.complex(x[:, :1], x[:, 1:])


def _channels(k: Tensor) -> Tensor:
    """One complex channel as two (re, im)."""
    return torch.cat([k.real, k.imag], dim=1)
