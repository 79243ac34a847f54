"""cclight: fast training-free samplers for inverse problems with pretrained diffusion and flow models.

The public names below are imported on first use, so that `import cclight` costs nothing.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # what editors and type checkers see; a test keeps it the same as the table below
    from cclight.data.arrays import Arrays as Arrays
    from cclight.data.datamodule import Batch as Batch
    from cclight.data.datamodule import RestorationDataModule as RestorationDataModule
    from cclight.data.huggingface import HFDataset as HFDataset
    from cclight.data.patches import PatchDataModule as PatchDataModule
    from cclight.data.sources import ImageFolder as ImageFolder
    from cclight.data.sources import SamplePhotographs as SamplePhotographs
    from cclight.data.sources import Source as Source
    from cclight.data.subset import Subset as Subset
    from cclight.metrics.fid import FeatureDistances as FeatureDistances
    from cclight.metrics.image import LPIPS as LPIPS
    from cclight.metrics.image import MSSSIM as MSSSIM
    from cclight.metrics.image import NRMSE as NRMSE
    from cclight.metrics.image import PSNR as PSNR
    from cclight.metrics.image import SSIM as SSIM
    from cclight.metrics.image import ImageMetric as ImageMetric
    from cclight.metrics.inception import Inception as Inception
    from cclight.metrics.perceptual import PerceptualMap as PerceptualMap
    from cclight.operators.base import LinearOperator as LinearOperator
    from cclight.operators.base import Operator as Operator
    from cclight.operators.base import SpectralOperator as SpectralOperator
    from cclight.operators.circular import CircularBlur as CircularBlur
    from cclight.operators.codec import CodecCompression as CodecCompression
    from cclight.operators.compose import Compose as Compose
    from cclight.operators.compose import LinearCompose as LinearCompose
    from cclight.operators.external import DeepinvNonlinear as DeepinvNonlinear
    from cclight.operators.external import DeepinvPhysics as DeepinvPhysics
    from cclight.operators.fourier import CartesianLines as CartesianLines
    from cclight.operators.fourier import FourierSampling as FourierSampling
    from cclight.operators.fourier import MultiCoil as MultiCoil
    from cclight.operators.iterative import MotionBlur as MotionBlur
    from cclight.operators.iterative import RandomProjection as RandomProjection
    from cclight.operators.jpeg import JPEG as JPEG
    from cclight.operators.kernels import Kernel as Kernel
    from cclight.operators.kernels import KernelFile as KernelFile
    from cclight.operators.kernels import LineKernel as LineKernel
    from cclight.operators.kernels import ShakeKernel as ShakeKernel
    from cclight.operators.latent import LatentDecoding as LatentDecoding
    from cclight.operators.mask_folder import MaskFolder as MaskFolder
    from cclight.operators.masks import Box as Box
    from cclight.operators.masks import FreeForm as FreeForm
    from cclight.operators.masks import Inpainting as Inpainting
    from cclight.operators.masks import Mask as Mask
    from cclight.operators.masks import MaskFile as MaskFile
    from cclight.operators.masks import RandomPixels as RandomPixels
    from cclight.operators.nonlinear import HDR as HDR
    from cclight.operators.nonlinear import NonlinearBlur as NonlinearBlur
    from cclight.operators.nonlinear import PhaseRetrieval as PhaseRetrieval
    from cclight.operators.nonlinear import Quantization as Quantization
    from cclight.operators.own import OwnKernel as OwnKernel
    from cclight.operators.own import OwnMask as OwnMask
    from cclight.operators.pixelwise import AveragePooling as AveragePooling
    from cclight.operators.pixelwise import Colorization as Colorization
    from cclight.operators.pixelwise import Denoising as Denoising
    from cclight.operators.separable import BicubicDownsampling as BicubicDownsampling
    from cclight.operators.separable import GaussianBlur as GaussianBlur
    from cclight.operators.separable import UniformBlur as UniformBlur
    from cclight.operators.tomography import Tomography as Tomography
    from cclight.operators.whitened import Whitened as Whitened
    from cclight.paths.discrete import DiscretePath as DiscretePath
    from cclight.paths.gaussian import GaussianPath as GaussianPath
    from cclight.paths.gaussian import OTPath as OTPath
    from cclight.paths.gaussian import VPPath as VPPath
    from cclight.paths.parameterization import Epsilon as Epsilon
    from cclight.paths.parameterization import Parameterization as Parameterization
    from cclight.paths.parameterization import Sample as Sample
    from cclight.paths.parameterization import Velocity as Velocity
    from cclight.priors.adm import ADM as ADM
    from cclight.priors.azula import AzulaPrior as AzulaPrior
    from cclight.priors.base import Prior as Prior
    from cclight.priors.conditioned import NoiseConditioned as NoiseConditioned
    from cclight.priors.deepinv import DeepinvPrior as DeepinvPrior
    from cclight.priors.edm import EDM as EDM
    from cclight.priors.flux import Flux as Flux
    from cclight.priors.grey import Grey as Grey
    from cclight.priors.guided import Guided as Guided
    from cclight.priors.hf_diffusers import AngularVelocity as AngularVelocity
    from cclight.priors.hf_diffusers import DiffusersPrior as DiffusersPrior
    from cclight.priors.hf_flow import DiffusersFlow as DiffusersFlow
    from cclight.priors.latent import Autoencoder as Autoencoder
    from cclight.priors.latent import DiffusersAutoencoder as DiffusersAutoencoder
    from cclight.priors.latent import Latent as Latent
    from cclight.priors.mixture import GaussianMixture as GaussianMixture
    from cclight.priors.ncsnpp import RectifiedFlow as RectifiedFlow
    from cclight.priors.pnpflow import PnPFlowUNet as PnPFlowUNet
    from cclight.priors.recast import Recast as Recast
    from cclight.priors.retimed import Retimed as Retimed
    from cclight.priors.sana import Sana as Sana
    from cclight.priors.small import SmallPrior as SmallPrior
    from cclight.priors.stable_diffusion import StableDiffusion as StableDiffusion
    from cclight.priors.tiled import Tiled as Tiled
    from cclight.problem import Problem as Problem
    from cclight.problem import Restoration as Restoration
    from cclight.recipes import Recipe as Recipe
    from cclight.recipes import recipe as recipe
    from cclight.restorer import Restored as Restored
    from cclight.restorer import Restorer as Restorer
    from cclight.samplers.base import FromNoise as FromNoise
    from cclight.samplers.base import Sampler as Sampler
    from cclight.samplers.conjugate import Conjugate as Conjugate
    from cclight.samplers.ddnm import DDNM as DDNM
    from cclight.samplers.ddrm import DDRM as DDRM
    from cclight.samplers.diffpir import DiffPIR as DiffPIR
    from cclight.samplers.dps import DPS as DPS
    from cclight.samplers.grid import Grid as Grid
    from cclight.samplers.guided_ode import GuidedODE as GuidedODE
    from cclight.samplers.heun import ConjugateHeun as ConjugateHeun
    from cclight.samplers.latino import LATINO as LATINO
    from cclight.samplers.latino import InLatents as InLatents
    from cclight.samplers.moments import ConjugateMoments as ConjugateMoments
    from cclight.samplers.otode import OTODE as OTODE
    from cclight.samplers.pigdm import PiGDM as PiGDM
    from cclight.samplers.pnpflow import PnPFlow as PnPFlow
    from cclight.samplers.reddiff import REDDiff as REDDiff
    from cclight.samplers.tilt import ConjugateTilt as ConjugateTilt
    from cclight.training import PriorTrainer as PriorTrainer

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
    "priors.recast": ("Recast",),
    "priors.tiled": ("Tiled",),
    "priors.conditioned": ("NoiseConditioned",),
    "priors.edm": ("EDM",),
    "priors.pnpflow": ("PnPFlowUNet",),
    "priors.azula": ("AzulaPrior",),
    "priors.deepinv": ("DeepinvPrior",),
    "priors.grey": ("Grey",),
    "priors.guided": ("Guided",),
    "priors.latent": ("Latent", "Autoencoder", "DiffusersAutoencoder"),
    "priors.stable_diffusion": ("StableDiffusion",),
    "priors.flux": ("Flux",),
    "priors.sana": ("Sana",),
    "priors.hf_diffusers": ("DiffusersPrior", "AngularVelocity"),
    "priors.hf_flow": ("DiffusersFlow",),
    "operators.base": ("Operator", "LinearOperator", "SpectralOperator"),
    "operators.separable": ("BicubicDownsampling", "GaussianBlur", "UniformBlur"),
    "operators.pixelwise": ("AveragePooling", "Colorization", "Denoising"),
    "operators.masks": ("Inpainting", "Mask", "Box", "RandomPixels", "FreeForm", "MaskFile"),
    "operators.mask_folder": ("MaskFolder",),
    "operators.circular": ("CircularBlur",),
    "operators.fourier": ("CartesianLines", "FourierSampling", "MultiCoil"),
    "operators.own": ("OwnKernel", "OwnMask"),
    "operators.tomography": ("Tomography",),
    "operators.iterative": ("MotionBlur", "RandomProjection"),
    "operators.kernels": ("Kernel", "LineKernel", "ShakeKernel", "KernelFile"),
    "operators.jpeg": ("JPEG",),
    "operators.nonlinear": ("Quantization", "HDR", "PhaseRetrieval", "NonlinearBlur"),
    "operators.codec": ("CodecCompression",),
    "operators.compose": ("Compose", "LinearCompose"),
    "operators.external": ("DeepinvNonlinear", "DeepinvPhysics"),
    "operators.latent": ("LatentDecoding",),
    "operators.whitened": ("Whitened",),
    "problem": ("Problem", "Restoration"),
    "samplers.base": ("FromNoise", "Sampler"),
    "samplers.grid": ("Grid",),
    "samplers.conjugate": ("Conjugate",),
    "samplers.heun": ("ConjugateHeun",),
    "samplers.moments": ("ConjugateMoments",),
    "samplers.tilt": ("ConjugateTilt",),
    "samplers.pigdm": ("PiGDM",),
    "samplers.dps": ("DPS",),
    "samplers.ddnm": ("DDNM",),
    "samplers.ddrm": ("DDRM",),
    "samplers.diffpir": ("DiffPIR",),
    "samplers.reddiff": ("REDDiff",),
    "samplers.otode": ("OTODE",),
    "samplers.pnpflow": ("PnPFlow",),
    "samplers.latino": ("LATINO", "InLatents"),
    "samplers.guided_ode": ("GuidedODE",),
    "data.datamodule": ("RestorationDataModule", "Batch"),
    "data.arrays": ("Arrays",),
    "data.sources": ("Source", "ImageFolder", "SamplePhotographs"),
    "data.huggingface": ("HFDataset",),
    "data.subset": ("Subset",),
    "data.patches": ("PatchDataModule",),
    "metrics.image": ("ImageMetric", "NRMSE", "PSNR", "SSIM", "MSSSIM", "LPIPS"),
    "metrics.perceptual": ("PerceptualMap",),
    "metrics.fid": ("FeatureDistances",),
    "metrics.inception": ("Inception",),
    "restorer": ("Restorer", "Restored"),
    "training": ("PriorTrainer",),
    "recipes": ("Recipe", "recipe"),
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
