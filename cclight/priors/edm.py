r"""EDM: networks that are told the noise level ρ, in the three preconditionings that EDM compares.

    D(z, ρ) = c_skip z + c_out F(c_in z, c_noise),        z = x_0 + ρ ε

|     | c_skip        | c_out          | c_in          | c_noise   |                                              |
|-----|---------------|----------------|---------------|-----------|----------------------------------------------|
| edm | s²/(ρ² + s²)  | ρ s/√(ρ² + s²) | 1/√(ρ² + s²)  | ¼ ln ρ    | s = ½, the images' standard deviation        |
| vp  | 1             | -ρ             | 1/√(ρ² + 1)   | 999 t(ρ)  | t(ρ) the VP path's time at the ratio ρ       |
| ve  | 1             | ρ              | 1             | ln(ρ/2)   |                                              |

F is a SongUNet or a DhariwalUNet, read off the state_dict, or the U-Net of ADM. A network of images in [a, b] instead of
[-1, 1] sees m + h z with m = (a + b)/2 and h = (b - a)/2, under the noise h ρ.

References:
    Karras, Aittala, Aila, Laine, Elucidating the Design Space of Diffusion-Based Generative Models, NeurIPS 2022 (table 1).
    Zheng et al., InverseBench: Benchmarking Plug-and-Play Diffusion Priors for Inverse Problems in Physical Sciences, 2025.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from cclight.errors import one_line
from cclight.paths.gaussian import GaussianPath, VPPath
from cclight.paths.parameterization import Parameterization
from cclight.priors.adm_unet import ADMArchitecture, ADMUNet
from cclight.priors.base import one_hot, per_image
from cclight.priors.checkpoints import CheckpointError, architecture_of, fill, load_state, resolve
from cclight.priors.conditioned import NoiseConditioned
from cclight.priors.edm_architecture import architecture_of_state, is_song
from cclight.priors.edm_unet import DhariwalUNet, SongUNet
from cclight.priors.pickles import read_snapshot

Preconditioning = Literal["edm", "vp", "ve"]
SIGMA_DATA = 0.5
# The noise levels that training covered.
RANGES: dict[str, tuple[float, float]] = {"edm": (0.002, 80.0), "vp": (1e-3, 152.0), "ve": (0.02, 100.0)}
_CLASSES: dict[str, Preconditioning] = {"EDMPrecond": "edm", "VPPrecond": "vp", "VEPrecond": "ve"}


class Preconditioned(nn.Module):
    """D(z, ρ) of the module's docstring.

    Args:
        network: F, called with the scaled images, c_noise, and one-hot labels where it knows any.
        preconditioning: a row of the table.
    """

    def __init__(self, network: nn.Module, preconditioning: Preconditioning) -> None:
        super().__init__()
        self.model = network
        self.preconditioning = preconditioning

    def coefficients(self, rho: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """c_skip, c_out, c_in and c_noise, of the shape of ρ."""
        one = torch.ones_like(rho)
        if self.preconditioning == "vp":
            return one, -rho, (rho**2 + 1).rsqrt(), 999 * VPPath().time_at_ratio(rho)
        if self.preconditioning == "ve":
            return one, rho, one, (rho / 2).log()
        total = rho**2 + SIGMA_DATA**2
        return SIGMA_DATA**2 / total, rho * SIGMA_DATA / total.sqrt(), total.rsqrt(), rho.log() / 4

    def forward(self, z: Tensor, rho: Tensor, labels: Tensor | None = None) -> Tensor:
        """D.

        Args:
            z: x_0 + ρ ε, (B, C, H, W).
            rho: (B,), above 0.
            labels: one-hot rows, (B, classes), of zeros where there is no label; None for none.
        """
        c_skip, c_out, c_in, c_noise = self.coefficients(rho)
        # ADM's learned variance lies behind the image's channels.
        output = self.model(per_image(c_in, z) * z, c_noise, labels)[:, : z.shape[1]].to(z.dtype)
        return per_image(c_skip, z) * z + per_image(c_out, z) * output


class EDM(NoiseConditioned):
    """A network conditioned on the noise level (EDM's, InverseBench's), with published weights, on any path.

    Args:
        checkpoint: a name that `cclight models` lists (edm_ffhq64, mri_knee, ...), a file, or hf://owner/repository/file:
            .safetensors; a torch file of a state_dict, or of one under `ema` or `net`, with or without the prefix `model.`;
            or a snapshot of EDM (.pkl), of which nothing is executed.
        preconditioning: "edm", "vp" or "ve"; None takes what the snapshot or the name says, else edm (vp for ADM's U-Net).
        architecture: of ADM's U-Net, which its state_dict does not tell; None takes the named checkpoint's. Every other
            network is read off the state_dict.
        class_label: the class to restore towards where the images bring no labels of their own; None for none.
        data_range: the values that the network's images have where ours are -1 and 1.
        path: the path to sample along; None is the VP path.
        parameterization: the output N that samplers see; None is ε, and the velocity on the OT path.

    Raises:
        CheckpointError: for a checkpoint that cannot be had or does not fit, with the remedy.
        ValueError: for a class_label that the network does not know, an empty data_range or an unknown preconditioning.
    """

    reference = """@inproceedings{karras2022elucidating,
  title = {Elucidating the Design Space of Diffusion-Based Generative Models},
  author = {Karras, Tero and Aittala, Miika and Aila, Timo and Laine, Samuli},
  booktitle = {Advances in Neural Information Processing Systems},
  year = {2022},
}"""

    def __init__(
        self,
        checkpoint: str,
        preconditioning: Preconditioning | None = None,
        architecture: ADMArchitecture | None = None,
        class_label: int | None = None,
        data_range: tuple[float, float] | None = None,
        path: GaussianPath | None = None,
        parameterization: Parameterization | None = None,
    ) -> None:
        super().__init__(path, parameterization)
        known = dict(architecture_of(checkpoint, "EDM"))
        if preconditioning not in (None, *RANGES):
            raise ValueError(f"preconditioning is {preconditioning!r}: choose one of {', '.join(RANGES)}.")
        low, high = data_range or known.pop("data_range", (-1.0, 1.0))
        known.pop("data_range", None)
        if not low < high:
            raise ValueError(f"data_range is ({low}, {high}): give the lower value first, as (-1, 1).")
        named = known.pop("preconditioning", None)
        file = resolve(checkpoint)
        state, stored = _read(file)
        network = _network(state, architecture or (ADMArchitecture(**known) if known else None), file)
        kind = preconditioning or stored or named or ("vp" if isinstance(network, ADMUNet) else "edm")
        self.network = Preconditioned(network, kind)
        fill(self.network, {f"model.{key}": value for key, value in state.items()}, file)
        self.offset, self.scale = (low + high) / 2, (high - low) / 2
        self.rho_min, self.rho_max = (rho / self.scale for rho in RANGES[kind])
        if isinstance(network, ADMUNet):
            side, self.channels = network.architecture.image_size, 3
        else:
            a = network.architecture
            side, self.channels, self.labels = a.img_resolution, a.img_channels, a.label_dim
        self.image_shape = (self.channels, side, side)
        self.default_label(class_label)

    def estimate(self, z: Tensor, rho: Tensor, label: Tensor | None = None) -> Tensor:
        labels = one_hot(self.label_of(label, z), self.labels, z) if self.labels else None
        return (self.network(self.offset + self.scale * z, self.scale * rho, labels) - self.offset) / self.scale


def _read(file: Path) -> tuple[dict[str, Any], Preconditioning | None]:
    """The state_dict of F, without prefix, and the preconditioning where the file tells."""
    if file.suffix == ".pkl":
        snapshot = read_snapshot(file)
        if snapshot.class_name not in _CLASSES:
            raise CheckpointError(
                f"{file} is a {snapshot.class_name}, and EDM knows {', '.join(_CLASSES)}: take a checkpoint of one of these."
            )
        return {key.removeprefix("model."): value for key, value in snapshot.state.items()}, _CLASSES[snapshot.class_name]
    state: Mapping[str, Any] = load_state(file)
    for key in ("ema", "net"):
        if isinstance(state.get(key), Mapping):
            state = state[key]
            break
    return {key.removeprefix("model."): value for key, value in state.items()}, None


def _network(state: Mapping[str, Any], adm: ADMArchitecture | None, file: Path) -> SongUNet | DhariwalUNet | ADMUNet:
    """The network of a state_dict, without storage.

    Raises:
        CheckpointError: where it is of none that is known.
    """
    with torch.device("meta"):
        if "input_blocks.0.0.weight" in state:
            if adm is None:
                raise CheckpointError(
                    f"{file} holds ADM's U-Net, whose layers a state_dict does not tell: set architecture "
                    f"(image_size, num_channels, channel_mult, ...), or name a checkpoint that `cclight models` lists."
                )
            return ADMUNet(adm)
        try:
            found = architecture_of_state(state)
            if found is not None:
                return SongUNet(found) if is_song(state) else DhariwalUNet(found)
        except (ValueError, RuntimeError, IndexError) as error:  # of shapes that no group norm or convolution has
            raise CheckpointError(f"{file} describes no network ({one_line(error)}): delete it and fetch it again.") from error
    first = ", ".join(list(state)[:3])
    raise CheckpointError(
        f"{file} holds no SongUNet, DhariwalUNet or ADM U-Net (its first keys are {first or 'missing'}): "
        f"give a checkpoint of EDM or InverseBench, or choose the prior that the checkpoint belongs to."
    )
