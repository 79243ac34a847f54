r"""DeepinvPrior: any denoiser of the deepinv library.

A deepinv denoiser removes noise of standard deviation σ from images in [0, 1]. For images in [-1, 1],

    D(z, ρ) = 2 model((z + 1)/2, ρ/2) - 1.

Reference:
    Tachella et al., DeepInverse: A Python package for solving imaging inverse problems with deep learning, JOSS 2025.
"""

from __future__ import annotations

import inspect
from importlib import import_module
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from cclight.operators.external import DeepinvPhysics
from cclight.paths.gaussian import GaussianPath
from cclight.paths.parameterization import Parameterization
from cclight.priors.base import one_hot
from cclight.priors.cards import CARDS
from cclight.priors.checkpoints import CheckpointError, fill, load_state, resolve
from cclight.priors.conditioned import NoiseConditioned

# From a file these two know only by these arguments that its images lie in [-1, 1]; their defaults are silently wrong.
_OF_EDM = ("NCSNpp", "ADMUNet")
_EDM_FILES = {"pixel_std": 0.5, "_was_trained_on_minus_one_one": True}


class DeepinvPrior(NoiseConditioned):
    """A denoiser of the deepinv library, on any path.

    Args:
        denoiser: {class_path: deepinv.models.DRUNet, init_args: {pretrained: drunet_color}}, where `pretrained` must stand: a
            name that `cclight models` lists, a file, hf://owner/repository/file, "download" for what deepinv fetches itself,
            or null for random weights; or a denoiser object.
        class_label: the class to restore towards, for a network with labels; None for none.
        channels: channels of the images that it takes.
        image_size: the side that it insists on; None for any size that `stride` divides.
        stride: every side must be divisible by it.
        noise_range: the least and greatest noise level that it is shown, in units of [-1, 1] images.
        path: the path to sample along; None is the VP path.
        parameterization: the output N that samplers see; None is ε, and the velocity on the OT path.

    Raises:
        ImportError: where deepinv is not installed.
        CheckpointError: for weights that cannot be had or do not fit, with the remedy.
        ValueError: for a denoiser that cannot be made, or a class_label that it does not know.
    """

    reference = DeepinvPhysics.reference

    def __init__(
        self,
        denoiser: dict[str, Any] | nn.Module,
        class_label: int | None = None,
        channels: int = 3,
        image_size: int | None = None,
        stride: int = 1,
        noise_range: tuple[float, float] = (2e-3, 150.0),
        path: GaussianPath | None = None,
        parameterization: Parameterization | None = None,
    ) -> None:
        super().__init__(path, parameterization)
        if not 0 < noise_range[0] < noise_range[1]:
            raise ValueError(f"noise_range is {noise_range}: give two levels above 0, the lesser first.")
        network = _made(denoiser) if isinstance(denoiser, dict) else denoiser
        self.rho_min, self.rho_max = noise_range
        self.channels, self.stride = channels, stride
        if image_size is not None:
            self.image_shape = (channels, image_size, image_size)
        label_map = getattr(network, "map_label", None)
        self.labels = label_map.in_features if isinstance(label_map, nn.Linear) else 0
        self.default_label(class_label)
        self.denoiser = network.requires_grad_(False).eval()

    def estimate(self, z: Tensor, rho: Tensor, label: Tensor | None = None) -> Tensor:
        options = {"class_labels": one_hot(self.label_of(label, z), self.labels, z)} if self.labels else {}
        return 2 * self.denoiser((z + 1) / 2, rho / 2, **options) - 1


def _made(described: dict[str, Any]) -> nn.Module:
    """The denoiser of {class_path, init_args}."""
    path, arguments = described.get("class_path"), dict(described.get("init_args") or {})
    unknown = set(described) - {"class_path", "init_args"}
    if not isinstance(path, str) or unknown:
        example = "{class_path: deepinv.models.DRUNet, init_args: {pretrained: drunet_color}}"
        raise ValueError(f"denoiser is {described}: write it as {example}.")
    kind, name = _class(path), path.rsplit(".", 1)[-1]
    parameters = inspect.signature(kind).parameters
    if "pretrained" in parameters and "pretrained" not in arguments:
        raise ValueError(f"{name} would download weights without being asked: set its pretrained to a file, download or null.")
    file = arguments.get("pretrained")
    weights = None
    if isinstance(file, str) and not file.startswith("download"):
        file = resolve(file)
        weights = load_state(file)
        arguments["pretrained"] = None
        if name in _OF_EDM:
            arguments = _EDM_FILES | arguments
    try:
        network = kind(**arguments)
    except OSError as error:
        raise CheckpointError(f"deepinv cannot fetch the weights of {name} ({error}): {_remedy(name)}") from error
    except (TypeError, KeyError) as error:
        raise ValueError(f"{name} cannot be made of {arguments} ({error}): give arguments of {path}.") from error
    if not isinstance(network, nn.Module):
        raise ValueError(f"{path} makes a {type(network).__name__}, no network: give a denoiser of deepinv.models.")
    if weights is not None:
        fill(network, weights, Path(str(file)))
    return network


def _class(path: str) -> Any:
    module, _, name = path.rpartition(".")
    try:
        return getattr(import_module(module or "deepinv.models"), name)
    except ImportError as error:
        if path.startswith("deepinv"):
            raise ImportError(f"DeepinvPrior needs the package deepinv ({error}): pip install 'cclight[deepinv]'.") from error
        raise ValueError(f"denoiser's class_path {path} cannot be imported ({error}).") from error
    except AttributeError as error:
        raise ValueError(f"{module or 'deepinv.models'} has no {name}: give the class_path of a deepinv denoiser.") from error


def _remedy(name: str) -> str:
    cards = [card for card in CARDS.values() if card.prior == "DeepinvPrior" and card.architecture.get("denoiser") == name]
    files = " or ".join(f"{card.source} ({card.name})" for card in cards) or "the file that deepinv's documentation links to"
    return f"fetch {files} elsewhere and set pretrained to its path."
