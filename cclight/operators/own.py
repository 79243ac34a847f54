"""What an image brings for its operator: a mask or a kernel among the further arrays of its own file."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from cclight.operators.kernels import FixedKernel, Kernel
from cclight.operators.masks import FixedMask, Mask


class _Own:
    """What lies under a name beside each image."""

    per_image = True

    def __init__(self, key: str) -> None:
        self.key = key

    def __call__(self, *_: tuple[int, ...]) -> Tensor:
        raise ValueError(f"Each image has an array {self.key} of its own: of(name, parameters) has the operator of one.")


class OwnMask(_Own, Mask):
    """The mask that lies beside each image in its array file, nonzero where a value is kept.

    Args:
        key: the array's name there.
    """

    def __init__(self, key: str = "mask") -> None:
        super().__init__(key)

    def of(self, name: str, parameters: Mapping[str, Tensor] | None = None) -> FixedMask:
        return FixedMask(own_array(self.key, name, parameters))


class OwnKernel(_Own, Kernel):
    """The blur kernel that lies beside each image in its array file, as `FixedKernel` takes it.

    Args:
        key: the array's name there.
    """

    def __init__(self, key: str = "kernel") -> None:
        super().__init__(key)

    def of(self, name: str, parameters: Mapping[str, Tensor] | None = None) -> FixedKernel:
        return FixedKernel(own_array(self.key, name, parameters))


def own_array(key: str, name: str, parameters: Mapping[str, Tensor] | None) -> Tensor:
    """One of the further arrays of an image.

    Raises:
        ValueError: where it has none of this name.
    """
    found = parameters or {}
    if key not in found:
        others = f"it brings {', '.join(sorted(found))}" if found else "it brings none"
        raise ValueError(
            f"{name} has no array {key} for its operator, {others}: take a source of array files, and name it in "
            "their parameters (data.source.parameters)"
        )
    return found[key]
