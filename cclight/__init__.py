"""cclight: fast training-free samplers for inverse problems with pretrained diffusion and flow models.

The public names below are imported on first use, so that `import cclight` costs nothing.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

__version__ = "0.1.0"

_HOME = {
    "GaussianPath": "paths",
    "VPPath": "paths",
    "OTPath": "paths",
    "Parameterization": "parameterization",
    "Epsilon": "parameterization",
    "Velocity": "parameterization",
    "Sample": "parameterization",
    "Prior": "priors.base",
    "GaussianMixture": "priors.mixture",
    "SmallPrior": "priors.small",
    "Operator": "operators.base",
    "LinearOperator": "operators.base",
    "SpectralOperator": "operators.base",
    "BicubicDownsampling": "operators.separable",
    "GaussianBlur": "operators.separable",
    "UniformBlur": "operators.separable",
    "AveragePooling": "operators.pixelwise",
    "Colorization": "operators.pixelwise",
    "Denoising": "operators.pixelwise",
    "Inpainting": "operators.masks",
    "Sampler": "samplers.base",
    "Restoration": "samplers.base",
    "Conjugate": "samplers.conjugate",
    "PiGDM": "samplers.pigdm",
    "RestorationDataModule": "data.datamodule",
    "HFDataset": "data.sources",
    "ImageFolder": "data.sources",
    "SamplePhotographs": "data.sources",
    "Restorer": "restorer",
    "PriorTrainer": "training",
}

__all__ = sorted(_HOME)


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'cclight' has no attribute {name!r}")
    value = getattr(import_module(f"cclight.{_HOME[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
