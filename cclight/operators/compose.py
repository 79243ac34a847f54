r"""One operator after another: H = H_n ... H_2 H_1.

A chain of linear operators is linear, Hᵀ = H_1ᵀ ... H_nᵀ, and its pseudoinverse comes from conjugate gradients, for in general
(H_2 H_1)⁺ is not H_1⁺ H_2⁺. A chain with a nonlinear operator in it has only decoders, h† = h_1† ... h_n†.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from itertools import chain
from typing import Any

import torch
from torch import Tensor, nn

from cclight.operators.base import LinearOperator, Operator

ROUNDED = 1e-2  # tolerance of H⁺ where rounding is the noise: it weighs coefficients by up to 100, and its size is a guess


class Compose(Operator):
    """Operators applied in the order given, each to what the one before it measured.

    `Compose(operators)` gives a `LinearCompose` where all of them are linear: capability is a type.

    Args:
        operators: the first one sees the image.

    Raises:
        ValueError: where there are none.
    """

    def __new__(cls, operators: Sequence[Operator] = (), *_: Any, **__: Any) -> Compose:
        linear = bool(operators) and all(isinstance(operator, LinearOperator) for operator in operators)
        return super().__new__(LinearCompose if cls is Compose and linear else cls)

    def __init__(self, operators: list[Operator]) -> None:
        super().__init__()
        if not operators:
            raise ValueError(f"{type(self).__name__} needs at least one operator.")
        self.reach = sum(operator.reach for operator in operators)
        self.operators: Any = nn.ModuleList(operators)  # Any: the type checker knows its members as plain modules

    @property
    def per_image(self) -> bool:  # type: ignore[override]
        """Whether one of them is an image's own."""
        return any(operator.per_image for operator in self.operators)

    def of(self, name: str, parameters: Mapping[str, Tensor] | None = None) -> Operator:
        """The chain of each operator's own for an image."""
        if not self.per_image:
            return self
        own = copy.copy(self)
        own._modules = {**self._modules, "operators": nn.ModuleList(o.of(name, parameters) for o in self.operators)}
        return own

    def forward(self, x: Tensor) -> Tensor:
        for operator in self.operators:
            x = operator(x)
        return x

    def pinv(self, y: Tensor) -> Tensor:
        for operator in reversed(self.operators):
            y = operator.pinv(y)
        return y

    def linear_problem(self, y: Tensor, noise_std: float) -> tuple[Operator, Tensor, float]:
        """Linear operators before one that is linear but for its rounding."""
        *first, last = self.operators
        rounded, y, noise_std = last.linear_problem(y, noise_std)
        if rounded is last:
            return self, y, noise_std
        chain = Compose([*first, rounded])
        if isinstance(chain, LinearCompose):
            chain.tolerance = ROUNDED
        return chain, y, noise_std

    def check_images(self, shape: tuple[int, ...]) -> None:
        own = next(chain(self.parameters(), self.buffers()), torch.empty(0))
        x = torch.zeros(1, *shape, device=own.device)  # an operator with weights takes images where these lie
        with torch.no_grad():
            for operator in self.operators[:-1]:  # what the last one makes is nobody's image
                operator.check_images(tuple(x.shape[1:]))
                x = operator(x)
        self.operators[-1].check_images(tuple(x.shape[1:]))


class LinearCompose(LinearOperator, Compose):
    """A `Compose` of linear operators alone, with an adjoint and the true pseudoinverse.

    Args:
        operators: the first one sees the image.
        tolerance: conjugate gradients are done with an image at ||Hᵀ (y - H x)|| <= tolerance · ||Hᵀ y||.
        max_iterations: where they stop at the latest, with a warning.

    Raises:
        ValueError: where there are none.
        TypeError: where one is not linear.
    """

    def __init__(self, operators: list[Operator], tolerance: float = 1e-4, max_iterations: int = 200) -> None:
        super().__init__(operators)
        for operator in operators:
            if not isinstance(operator, LinearOperator):
                raise TypeError(f"LinearCompose takes linear operators, and {type(operator).__name__} is none: use Compose.")
        self.tolerance = tolerance
        self.max_iterations = max_iterations

    def image_shape(self, measurement_shape: tuple[int, ...]) -> tuple[int, ...]:
        for operator in reversed(self.operators):
            measurement_shape = operator.image_shape(measurement_shape)
        return measurement_shape

    def adjoint(self, y: Tensor) -> Tensor:
        for operator in reversed(self.operators):
            y = operator.adjoint(y)
        return y
