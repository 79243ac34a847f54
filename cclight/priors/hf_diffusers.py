"""DiffusersPrior: any unconditional UNet2DModel pipeline of the diffusers library, by repository or local folder."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from cclight.errors import one_line
from cclight.paths.discrete import DiscretePath
from cclight.paths.gaussian import GaussianPath
from cclight.paths.parameterization import Epsilon, Linear, Parameterization, Sample
from cclight.priors.base import Prior
from cclight.priors.checkpoints import CheckpointError, fill, load_state


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

    Both are classes of diffusers itself, made from the settings in JSON files: diffusers' own loading of a whole pipeline runs,
    in some versions, Python files that lie beside them.

    Raises:
        ImportError: where diffusers is not installed.
        CheckpointError: where there is more to the pipeline, or they are not of the kinds that we can run.
    """
    try:
        import diffusers
    except ImportError as error:
        raise ImportError("DiffusersPrior needs the package diffusers: pip install 'cclight[diffusers]'.") from error
    index = _settings(_file(repo, "model_index.json"))
    kinds = {name: tuple(kind) for name, kind in index.items() if name[:1] != "_" and isinstance(kind, list) and any(kind)}
    network_kind, scheduler_kind = (kinds.pop(name, (None, None)) for name in ("unet", "scheduler"))
    if network_kind != ("diffusers", "UNet2DModel"):
        raise _refusal(repo, f"its network is {_said(network_kind)}, not a UNet2DModel of diffusers")
    if kinds:
        raise _refusal(repo, f"it also needs {', '.join(kinds)}")
    scheduler_class = getattr(diffusers, str(scheduler_kind[-1]), None) if scheduler_kind[0] == "diffusers" else None
    if not (isinstance(scheduler_class, type) and issubclass(scheduler_class, diffusers.SchedulerMixin)):
        raise _refusal(repo, f"its scheduler is {_said(scheduler_kind)}, not one of diffusers")
    # Old repositories keep everything in one folder.
    network_file = _file(repo, "unet/config.json", "config.json")
    scheduler_file = _file(repo, "scheduler/scheduler_config.json", "scheduler_config.json")
    names = [f"{place}diffusion_pytorch_model.{suffix}" for suffix in ("safetensors", "bin") for place in ("unet/", "")]
    weights = _file(repo, *names)
    try:
        scheduler = scheduler_class.from_config(_settings(scheduler_file))
        with torch.device("meta"):
            network = diffusers.UNet2DModel.from_config(_settings(network_file))
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
    state = {_ATTENTION.sub(lambda match: _TODAY[match[0]], key): value for key, value in load_state(weights).items()}
    fill(network, state, weights)
    return network, scheduler


# How old files name the parts of an attention block, and how it calls them today.
_TODAY = {"query": "to_q", "key": "to_k", "value": "to_v", "proj_attn": "to_out.0"}
_ATTENTION = re.compile(r"(?<=\.)(query|key|value|proj_attn)(?=\.(weight|bias)$)")


def _file(repo: str, *names: str) -> Path:
    """The first of some files that a folder or a repository of the hub has.

    Raises:
        CheckpointError: where it has none of them or cannot be reached.
    """
    remedy = "give owner/repository of the hub, or a folder with model_index.json"
    if Path(repo).is_dir():
        for name in names:
            if (Path(repo) / name).is_file():
                return Path(repo) / name
        raise CheckpointError(f"{repo} is no diffusers pipeline that can be loaded (it has no {names[0]}): {remedy}.")
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import EntryNotFoundError, HfHubHTTPError, HFValidationError

    reason: Exception = FileNotFoundError(names[0])
    for name in names:
        try:
            return Path(hf_hub_download(repo, name))
        except (OSError, HfHubHTTPError, HFValidationError) as error:  # noqa: PERF203 - a download costs more
            reason = error
            if not isinstance(error, EntryNotFoundError):
                break
    raise CheckpointError(f"{repo} is no diffusers pipeline that can be loaded ({one_line(reason)}): {remedy}.") from reason


def _settings(file: Path) -> dict[str, Any]:
    try:
        settings = json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise CheckpointError(f"{file} holds no JSON ({one_line(error)}): fetch the pipeline again.") from error
    if not isinstance(settings, dict):
        raise CheckpointError(f"{file} holds a {type(settings).__name__}, not settings: fetch the pipeline again.")
    return settings


def _said(kind: tuple[Any, ...]) -> str:
    return " of ".join(str(part) for part in reversed(kind) if part) or "missing"


def _refusal(repo: str, reason: str) -> CheckpointError:
    return CheckpointError(
        f"{repo} cannot be used: {reason}. Choose an unconditional pixel-space pipeline (DDPMPipeline, DDIMPipeline)."
    )
