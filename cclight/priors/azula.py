r"""AzulaPrior: any pixel-space denoiser of the azula library.

An azula denoiser estimates x_0 from α x_0 + σ ε for whatever schedule (α, σ) it is given. Here it is given the unit circle,

    α = 1/√(1 + ρ²),   σ = ρ/√(1 + ρ²),   D(z, ρ) = mean of the denoiser at z/√(1 + ρ²),

on which all of azula's parameterizations are exact (some of them on no other), and the time that it is asked for is ρ itself.

Reference:
    Rozet, azula: diffusion models in PyTorch, https://github.com/probabilists/azula.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any, Literal

import torch
from torch import Tensor, nn

from cclight.paths.gaussian import GaussianPath
from cclight.paths.parameterization import Parameterization
from cclight.priors.base import per_image
from cclight.priors.cards import CARDS, Card
from cclight.priors.checkpoints import CheckpointError, fill, load_state, resolve
from cclight.priors.conditioned import NoiseConditioned

_PLUGINS = ("adm", "jit", "vdm")
_ELSEWHERE = {
    "edm": "azula's plugin executes source text that the file holds: choose the prior EDM, which reads the same files safely",
    "eldm": "it denoises latents",
    "sd": "it denoises latents",
    "sana": "it denoises latents",
    "flux": "it denoises latents",
}


class AzulaPrior(NoiseConditioned):
    """A denoiser of the azula library, on any path: one of a plugin's published models, or any denoiser object.

    Args:
        plugin: "adm", "jit" or "vdm"; None where `denoiser` is given.
        model: the name of one of the plugin's models (jit_0.1b_16, imagenet_128x128); its weights are fetched, or read from
            `checkpoint`. `cclight models` lists the files.
        checkpoint: a file of weights, or hf://owner/repository/file; None takes the published one.
        config: arguments of the plugin's `make_model`, for a network that is none of its models.
        denoiser: an `azula.denoise.Denoiser`, instead of all of these.
        class_label: the class to restore towards where the images bring no labels of their own; None for none.
        image_size: the side that the network insists on, where the network does not tell; None for any size.
        path: the path to sample along; None is the VP path.
        parameterization: the output N that samplers see; None is ε, and the velocity on the OT path.

    Raises:
        ImportError: where azula is not installed.
        CheckpointError: for weights that cannot be had or do not fit, with the remedy.
        ValueError: for a plugin or model that does not exist, or a class_label that the network does not know.
    """

    reference = """@misc{rozet2024azula,
  title = {Azula: Diffusion models in {PyTorch}},
  author = {Rozet, Fran{\\c{c}}ois},
  howpublished = {https://github.com/probabilists/azula},
  year = {2024},
}"""

    def __init__(
        self,
        plugin: Literal["adm", "jit", "vdm"] | None = None,
        model: str | None = None,
        checkpoint: str | None = None,
        config: dict[str, Any] | None = None,
        denoiser: nn.Module | None = None,
        class_label: int | None = None,
        image_size: int | None = None,
        path: GaussianPath | None = None,
        parameterization: Parameterization | None = None,
    ) -> None:
        super().__init__(path, parameterization)
        try:
            from azula.denoise import Denoiser
            from azula.plugins import adm, edm, jit
        except ImportError as error:
            raise ImportError(f"AzulaPrior needs the package azula ({error}): pip install 'cclight[azula]'.") from error
        if (plugin is None) == (denoiser is None):
            raise ValueError("AzulaPrior takes a plugin or a denoiser, one of the two: set plugin to adm, jit or vdm.")
        if plugin is not None:
            denoiser = _of_plugin(plugin, model, checkpoint, config)
        if not isinstance(denoiser, Denoiser):
            raise ValueError(f"denoiser is a {type(denoiser).__name__}: give an azula.denoise.Denoiser.")
        if isinstance(denoiser, edm.ElucidatedDenoiser):
            raise ValueError("azula's denoiser of EDM calls code that its file holds: choose the prior EDM.")
        backbone: Any = getattr(denoiser, "backbone", None)
        ends = torch.tensor([0.0, 1.0])
        alpha, sigma = denoiser.schedule(ends)
        self.rho_min, self.rho_max = (sigma / alpha).tolist()
        self.no_label: int | None = None
        if isinstance(denoiser, adm.AblatedDenoiser):
            # A clipped mean has no gradient where it is clipped.
            denoiser.clip_mean = False
            self.labels = backbone.num_classes or 0
            self.needs_label = self.labels > 0
            image_size = image_size or backbone.image_size
        elif isinstance(denoiser, jit.JITDenoiser):
            self.labels = self.no_label = denoiser.num_classes
            image_size = image_size or getattr(backbone, "input_size", None)
        elif (shape := getattr(backbone, "shape", None)) is not None:
            image_size = image_size or shape[-1]
        self.channels = getattr(backbone, "in_channels", 3)
        if image_size is not None:
            self.image_shape = (self.channels, image_size, image_size)
        self.default_label(class_label)
        denoiser.schedule = _unit_circle
        self.denoiser = denoiser.float().requires_grad_(False).eval()
        _without_compilation(self.denoiser)

    def estimate(self, z: Tensor, rho: Tensor, label: Tensor | None = None) -> Tensor:
        options: dict[str, Tensor] = {}
        if self.labels and (label := self.label_of(label, z)) is not None:
            options["label"] = label if self.no_label is None else torch.where(label < 0, self.no_label, label)
        return self.denoiser(z * per_image(torch.rsqrt(1 + rho**2), z), rho, **options).mean


def _unit_circle(rho: Tensor) -> tuple[Tensor, Tensor]:
    alpha = torch.rsqrt(1 + rho**2)
    return alpha, rho * alpha


def _of_plugin(plugin: str, model: str | None, checkpoint: str | None, config: dict[str, Any] | None) -> Any:
    """A plugin's denoiser with its weights, of which nothing is executed."""
    from azula.nn.utils import skip_init
    from azula.plugins.utils import load_cards

    if plugin not in _PLUGINS:
        reason = _ELSEWHERE.get(plugin, "azula has no such plugin")
        raise ValueError(f"plugin is {plugin!r}, and {reason}; AzulaPrior takes {', '.join(_PLUGINS)}.")
    module = import_module(f"azula.plugins.{plugin}")
    known = load_cards(module)
    if model is not None:
        if model not in known:
            raise ValueError(f"model is {model!r}, and azula's plugin {plugin} has {', '.join(known)}: choose one of them.")
        config = {**known[model].config, **(config or {})}
    elif config is None or checkpoint is None:
        raise ValueError(f"AzulaPrior needs a model of the plugin {plugin} ({', '.join(known)}), or config and checkpoint.")
    file = resolve(checkpoint or _card(known[str(model)].url).name)
    state = load_state(file)
    # JiT's trainer keeps several copies; model_ema1 is the one that its authors report.
    state = next((state[key] for key in ("model_ema1", "model") if isinstance(state.get(key), dict)), state)
    state = {key.removeprefix("net."): value for key, value in state.items()}
    try:
        with skip_init():
            denoiser = module.make_model(**config)
    except (TypeError, KeyError) as error:
        raise ValueError(f"config does not fit azula's plugin {plugin} ({error}): give arguments of its make_model.") from error
    fill(denoiser.backbone, state, file)
    return denoiser


def _card(url: str) -> Card:
    found = next((card for card in CARDS.values() if card.source == url), None)
    if found is None:
        raise CheckpointError(f"cclight knows no file for {url}: fetch it by hand and set checkpoint to its path.")
    return found


def _without_compilation(network: nn.Module) -> None:
    """Undo azula's own torch.compile of JiT's blocks: whether to compile is the Restorer's choice, for the whole network."""
    for module in network.modules():
        eager = getattr(type(module).forward, "_torchdynamo_orig_callable", None)
        if eager is not None:
            module.forward = eager.__get__(module)
