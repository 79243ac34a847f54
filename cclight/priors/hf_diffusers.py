"""DiffusersPrior: any unconditional UNet2DModel pipeline of the diffusers library, by repository or local folder."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from cclight.errors import one_line
from cclight.paths.discrete import DiscretePath
from cclight.paths.gaussian import GaussianPath
from cclight.paths.parameterization import Epsilon, Linear, Parameterization, Sample
from cclight.priors.base import Prior
from cclight.priors.checkpoints import CheckpointError
from cclight.priors.hf_files import (
    diffusers_for,
    kinds_of,
    network_of,
    pipeline_file,
    refusal,
    said,
    scheduler_class,
    settings_of,
    weights_of,
)


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

    Only settings and weights are read: no Python file of the pipeline runs.

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
        network, scheduler = _parts(repo)
        betas = tuple(scheduler.betas.double().tolist())
        super().__init__(DiscretePath(betas), PREDICTIONS[scheduler.config.prediction_type]())
        self.channels = network.config.in_channels
        side = network.config.sample_size
        if side is None:  # made for any size that its levels can halve
            self.stride = 2 ** (len(network.config.block_out_channels) - 1)
        else:
            height, width = (side, side) if isinstance(side, int) else side
            self.image_shape = (self.channels, height, width)
        self.network = network

    def forward(self, x_t: Tensor, t: Tensor) -> Tensor:
        # A learned variance lies behind the image's channels.
        return self.network(x_t, self.path.index(t)).sample[:, : self.channels]


def _parts(repo: str) -> tuple[Any, Any]:
    """The pipeline's network, with its weights and frozen, and its scheduler.

    Both are classes of diffusers itself, made from the settings in JSON files.

    Raises:
        ImportError: where diffusers is not installed.
        CheckpointError: where there is more to the pipeline, or they are not of the kinds that we can run.
    """
    diffusers = diffusers_for("DiffusersPrior", "diffusers")
    kinds = kinds_of(repo)
    network_kind, scheduler_kind = (kinds.pop(name, (None, None)) for name in ("unet", "scheduler"))
    if network_kind != ("diffusers", "UNet2DModel"):
        raise _refusal(repo, f"its network is {said(network_kind)}, not a UNet2DModel of diffusers")
    if kinds:
        raise _refusal(repo, f"it also needs {', '.join(kinds)}")
    made = scheduler_class(diffusers, scheduler_kind)
    if made is None:
        raise _refusal(repo, f"its scheduler is {said(scheduler_kind)}, not one of diffusers")
    # Old repositories keep everything in one folder.
    network_file = pipeline_file(repo, "unet/config.json", "config.json")
    scheduler_file = pipeline_file(repo, "scheduler/scheduler_config.json", "scheduler_config.json")
    state, source = weights_of(repo, "unet/", "")
    try:
        scheduler = made.from_config(settings_of(scheduler_file))
        network = network_of(diffusers.UNet2DModel, settings_of(network_file), state, source)
    except CheckpointError:
        raise
    except Exception as error:  # whatever a wrong setting leads to
        raise _refusal(repo, f"its settings make no network and scheduler ({one_line(error)})") from error
    if getattr(network, "class_embedding", None) is not None:
        raise _refusal(repo, "its network is class-conditional")
    if getattr(scheduler, "betas", None) is None:
        raise _refusal(
            repo, f"its scheduler {scheduler_kind[-1]} has no table of noise rates (choose DiffusersFlow for flow matching)"
        )
    if scheduler.config.prediction_type not in PREDICTIONS:
        raise _refusal(repo, f"it predicts {scheduler.config.prediction_type!r}")
    return network, scheduler


def _refusal(repo: str, reason: str) -> CheckpointError:
    return refusal(repo, reason, "an unconditional pixel-space pipeline (DDPMPipeline, DDIMPipeline)")
