"""Prior: the network (or formula) that knows what clean images look like."""

from __future__ import annotations

from abc import ABC, abstractmethod

from torch import Tensor, nn

from cclight.paths.gaussian import GaussianPath
from cclight.paths.parameterization import Parameterization


class Prior(nn.Module, ABC):
    """A pretrained denoiser on a Gaussian path. To add one, subclass and write `forward`.

    Attributes:
        path: the path x_t = α x_0 + σ ε it was trained on.
        parameterization: what its output means.
        image_shape: the (C, H, W) it insists on, or None where any size will do.
        channels: the number of image channels it takes.
        stride: height and width must be divisible by it.
        reference: BibTeX of the paper to cite, or an empty string.
    """

    path: GaussianPath
    parameterization: Parameterization
    image_shape: tuple[int, int, int] | None = None
    channels: int = 3
    stride: int = 1
    reference: str = ""

    def __init__(self, path: GaussianPath, parameterization: Parameterization) -> None:
        super().__init__()
        self.path = path
        self.parameterization = parameterization

    @abstractmethod
    def forward(self, x_t: Tensor, t: Tensor) -> Tensor:
        """The raw output N(x_t, t).

        Args:
            x_t: noisy images on the path, (B, C, H, W).
            t: the path's own continuous time of each image, (B,).

        Returns:
            N, (B, C, H, W); differentiable with respect to x_t.
        """

    def denoise(self, x_t: Tensor, t: Tensor) -> Tensor:
        """The denoised estimate x̂_0 = s x_t + o N, (B, C, H, W), nominally in [-1, 1]."""
        s, o = self.parameterization.coefficients(self.path, t.view(-1, 1, 1, 1))
        return s * x_t + o * self(x_t, t)

    def check_images(self, shape: tuple[int, ...]) -> None:
        """Refuse images that the prior cannot take.

        Args:
            shape: (C, H, W) or (B, C, H, W).

        Raises:
            ValueError: naming the shape, what the prior expects, and the remedy.
        """
        channels, height, width = shape[-3:]
        name = type(self).__name__
        if self.image_shape is not None and (channels, height, width) != tuple(self.image_shape):
            expected = "×".join(map(str, self.image_shape))
            raise ValueError(
                f"{name} takes images of {expected} (channels×height×width), got {channels}×{height}×{width}: "
                f"set data.image_size to {self.image_shape[1]}."
            )
        if channels != self.channels:
            raise ValueError(f"{name} takes images of {self.channels} channels, got {channels}.")
        if height % self.stride or width % self.stride:
            raise ValueError(
                f"{name} takes images whose sides are divisible by {self.stride}, got {height}×{width}: "
                f"set data.image_size to a multiple of {self.stride}."
            )
