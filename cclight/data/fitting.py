r"""Fitting: a measurement that was given, of any size, on a canvas that the operator and the prior can take.

A picture's sides are what they are, a prior wants them divisible by its stride, and a blurred picture depends on what lies
beyond its border, where an operator sees grey or the opposite side. So y moves onto a larger canvas, the restoration is cut
back, and pixels that were measured as they are, without noise, are put back as they were.

Beyond the border of a blurred picture goes what H makes of a smooth image that agrees with y inside: with the mask m of what
was measured and D the differences of neighbours,

    x = argmin |m (H x - y)|² + λ |D x|²,        y on the canvas = m y + (1 - m) H x.

Copies of the last pixel would be no H of anything; inverted, they are streaks along the border.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn.functional import interpolate, pad

from cclight.operators.base import LinearOperator, Operator
from cclight.operators.conjugate_gradients import least_squares
from cclight.operators.masks import FixedMask, Inpainting
from cclight.priors.base import Prior
from cclight.priors.tiled import Tiled

if TYPE_CHECKING:
    from cclight.data.noise import Source
    from cclight.samplers.base import Sampler

SMOOTHNESS, ITERATIONS = 1e-3, 40  # λ without noise; conjugate gradients


class OutOfMemory(RuntimeError):
    """Memory that a restoration asked for in vain; who asks knows the remedies."""


@dataclass(frozen=True)
class Solved:
    """What a sampler makes of a fitted batch.

    Attributes:
        image: on the canvas, clamped to [-1, 1] where values end there, (B, C, H, W); NaN where the sampler gave NaN.
        finite: whether each is free of NaN and infinity, (B,), on the CPU.
        nfe: network evaluations spent on each image.
    """

    image: Tensor
    finite: Tensor
    nfe: int


@dataclass(frozen=True)
class Fitted:
    """A batch of measurements on its canvas.

    Attributes:
        y: the measurements, (B, ...).
        operator: what made them of images on the canvas.
        shape: (C, H, W) of images on the canvas.
        rows, columns: where the picture lies in such an image.
        inside: where it lies in y: an index for y's last two dimensions, or None where y was left as it is.
        known: pixels that need no restoring, (B, C, h, w) with NaN where nothing is known; None where none is.
    """

    y: Tensor
    operator: Operator
    shape: tuple[int, ...]
    rows: slice
    columns: slice
    inside: tuple[slice, slice] | None = None
    known: Tensor | None = None

    def solve(
        self,
        sampler: Sampler,
        prior: Prior,
        noise: Tensor,
        noise_std: float | Tensor,
        generators: Sequence[Source] | None,
        label: Tensor | None = None,
        ends: bool = True,
    ) -> Solved:
        """Restore the batch on its canvas; returns when the device is done. The arguments are `Sampler.sample`'s.

        `ends` says that images end at -1 and 1, as photographs do, and clamps them there.

        Raises:
            OutOfMemory: when the memory is not enough.
        """
        noise_std = self._on_canvas(noise_std) if isinstance(noise_std, Tensor) else noise_std
        try:
            made = sampler.sample(prior, self.operator, self.y, noise, noise_std=noise_std, generators=generators, label=label)
            finite = made.image.isfinite().flatten(1).all(dim=1).cpu()  # waits for the device
        except (MemoryError, RuntimeError) as error:
            if not _is_out_of_memory(error):
                raise
            size = "×".join(map(str, noise.shape[-2:]))
            images = f"{len(noise)} images of {size} pixels at once" if len(noise) > 1 else f"an image of {size} pixels"
            raise OutOfMemory(f"out of memory on {noise.device} with {images}") from error
        return Solved(made.image.clamp(-1, 1) if ends else made.image, finite, made.nfe)

    def _on_canvas(self, noise_std: Tensor) -> Tensor:
        """The standard deviations of a picture's numbers, those of its border going on beyond it."""
        if self.inside is None:
            return noise_std
        rows, columns = self.inside
        height, width = self.y.shape[-2:]
        own = noise_std.expand(self.y.shape[1], rows.stop - rows.start, columns.stop - columns.start)
        beyond = (columns.start, width - columns.stop, rows.start, height - rows.stop)
        return pad(own[None], beyond, mode="replicate")

    def cut(self, image: Tensor) -> Tensor:
        """The picture, (B, C, h, w), of a restoration on the canvas, (B, C, H, W); known pixels are put back."""
        picture = image[..., self.rows, self.columns]
        return picture if self.known is None else torch.where(self.known.isnan(), picture, self.known.to(picture))

    @torch.no_grad()
    def residual(self, image: Tensor) -> Tensor:
        """The root mean square of H x - y inside the picture, (B,), of images x on the canvas."""
        difference = self.operator(image) - self.y
        if self.inside is not None:
            difference = difference[(..., *self.inside)]
        return difference.abs().square().flatten(1).mean(dim=1).sqrt()


