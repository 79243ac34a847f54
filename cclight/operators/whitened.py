r"""Noise that is not one number: every measured number has a standard deviation of its own.

With y = H x + diag(σ_i) n, the weights w_i = σ/σ_i make a measurement whose noise is white again,

    w y = (w H) x + σ n.

σ is the smallest σ_i: then no weight exceeds 1, the norm of w H is at most that of H, and what a sampler measures in units of
images keeps its meaning. w H has no cheap singular value decomposition, also where H has one.
"""

from __future__ import annotations

from torch import Tensor

from cclight.operators.base import LinearOperator, Operator


class Whitened(LinearOperator):
    """w H: an operator weighted so that its measurements' noise has one standard deviation.

    Args:
        operator: H.
        std: σ_i, finite and > 0, of y's number of dimensions and broadcastable to it: (1, ...), or (B, ...) for the images of
            one batch.

    Attributes:
        noise_std: σ, the smallest σ_i.
    """

    def __init__(self, operator: LinearOperator, std: Tensor) -> None:
        super().__init__()
        self.operator = operator
        self.std = std
        self.noise_std = float(std.min())
        self.reach = operator.reach
        self.tolerance, self.max_iterations = operator.tolerance, operator.max_iterations
        self._weight = self.noise_std / std

    def whiten(self, y: Tensor) -> Tensor:
        """W y, (B, ...)."""
        return y * self._weight

    def part(self, images: slice) -> Whitened:
        """The operator of some images of the batch, whose noise is `noise_std` as theirs was together."""
        one = Whitened(self.operator, self.std if len(self.std) == 1 else self.std[images])
        one.noise_std, one._weight = self.noise_std, self.noise_std / one.std
        return one

    def image_shape(self, measurement_shape: tuple[int, ...]) -> tuple[int, ...]:
        return self.operator.image_shape(measurement_shape)

    def forward(self, x: Tensor) -> Tensor:
        return self.whiten(self.operator(x))

    def adjoint(self, y: Tensor) -> Tensor:
        return self.operator.adjoint(self.whiten(y))

    def first_guess(self, pinv_y: Tensor) -> Tensor:
        return self.operator.first_guess(pinv_y)

    def check_images(self, shape: tuple[int, ...]) -> None:
        self.operator.check_images(shape)


def check_shape(noise_std: Tensor, y: Tensor) -> None:
    """Refuse standard deviations that are not those of measurements of y's shape.

    Raises:
        ValueError: naming both shapes and the remedy.
    """
    sides = zip(reversed(noise_std.shape), reversed(y.shape), strict=False)
    if noise_std.ndim > y.ndim or any(own not in (1, side) for own, side in sides):
        each = f", or {(y.shape[0], *[1] * (y.ndim - 1))} for one number for each image" if y.shape[0] > 1 else ""
        raise ValueError(
            f"noise_std has the shape {tuple(noise_std.shape)}, which does not broadcast to y's {tuple(y.shape)}: give "
            f"{tuple(y.shape[1:])} for all images{each}."
        )


def whitened(operator: Operator, y: Tensor, noise_std: Tensor) -> tuple[Operator, Tensor, float]:
    """Operator, measurement and the one σ_y to solve instead, for a measurement's noise that is not one number.

    Args:
        operator: H.
        y: measurements, (B, ...).
        noise_std: σ_y, broadcastable to y.

    Returns:
        `Whitened`, w y and σ; H and y themselves where all numbers of noise_std are one, also 0.

    Raises:
        TypeError: for a noise_std that is no floating tensor, or an operator that is not linear.
        ValueError: for a noise_std of a wrong shape, or with numbers that are no standard deviations.
    """
    check_shape(noise_std, y)
    if not noise_std.is_floating_point():
        raise TypeError(f"noise_std is a number or a floating tensor, got {noise_std.dtype}: noise_std.float() makes it one.")
    std = noise_std.detach().to(y.device, y.real.dtype)
    low, high = (float(number) for number in std.aminmax())
    if low == high and 0 <= low < float("inf"):
        return operator, y, float(noise_std.flatten()[0])
    if not 0 < low <= high < float("inf"):  # NaN is neither
        raise ValueError(
            f"noise_std lies between {low:g} and {high:g}: give finite standard deviations above 0; a large one leaves a "
            "number of y out."
        )
    if not isinstance(operator, LinearOperator):
        raise TypeError(
            f"A noise_std of many numbers needs a LinearOperator, and {type(operator).__name__} is none: give one number."
        )
    whitening = Whitened(operator, std.view(*[1] * (y.ndim - std.ndim), *std.shape))
    return whitening, whitening.whiten(y), whitening.noise_std
