"""cclight: fast training-free samplers for inverse problems with pretrained diffusion and flow models.

The public names below are imported on first use, so that `import cclight` costs nothing.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

__version__ = "0.1.0"

_ROOMS = {
    "paths.gaussian": ("GaussianPath", "VPPath", "OTPath"),
    "paths.discrete": ("DiscretePath",),
    "paths.parameterization": ("Parameterization", "Epsilon", "Velocity", "Sample"),
    "priors.base": ("Prior",),
    "priors.mixture": ("GaussianMixture",),
    "priors.small": ("SmallPrior",),
    "priors.adm": ("ADM",),
    "priors.ncsnpp": ("RectifiedFlow",),
    "priors.retimed": ("Retimed",),
    "priors.tiled": ("Tiled",),
    "priors.conditioned": ("NoiseConditioned",),
    "priors.edm": ("EDM",),
    "priors.pnpflow": ("PnPFlowUNet",),
    "priors.azula": ("AzulaPrior",),
    "priors.deepinv": ("DeepinvPrior",),
    "priors.guided": ("Guided",),
    "priors.latent": ("Latent", "Autoencoder", "DiffusersAutoencoder"),
    "priors.stable_diffusion": ("StableDiffusion",),
    "priors.hf_diffusers": ("DiffusersPrior", "AngularVelocity"),
    "priors.hf_flow": ("DiffusersFlow",),
    "operators.base": ("Operator", "LinearOperator", "SpectralOperator"),
    "operators.separable": ("BicubicDownsampling", "GaussianBlur", "UniformBlur"),
    "operators.pixelwise": ("AveragePooling", "Colorization", "Denoising"),
    "operators.masks": ("Inpainting", "Mask", "Box", "RandomPixels", "FreeForm", "MaskFile"),
    "operators.iterative": ("MotionBlur", "RandomProjection"),
    "operators.kernels": ("Kernel", "LineKernel", "ShakeKernel", "KernelFile"),
    "operators.jpeg": ("JPEG",),
    "operators.nonlinear": ("Quantization", "HDR", "PhaseRetrieval", "NonlinearBlur"),
    "operators.codec": ("CodecCompression",),
    "operators.compose": ("Compose", "LinearCompose"),
    "operators.external": ("DeepinvPhysics",),
    "operators.latent": ("LatentDecoding",),
    "problem": ("Problem", "Restoration"),
    "samplers.base": ("Sampler",),
    "samplers.grid": ("Grid",),
    "samplers.conjugate": ("Conjugate",),
    "samplers.heun": ("ConjugateHeun",),
    "samplers.moments": ("ConjugateMoments",),
    "samplers.tilt": ("ConjugateTilt",),
    "samplers.pigdm": ("PiGDM",),
    "samplers.dps": ("DPS",),
    "samplers.ddrm": ("DDRM",),
    "samplers.diffpir": ("DiffPIR",),
    "samplers.reddiff": ("REDDiff",),
    "samplers.otode": ("OTODE",),
    "samplers.pnpflow": ("PnPFlow",),
    "samplers.latino": ("LATINO", "InLatents"),
    "samplers.guided_ode": ("GuidedODE",),
    "data.datamodule": ("RestorationDataModule", "Batch"),
    "data.sources": ("Source", "ImageFolder", "SamplePhotographs"),
    "data.huggingface": ("HFDataset",),
    "data.subset": ("Subset",),
    "data.patches": ("PatchDataModule",),
    "metrics.image": ("ImageMetric", "PSNR", "SSIM", "MSSSIM", "LPIPS"),
    "metrics.perceptual": ("PerceptualMap",),
    "metrics.fid": ("FeatureDistances",),
    "metrics.inception": ("Inception",),
    "restorer": ("Restorer", "Restored"),
    "training": ("PriorTrainer",),
}
_HOME = {name: room for room, names in _ROOMS.items() for name in names}

__all__ = sorted(_HOME)


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'cclight' has no attribute {name!r}")
    value = getattr(import_module(f"cclight.{_HOME[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
