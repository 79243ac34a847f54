r"""DiffusersFlow: flow-matching models kept in the layout of diffusers (FlowMatchEulerDiscreteScheduler), in pixel space.

diffusers counts the noise: x = (1 - σ) x_0 + σ ε, the network is fed 1000 σ and predicts ε - x_0. With t = 1 - σ this is
`OTPath`, and the velocity there is the negative of what the network puts out. Some networks predict x_0 or ε instead. The
scheduler's shifts only choose the times of diffusers' own sampling, and do not matter here.

References:
    Esser et al., Scaling Rectified Flow Transformers for High-Resolution Image Synthesis, ICML 2024 (the scheduler).
    Peebles, Xie, Scalable Diffusion Models with Transformers, ICCV 2023 (DiT).
"""

from __future__ import annotations

from typing import Any, Literal

import torch
from torch import Tensor

from cclight.errors import one_line
from cclight.paths.gaussian import OTPath
from cclight.paths.parameterization import Epsilon, Parameterization, Sample, Velocity
from cclight.priors.base import NO_LABEL, Prior
from cclight.priors.checkpoints import CheckpointError
from cclight.priors.hf_diffusers import DiffusersPrior
from cclight.priors.hf_files import diffusers_for, kinds_of, network_of, pipeline_file, refusal, said, settings_of, weights_of

PREDICTIONS: dict[str, type[Parameterization]] = {"velocity": Velocity, "sample": Sample, "epsilon": Epsilon}
_SCHEDULER = "FlowMatchEulerDiscreteScheduler"
_NETWORKS = {"unet": "UNet2DModel", "transformer": "DiTTransformer2DModel"}


class DiffusersFlow(Prior):
    """A flow-matching UNet2DModel or pixel-space DiT of diffusers, on the OT path.

    Only settings and weights are read: no Python file of the pipeline runs.

    Args:
        repo: a repository on the Hugging Face hub or a folder made by `save_pretrained`, with a scheduler
            FlowMatchEulerDiscreteScheduler and a network `unet` (UNet2DModel) or `transformer` (DiTTransformer2DModel).
        prediction: what the network puts out: "velocity" (diffusers' ε - x_0), "sample" (x_0) or "epsilon" (ε); None takes the
            scheduler's prediction_type, and the velocity where it says none.
        class_label: the class to restore towards where the images bring no labels of their own; None for none.

    Raises:
        ImportError: where diffusers is not installed.
        CheckpointError: for a pipeline that cannot be had or is none of these.
        ValueError: for a class_label that the network does not know.
    """

    reference = DiffusersPrior.reference

    def __init__(
        self,
        repo: str,
        prediction: Literal["velocity", "sample", "epsilon"] | None = None,
        class_label: int | None = None,
    ) -> None:
        network, scheduler = _parts(repo)
        said = str(prediction or scheduler.get("prediction_type") or "velocity")
        said = {"v_prediction": "velocity", "flow_prediction": "velocity"}.get(said, said)
        if said not in PREDICTIONS:
            raise ValueError(f"the prediction of {repo} is {said!r}: set prediction to one of {', '.join(PREDICTIONS)}.")
        super().__init__(OTPath(), PREDICTIONS[said]())
        settings = network.config
        self.steps = float(scheduler.get("num_train_timesteps", 1000))
        self.network = network
        self.channels = settings["in_channels"]
        side = settings["sample_size"]
        if side is None:  # made for any size that its levels can halve
            self.stride = 2 ** (len(settings["block_out_channels"]) - 1)
        else:
            height, width = (side, side) if isinstance(side, int) else side
            self.image_shape = (self.channels, height, width)
        # DiT learns an embedding for no label, behind those of the classes; UNet2DModel has none.
        self.transformer = "patch_size" in settings
        self.labels = (settings["num_embeds_ada_norm"] if self.transformer else settings.get("num_class_embeds")) or 0
        self.needs_label = self.labels > 0 and not self.transformer
        self.default_label(class_label)

    def forward(self, x_t: Tensor, t: Tensor, label: Tensor | None = None) -> Tensor:
        options: dict[str, Tensor] = {}
        if self.labels:
            label = self.label_of(label, x_t)
            if label is None:
                label = torch.full(t.shape, NO_LABEL, device=x_t.device)
            options["class_labels"] = torch.where(label < 0, self.labels, label) if self.transformer else label
        # A learned variance lies behind the image's channels.
        output = self.network(x_t, self.steps * (1 - t), **options).sample[:, : self.channels]
        return -output if isinstance(self.parameterization, Velocity) else output


def _parts(repo: str) -> tuple[Any, dict[str, Any]]:
    """The network, with its weights and frozen, and the scheduler's settings; see `hf_files` for why no pipeline is loaded.

    Raises:
        ImportError: where diffusers is not installed.
        CheckpointError: where there is more to the pipeline, or they are not of the kinds that we can run.
    """
    diffusers = diffusers_for("DiffusersFlow", "diffusers")
    kinds = kinds_of(repo)
    scheduler_kind = kinds.pop("scheduler", (None, None))
    if scheduler_kind != ("diffusers", _SCHEDULER):
        raise _refusal(repo, f"its scheduler is {said(scheduler_kind)}, not {_SCHEDULER} (choose DiffusersPrior for others)")
    place = next((name for name in _NETWORKS if name in kinds), None)
    if place is None or kinds.pop(place) != ("diffusers", _NETWORKS[place]):
        raise _refusal(repo, f"it has no unet {_NETWORKS['unet']} or transformer {_NETWORKS['transformer']} of diffusers")
    if kinds:
        raise _refusal(repo, f"it also needs {', '.join(kinds)}")
    scheduler = settings_of(pipeline_file(repo, "scheduler/scheduler_config.json"))
    state, source = weights_of(repo, f"{place}/")
    settings = settings_of(pipeline_file(repo, f"{place}/config.json"))
    try:
        network = network_of(getattr(diffusers, _NETWORKS[place]), settings, state, source)
    except CheckpointError:
        raise
    except Exception as error:  # whatever a wrong setting leads to
        raise _refusal(repo, f"its settings make no network ({one_line(error)})") from error
    return network, scheduler


def _refusal(repo: str, reason: str) -> CheckpointError:
    return refusal(repo, reason, f"a pixel-space pipeline with {_SCHEDULER} and one network beside it")
