"""Operators of other libraries: anything linear from deepinv, such as magnetic resonance imaging or tomography."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from cclight.operators.base import LinearOperator


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

    reference = """@article{tachella2025deepinverse,
  title = {DeepInverse: A Python package for solving imaging inverse problems with deep learning},
  author = {Tachella, Juli{\\'a}n and Terris, Matthieu and Hurault, Samuel and others},
  journal = {Journal of Open Source Software},
  year = {2025}
}"""

    def __init__(self, physics: nn.Module, tolerance: float = 1e-3, max_iterations: int = 200) -> None:
        super().__init__()
        try:
            from deepinv.physics import LinearPhysics
        except ImportError as error:
            raise ImportError("DeepinvPhysics needs deepinv: pip install 'cclight[deepinv]'.") from error
        if not isinstance(physics, LinearPhysics):
            raise TypeError(f"DeepinvPhysics takes a deepinv.physics.LinearPhysics, and {type(physics).__name__} is none.")
        self.physics: Any = physics
        self.tolerance = tolerance
        self.max_iterations = max_iterations

    def forward(self, x: Tensor) -> Tensor:
        y = self.physics.A(x)
        if not isinstance(y, Tensor):
            name, kind = type(self.physics).__name__, type(y).__name__
            raise TypeError(f"{name} measures a {kind}: DeepinvPhysics takes physics that measure a single tensor.")
        return y

    def adjoint(self, y: Tensor) -> Tensor:
        return self.physics.A_adjoint(y)
