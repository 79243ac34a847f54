"""ADM: the field's ε-predicting diffusion models (OpenAI's guided-diffusion and what was trained with its code).

The network was trained on 1000 discrete steps with β from 1e-4 to 0.02; step i is time t = i / 999 of `VPPath`.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from cclight.paths.gaussian import VPPath
from cclight.paths.parameterization import Epsilon
from cclight.priors.adm_unet import ADMArchitecture, ADMUNet
from cclight.priors.base import Prior
from cclight.priors.checkpoints import architecture_of, fill, load_state, resolve


class ADM(Prior):
    """ADM with published weights, on the VP path, predicting ε.

    Args:
        checkpoint: a name that `cclight models` lists (imagenet256, ffhq256, ...), a file, or hf://owner/repository/file.
        architecture: what fixes the layers; None takes that of the named checkpoint, or imagenet256's for any other file.
        class_label: the class to restore towards where the images bring no labels of their own, for a class-conditional
            checkpoint alone.
        discretize: how t becomes the step index that the network is fed: "fractional" 999 t, or "floor" of it, as
            Pandey et al. run it.
        activation_checkpointing: recompute activations in the backward pass: less memory, about a third more time.

    Raises:
        CheckpointError: for a checkpoint that cannot be had or does not fit, with the remedy.
        ValueError: for a class_label that the network does not know.
    """

    reference = """@inproceedings{dhariwal2021diffusion,
  title = {Diffusion Models Beat {GANs} on Image Synthesis},
  author = {Dhariwal, Prafulla and Nichol, Alexander},
  booktitle = {Advances in Neural Information Processing Systems},
  year = {2021},
}"""

    def __init__(
        self,
        checkpoint: str,
        architecture: ADMArchitecture | None = None,
        class_label: int | None = None,
        discretize: Literal["fractional", "floor"] = "fractional",
        activation_checkpointing: bool = False,
    ) -> None:
        super().__init__(VPPath(), Epsilon())
        if architecture is None:
            architecture = ADMArchitecture(**architecture_of(checkpoint, "ADM"))
        if discretize not in ("fractional", "floor"):
            raise ValueError(f"discretize is {discretize!r}: choose fractional or floor.")
        if not architecture.class_cond and class_label is not None:
            raise ValueError(f"class_label is {class_label}, but {checkpoint} is not class-conditional: leave class_label out.")
        self.labels = architecture.num_classes if architecture.class_cond else 0
        self.needs_label = architecture.class_cond
        self.default_label(class_label)
        self.discretize = discretize
        self.image_shape = (3, architecture.image_size, architecture.image_size)
        file = resolve(checkpoint)
        with torch.device("meta"):
            self.network = ADMUNet(architecture, activation_checkpointing)
        fill(self.network, load_state(file), file)

    def forward(self, x_t: Tensor, t: Tensor, label: Tensor | None = None) -> Tensor:
        index = 999 * t
        if self.discretize == "floor":
            index = index.floor()
        # A learned variance lies behind the three channels of ε.
        return self.network(x_t, index, self.label_of(label, x_t) if self.labels else None)[:, :3]
