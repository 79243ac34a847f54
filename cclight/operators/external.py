"""Operators of other libraries: deepinv's physics, linear as magnetic resonance imaging or tomography, or not."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from cclight.operators.base import LinearOperator, Operator

_REFERENCE = """@article{tachella2025deepinverse,
  title = {DeepInverse: A Python package for solving imaging inverse problems with deep learning},
  author = {Tachella, Juli{\\'a}n and Terris, Matthieu and Hurault, Samuel and others},
  journal = {Journal of Open Source Software},
  year = {2025}
}"""


class DeepinvPhysics(LinearOperator):
    """A `deepinv.physics.LinearPhysics` under every sampler that takes a linear operator.

    H and Hᵀ are its `A` and `A_adjoint`; its noise model is left out, for noise_std is ours. H⁺ comes from conjugate gradients.

    Args:
        physics: the physics; in YAML, class_path deepinv.physics.Tomography and the like with its init_args.
        tolerance: conjugate gradients are done with an image at ||Hᵀ (y - H x)|| <= tolerance · ||Hᵀ y||.
        max_iterations: where they stop at the latest, with a warning.

    Raises:
        ImportError: without deepinv.
        TypeError: for a physics that is not linear.
    """

    reference = _REFERENCE

    def __init__(self, physics: nn.Module, tolerance: float = 1e-3, max_iterations: int = 200) -> None:
        super().__init__()
        if not isinstance(physics, _kinds().LinearPhysics):
            name = type(physics).__name__
            raise TypeError(f"DeepinvPhysics takes a deepinv.physics.LinearPhysics, and {name} is none: use DeepinvNonlinear.")
        self.physics: Any = physics
        self.tolerance = tolerance
        self.max_iterations = max_iterations

    def forward(self, x: Tensor) -> Tensor:
        return _measured(self.physics, x)

    def adjoint(self, y: Tensor) -> Tensor:
        return self.physics.A_adjoint(y)


class DeepinvNonlinear(Operator):
    """A `deepinv.physics.Physics` that is not linear, under every sampler that takes any operator.

    h is its `A` and h† its `A_dagger`; its noise model is left out, for noise_std is ours.

    Args:
        physics: the physics, measuring a single tensor; in YAML, its class_path with its init_args.

    Raises:
        ImportError: without deepinv.
        TypeError: for what is no physics, or a linear one.
    """

    reference = _REFERENCE

    def __init__(self, physics: nn.Module) -> None:
        super().__init__()
        kinds, name = _kinds(), type(physics).__name__
        if not isinstance(physics, kinds.Physics):
            raise TypeError(f"DeepinvNonlinear takes a deepinv.physics.Physics, and {name} is none.")
        if isinstance(physics, kinds.LinearPhysics):
            raise TypeError(f"{name} is linear: use DeepinvPhysics, which more samplers take.")
        self.physics: Any = physics

    def forward(self, x: Tensor) -> Tensor:
        return _measured(self.physics, x)

    def pinv(self, y: Tensor) -> Tensor:
        return self.physics.A_dagger(y)


def _kinds() -> Any:
    try:
        from deepinv import physics
    except ImportError as error:
        raise ImportError("deepinv's physics need deepinv: pip install 'cclight[deepinv]'.") from error
    return physics


def _measured(physics: Any, x: Tensor) -> Tensor:
    y = physics.A(x)
    if not isinstance(y, Tensor):
        name, kind = type(physics).__name__, type(y).__name__
        raise TypeError(f"{name} measures a {kind}: take physics that measure a single tensor.")
    return y
