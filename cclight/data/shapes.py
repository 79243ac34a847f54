"""The shapes of restorations: found once for each shape that a source holds, or the reason why operator or prior refuse it."""

from __future__ import annotations

import itertools

import torch
from torch import Tensor

from cclight.data.fitting import fit
from cclight.data.loader import Decoded
from cclight.operators.base import Operator
from cclight.operators.whitened import check_shape
from cclight.priors.base import Prior


class Shapes:
    """What the parts of a problem say of the images that a source holds.

    Args:
        operator: the degradation H.
        prior: the denoiser; None where nothing is known of it.
        noise_std: σ_y; a tensor is to broadcast to every measurement.
        measurements: the source holds measurements, and no clean images.
        arrays: it holds arrays, and no pictures that could be cut or scaled.
        remedy: what else helps against a shape that is refused, a sentence.
    """

    def __init__(
        self,
        operator: Operator,
        prior: Prior | None,
        noise_std: float | Tensor,
        measurements: bool,
        arrays: bool,
        remedy: str = "",
    ) -> None:
        self.operator = operator
        self.prior = prior
        self.noise_std = noise_std
        self.measurements = measurements
        self.arrays = arrays
        self.remedy = remedy
        self._known: dict[tuple[int | str, ...], tuple[int, ...] | str] = {}

    def of(self, batch: Decoded) -> tuple[int, ...] | str:
        """The shape (C, ...) of the images that a batch's restorations have, or why there are none."""
        if batch.images.is_complex() and not self.measurements:
            return "it holds complex numbers, and clean images are real: save real and imaginary part as two channels"
        name, given = batch.names[0], tuple(batch.images.shape[1:])
        key: tuple[int | str, ...] = (*given, name, batch.indices[0]) if self.operator.per_image else given
        if key not in self._known:
            try:
                operator = self.operator.of(name, batch.parameters[0])
                self._known[key] = self._of_measured(operator, batch.images) if self.measurements else given
                if not self.measurements:
                    self.check(given, operator)
            except (FileNotFoundError, ValueError) as error:
                self._known[key] = str(error)
        return self._known[key]

    def first_look(self, batch: Decoded) -> str | None:
        """Why there are none, as far as it can be told without long work: the fit of an image's own operator is such."""
        if not (self.measurements and self.operator.per_image):
            found = self.of(batch)
            return found if isinstance(found, str) else None
        try:
            self.operator.of(batch.names[0], batch.parameters[0])
        except (FileNotFoundError, ValueError) as error:
            return str(error)
        return None

    def check(self, shape: tuple[int, ...], operator: Operator | None = None) -> None:
        """Refuse clean images of a shape, (C, ...).

        Raises:
            ValueError: naming the shape, the expectation and the remedy.
        """
        operator = operator or self.operator
        try:
            operator.check_images(shape)
            if self.prior is not None:
                self.prior.check_images(shape)
        except ValueError as error:
            if self.arrays:
                reason = str(error).partition(": set data.")[0].rstrip(".")
                raise ValueError(
                    f"{reason}; data.source.channel_axis says which axis has channels, null that none has"
                ) from error
            raise ValueError(f"{error}{self.remedy}") from error
        if isinstance(self.noise_std, Tensor) and not operator.per_image:
            with torch.inference_mode(False), torch.no_grad():
                check_shape(self.noise_std, operator(torch.zeros(1, *shape, device=_device(operator))))

    def _of_measured(self, operator: Operator, images: Tensor) -> tuple[int, ...]:
        y = images[:1].to(_device(operator))
        if isinstance(self.noise_std, Tensor):
            check_shape(self.noise_std, y)
        try:
            with torch.inference_mode(False):
                fitted = fit(operator, y.clone(), self.prior, self.noise_std)
            fitted.operator.check_images(fitted.shape)
            if self.prior is not None:
                self.prior.check_images(fitted.shape)
        except ValueError as error:
            # data.image_size, which the error may advise, is for photographs that are still to be measured.
            reason, advice, _ = str(error).partition(": set data.image_size")
            raise ValueError(f"{reason}: cut or pad the measurement to a size that fits" if advice else reason) from error
        return fitted.shape


def _device(operator: Operator) -> torch.device:
    """Where an operator's own numbers lie, and so its images."""
    own = next(itertools.chain(operator.parameters(), operator.buffers()), None)
    return torch.device("cpu") if own is None else own.device
