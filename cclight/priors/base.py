"""Prior: the network (or formula) that knows what clean images look like."""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
from torch import Tensor, nn

from cclight.paths.gaussian import GaussianPath
from cclight.paths.parameterization import Parameterization

NO_LABEL = -1  # in a tensor of labels: this image has none


class Prior(nn.Module, ABC):
    """A pretrained denoiser on a Gaussian path. To add one, subclass and write `forward`.

    Attributes:
        path: the path x_t = α x_0 + σ ε it was trained on.
        parameterization: what its output means.
        image_shape: the (C, H, W) it insists on, or (C, ...) of signals and volumes; None where any size will do.
        sides: where `image_shape` does not tell, how many sides its images have beside the channels: 1 of signals, 2 of
            pictures, 3 of volumes; None for any number.
        channels: the number of image channels it takes.
        stride: every side must be divisible by it.
        labels: how many classes it knows. Where that is not 0, `forward` takes a third argument `label`, (B,) integers in
            0 ... labels - 1, or -1 for an image without one.
        needs_label: it knows no image without a label, -1 is refused.
        class_label: the label of images that bring none of their own, or None.
        evaluations: network evaluations that one call costs.
        reference: BibTeX of the paper to cite, or an empty string.
    """

    path: GaussianPath
    parameterization: Parameterization
    image_shape: tuple[int, ...] | None = None
    sides: int | None = 2
    channels: int = 3
    stride: int = 1
    labels: int = 0
    needs_label: bool = False
    class_label: int | None = None
    evaluations: int = 1
    reference: str = ""

    def __init__(self, path: GaussianPath, parameterization: Parameterization) -> None:
        super().__init__()
        self.path = path
        self.parameterization = parameterization

    @abstractmethod
    def forward(self, x_t: Tensor, t: Tensor) -> Tensor:
        """The raw output N(x_t, t).

        Args:
            x_t: noisy images on the path, (B, C, H, W); (B, C, ...) where `sides` or `image_shape` say so.
            t: the path's own continuous time of each image, (B,).

        Returns:
            N, of x_t's shape; differentiable with respect to x_t.
        """

    def denoise(self, x_t: Tensor, t: Tensor, label: Tensor | None = None) -> Tensor:
        """The denoised estimate x̂_0 = s x_t + o N, of x_t's shape, nominally in [-1, 1].

        Args:
            x_t: noisy images on the path, (B, C, ...).
            t: the path's time of each image, (B,).
            label: the class of each image, (B,); for a prior that knows labels alone.
        """
        s, o = self.parameterization.coefficients(self.path, per_image(t, x_t))
        return s * x_t + o * (self(x_t, t) if label is None else self(x_t, t, label))

    def speak_for(self, prior: Prior) -> None:
        """Take over what a prior says of its images, labels and cost: for a prior that wraps it."""
        self.sides = prior.sides_of_images
        self.channels = prior.channels
        self.stride = prior.stride
        self.labels = prior.labels
        self.needs_label = prior.needs_label
        self.class_label = prior.class_label
        self.evaluations = prior.evaluations

    def default_label(self, class_label: int | None) -> None:
        """Set the label of images that bring none of their own.

        Raises:
            ValueError: for one that the prior does not know.
        """
        if class_label is not None:
            self.check_label(torch.tensor([class_label]))
        self.class_label = class_label

    def label_of(self, label: Tensor | None, images: Tensor) -> Tensor | None:
        """The label of each image, (B,), on the images' device: the given ones, or `class_label`; None where there is neither.

        Raises:
            ValueError: where there is neither and the prior needs one.
        """
        if label is None:
            if self.class_label is None:
                self.check_label(None)
                return None
            return torch.full((images.shape[0],), self.class_label, device=images.device)
        return label.to(images.device)

    @property
    def sides_of_images(self) -> int | None:
        """How many sides its images have beside the channels; None for any number."""
        return self.sides if self.image_shape is None else len(self.image_shape) - 1

    def layout(self, before: str = "") -> str:
        """The names of its images' dimensions, such as (C, H, W), after others."""
        names = {1: "CL", 2: "CHW", 3: "CDHW"}.get(self.sides_of_images or 0)
        return f"({', '.join((*before, *names))})" if names else f"({', '.join((*before, 'C', '...'))})"

    def check_images(self, shape: tuple[int, ...]) -> None:
        """Refuse images that the prior cannot take.

        Args:
            shape: of one image, (C, H, W), or (C, ...) of signals and volumes.

        Raises:
            ValueError: naming the shape, what the prior expects, and the remedy.
        """
        channels, sides = shape[0], shape[1:]
        name = type(self).__name__
        if self.sides_of_images not in (None, len(sides)):
            raise ValueError(
                f"{name} takes images of {self.sides_of_images} sides, {self.layout()}, got the shape {tuple(shape)}: give it "
                "such images, or take a prior that sees these (one of your own says so by its `sides`)."
            )
        if self.image_shape is not None and tuple(shape) != tuple(self.image_shape):
            expected = "×".join(map(str, self.image_shape))
            layout = "channels×height×width" if len(sides) == 2 else "channels×sides"
            if channels != self.image_shape[0]:
                remedy = _channels_remedy(self.image_shape[0])
            elif len(sides) != 2:
                remedy = "give it such images."
            else:
                remedy = f"set data.image_size to {self.image_shape[1]}, or wrap the prior in Tiled for larger ones."
            raise ValueError(f"{name} takes images of {expected} ({layout}), got {'×'.join(map(str, shape))}: {remedy}")
        if channels != self.channels:
            remedy = _channels_remedy(self.channels)
            raise ValueError(f"{name} takes images of {self.channels} channels, got {channels}: {remedy}")
        if any(side % self.stride for side in sides):
            raise ValueError(
                f"{name} takes images whose sides are divisible by {self.stride}, got {'×'.join(map(str, sides))}: "
                f"set data.image_size to a multiple of {self.stride}."
            )

    def check_label(self, label: Tensor | None) -> None:
        """Refuse labels that the prior cannot take, and their absence where it needs one.

        Args:
            label: the class of each image, (B,), -1 for none; None where no image has one.

        Raises:
            ValueError: naming the label, what the prior expects, and the remedy.
        """
        name = type(self).__name__
        if label is None:
            if self.needs_label and self.class_label is None:
                raise ValueError(
                    f"{name} needs a label per image and got none: set class_label to one of 0 ... {self.labels - 1}, "
                    f"or take a source that has labels."
                )
            return
        if not self.labels:
            raise ValueError(f"{name} takes no labels and got {label.tolist()}: leave the label out of the data.")
        if label.ndim != 1 or label.is_floating_point():
            raise ValueError(f"labels are one integer per image, (B,), got {tuple(label.shape)} of {label.dtype}.")
        least = 0 if self.needs_label else NO_LABEL
        wrong = label[(label < least) | (label >= self.labels)]
        if len(wrong):
            none = "" if self.needs_label else " (or -1 for none)"
            raise ValueError(f"{name} knows the labels 0 ... {self.labels - 1}{none}, got {wrong.tolist()}.")


def per_image(numbers: Tensor, images: Tensor) -> Tensor:
    """Numbers of each image, (B,), in a shape that multiplies images of any number of dimensions."""
    return numbers.view(-1, *[1] * (images.ndim - 1))


def one_hot(label: Tensor | None, classes: int, like: Tensor) -> Tensor:
    """The label of each image as a row of zeros and a one, all zeros where it has none: (B, classes) of like's dtype.

    Args:
        label: (B,), -1 for none; None where no image has one.
        classes: number of classes.
        like: images, (B, ...).
    """
    rows = torch.zeros(like.shape[0], classes, dtype=like.dtype, device=like.device)
    if label is not None:
        label = label.to(like.device)
        rows[torch.arange(len(label), device=like.device), label.clamp(min=0)] = (label >= 0).to(like.dtype)
    return rows


def _channels_remedy(channels: int) -> str:
    if channels in (1, 3):
        return f"set data.channels to {channels}."
    return f"give it data of {channels} channels, or take a prior of colour images."
