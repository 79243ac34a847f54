"""DiffusersPrior: any unconditional UNet2DModel pipeline of the diffusers library, by repository or local folder."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from cclight.paths.discrete import DiscretePath
from cclight.paths.gaussian import GaussianPath
from cclight.paths.parameterization import Epsilon, Linear, Parameterization, Sample
from cclight.priors.base import Prior
from cclight.priors.download import CheckpointError


class AngularVelocity(Parameterization):
    """The network predicts v = α ε - σ x_0, the velocity per angle on a variance-preserving path (diffusers' v_prediction).

    Reference:
        Salimans and Ho, Progressive Distillation for Fast Sampling of Diffusion Models, ICLR 2022, appendix D.
    """

    def coefficients(self, path: GaussianPath, t: Tensor) -> Linear:
        alpha, sigma = path.alpha(t), path.sigma(t)
        norm = alpha**2 + sigma**2
        return Linear(s=alpha / norm, o=-sigma / norm)


PREDICTIONS: dict[str, type[Parameterization]] = {"epsilon": Epsilon, "v_prediction": AngularVelocity, "sample": Sample}


class DiffusersPrior(Prior):
    """The UNet2DModel of a diffusers pipeline, on the path that its scheduler's noise rates describe.

    Args:
        repo: a repository on the Hugging Face hub (google/ddpm-celebahq-256) or a folder made by `save_pretrained`.

    Raises:
        ImportError: where diffusers is not installed.
        CheckpointError: for a pipeline that cannot be had or is no unconditional UNet2DModel trained on a table of noise rates.
    """

    reference = """@misc{vonplaten2022diffusers,
  title = {Diffusers: State-of-the-art diffusion models},
  author = {von Platen, Patrick and Patil, Suraj and Lozhkov, Anton and Cuenca, Pedro and Lambert, Nathan and Rasul, Kashif
            and Davaadorj, Mishig and Wolf, Thomas},
  howpublished = {https://github.com/huggingface/diffusers},
  year = {2022},
}"""

    path: DiscretePath

    def __init__(self, repo: str) -> None:
        pipeline = _pipeline(repo)
        network, scheduler = _parts(pipeline, repo)
        betas = tuple(scheduler.betas.double().tolist())
        super().__init__(DiscretePath(betas), PREDICTIONS[scheduler.config.prediction_type]())
        side = network.config.sample_size
        height, width = (side, side) if isinstance(side, int) else side
        self.channels = network.config.in_channels
        self.image_shape = (self.channels, height, width)
        self.network = network.float().requires_grad_(False).eval()

    def forward(self, x_t: Tensor, t: Tensor) -> Tensor:
        # A learned variance lies behind the image's channels.
        return self.network(x_t, self.path.index(t)).sample[:, : self.channels]


def _pipeline(repo: str) -> Any:
    try:
        from diffusers import DiffusionPipeline
    except ImportError as error:
        raise ImportError("DiffusersPrior needs the package diffusers: pip install 'cclight[diffusers]'.") from error
    try:
        return DiffusionPipeline.from_pretrained(repo, low_cpu_mem_usage=False)
    except Exception as error:  # the hub, the file system and every component raise classes of their own
        reason = str(error).strip().split("\n", 1)[0]
        raise CheckpointError(
            f"{repo} is no diffusers pipeline that can be loaded ({reason}): "
            f"give owner/repository of the hub, or a folder with model_index.json."
        ) from error


def _parts(pipeline: Any, repo: str) -> tuple[Any, Any]:
    """The pipeline's network and scheduler.

    Raises:
        CheckpointError: where there is more to the pipeline, or they are not of the kinds that we can run.
    """
    from diffusers import UNet2DModel

    parts = dict(pipeline.components)
    network: Any = parts.pop("unet", None)
    scheduler: Any = parts.pop("scheduler", None)
    others = [name for name, part in parts.items() if part is not None]
    refusal = None
    if not isinstance(network, UNet2DModel):
        refusal = f"its network is a {type(network).__name__}, not a UNet2DModel"
    elif others:
        refusal = f"it also needs {', '.join(others)}"
    elif getattr(network, "class_embedding", None) is not None:
        refusal = "its network is class-conditional"
    elif getattr(scheduler, "betas", None) is None:
        refusal = f"its scheduler {type(scheduler).__name__} has no table of noise rates"
    elif scheduler.config.prediction_type not in PREDICTIONS:
        refusal = f"it predicts {scheduler.config.prediction_type!r}"
    if refusal is not None:
        raise CheckpointError(
            f"{repo} cannot be used: {refusal}. Choose an unconditional pixel-space pipeline (DDPMPipeline, DDIMPipeline)."
        )
    return network, scheduler