@torch.no_grad()
def fit(operator: Operator, y: Tensor, prior: Prior | None, noise_std: float | Tensor = 0.0) -> Fitted:
    """Move measurements onto the smallest canvas that operator and prior can take.

    Args:
        operator: the degradation H, on y's device.
        y: measurements, (B, ...). Only pictures, (B, c, h, w) of a whole number of image pixels each, can be continued.
        prior: the denoiser; None asks for nothing.
        noise_std: σ_y, in units of [-1, 1] images.

    Raises:
        ValueError: where y is no measurement of the operator, or too large for the prior.
    """
    noise_std = float(noise_std.mean()) if isinstance(noise_std, Tensor) else noise_std
    scale = _scale(operator, y)
    if scale is None:
        shape = tuple(operator.pinv(y[:1]).shape[1:])
        return Fitted(y, operator, shape, slice(None), slice(None))
    height, width = y.shape[-2:]
    reach = operator.reach
    across, down = (_canvas(side, number, reach, scale, prior) for number, side in ((2, width), (1, height)))
    known = None
    if isinstance(operator, Inpainting):
        y, operator, known = _inpainting(operator, y, (*across, *down), noise_std)
        canvas = y
    else:
        canvas = pad(y, (*across, *down), mode="replicate")
    shape = _image_shape(operator, canvas)
    made = tuple(operator(canvas.new_zeros(1, *shape)).shape[1:])
    if made != canvas.shape[1:]:
        made = (made[0], height, width) if made[1:] == canvas.shape[2:] else made
        raise ValueError(
            f"{type(operator).__name__} makes measurements of shape {made}, and this one has {tuple(y.shape[1:])} (channels, "
            "height, width): set data.channels, or choose the operator that made it"
        )
    inside = (slice(down[0], down[0] + height), slice(across[0], across[0] + width))
    if reach and isinstance(operator, LinearOperator):
        canvas = _continued(operator, canvas, shape, inside, SMOOTHNESS + noise_std**2)
    rows, columns = (slice(s.start * scale, s.stop * scale) for s in inside)
    return Fitted(canvas, operator, shape, rows, columns, inside, known)


def _image_shape(operator: Operator, y: Tensor) -> tuple[int, ...]:
    if isinstance(operator, LinearOperator):
        return tuple(operator.image_shape(tuple(y.shape[1:])))
    return tuple(operator.pinv(y[:1]).shape[1:])


def _scale(operator: Operator, y: Tensor) -> int | None:
    """How many image pixels a side of a measured pixel has; None where y is no picture of whole pixels."""
    if y.dim() != 4 or y.is_complex():
        return None
    shape = _image_shape(operator, y)
    (rows, no_rows), (columns, no_columns) = (divmod(shape[side], y.shape[side]) for side in (-2, -1))
    return rows if rows == columns and rows > 0 and no_rows == no_columns == 0 else None


def _canvas(side: int, number: int, reach: int, scale: int, prior: Prior | None) -> tuple[int, int]:
    """By how much a side of y grows at its beginning and its end; `number` is the side's in (C, H, W)."""
    least = side + 2 * reach
    if isinstance(prior, Tiled) and prior.prior.image_shape is not None:
        least = max(least, -(-prior.tile // scale))  # a tile, and there are no smaller ones
    if prior is None or prior.image_shape is None:
        stride = 1 if prior is None else prior.stride
        multiple = stride // math.gcd(stride, scale)
        return reach, least + -least % multiple - side - reach
    own = prior.image_shape[number]
    if least * scale > own:
        raise ValueError(
            f"{type(prior).__name__} takes images of {own} pixels a side, and this one is {side * scale} with a margin of "
            f"{reach}: cut it into pieces, or show the prior tiles of it with model.prior Tiled."
        )
    return reach, own // scale - side - reach


def _inpainting(
    operator: Inpainting, y: Tensor, padding: tuple[int, int, int, int], noise_std: float
) -> tuple[Tensor, Inpainting, Tensor | None]:
    """A picture with holes: whatever stands in them goes, and a hole at the border goes on beyond it."""
    kept = operator.mask(tuple(y.shape[1:])).to(y.device)
    known = None if noise_std > 0 else torch.where(kept, y, torch.nan)
    extended = pad(kept[None].to(y.dtype), padding, mode="replicate")
    fitted = Inpainting(FixedMask(extended[0] > 0.5), operator.fill)
    return pad(y, padding, mode="replicate") * extended, fitted, known


def _continued(
    operator: LinearOperator, canvas: Tensor, shape: tuple[int, ...], inside: tuple[slice, slice], smoothness: float
) -> Tensor:
    """The given y inside; beyond, what H makes of a smooth image that agrees with it."""
    measured = torch.zeros_like(canvas[:1, :1])
    measured[(..., *inside)] = 1
    weight = math.sqrt(smoothness)
    sizes = [math.prod(canvas.shape[1:])]
    steps: list[tuple[int, ...]] = []
    for dim in (2, 3):
        step = [canvas.shape[0], *shape]
        step[dim] -= 1
        steps.append(tuple(step))
        sizes.append(math.prod(step[1:]))

    def forward(x: Tensor) -> Tensor:
        parts = [measured * operator(x), weight * x.diff(dim=2), weight * x.diff(dim=3)]
        return torch.cat([part.flatten(1) for part in parts], dim=1)

    def adjoint(parts: Tensor) -> Tensor:
        hx, down, across = parts.split(sizes, dim=1)
        down, across = (part.view(step) for part, step in zip((down, across), steps, strict=True))
        smooth = pad(down, (0, 0, 1, 0)) - pad(down, (0, 0, 0, 1)) + pad(across, (1, 0)) - pad(across, (0, 1))
        return operator.adjoint(measured * hx.view(canvas.shape)) + weight * smooth

    start = interpolate(canvas, size=shape[-2:], mode="nearest")
    start = start if start.shape[1] == shape[0] else start.mean(1, keepdim=True).expand(-1, shape[0], -1, -1)
    target = torch.cat([(measured * canvas).flatten(1), canvas.new_zeros(canvas.shape[0], sum(sizes[1:]))], dim=1)
    correction = least_squares(forward, adjoint, target - forward(start), tolerance=1e-4, max_iterations=ITERATIONS)
    return torch.where(measured > 0, canvas, operator(start + correction.x))


def _is_out_of_memory(error: BaseException) -> bool:
    words = str(error).lower()
    return (
        isinstance(error, MemoryError | torch.OutOfMemoryError)
        or "out of memory" in words
        or "not enough memory" in words  # torch on the CPU: DefaultCPUAllocator
        or "can't allocate memory" in words
    )
