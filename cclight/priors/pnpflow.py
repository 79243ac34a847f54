"""PnPFlowUNet: the flow-matching models that PnP-Flow was published with (CelebA 128×128, AFHQ-cat 256×256).

They run z_t = t x_0 + (1 - t) ε from noise at t = 0 to data at t = 1 and predict the velocity x_0 - ε: `OTPath` itself.
"""

from __future__ import annotations

import torch
from torch import Tensor

from cclight.errors import one_line
from cclight.paths.gaussian import OTPath
from cclight.paths.parameterization import Velocity
from cclight.priors.base import Prior
from cclight.priors.checkpoints import CheckpointError, architecture_of, fill, load_state, resolve
from cclight.priors.pnpflow_unet import VelocityUNet, architecture_of_state


class PnPFlowUNet(Prior):
    """PnP-Flow's flows with published weights, on the OT path, predicting the velocity.

    Args:
        checkpoint: a name that `cclight models` lists (celeba128, afhq_cat256), a file of a state_dict, or
            hf://owner/repository/file. The network is read off the state_dict.
        image_size: side of the images that it was trained on; None takes the named checkpoint's, and any size that its levels
            can halve for another file.

    Raises:
        CheckpointError: for a checkpoint that cannot be had or does not fit, with the remedy.
    """

    reference = """@inproceedings{martin2025pnpflow,
  title = {{PnP-Flow}: Plug-and-Play Image Restoration with Flow Matching},
  author = {Martin, S\\'egol\\`ene and Gagneux, Anne and Hagemann, Paul and Steidl, Gabriele},
  booktitle = {International Conference on Learning Representations},
  year = {2025}
}"""

    def __init__(self, checkpoint: str, image_size: int | None = None) -> None:
        super().__init__(OTPath(), Velocity())
        image_size = image_size or architecture_of(checkpoint, "PnPFlowUNet").get("image_size")
        file = resolve(checkpoint)
        state = load_state(file)
        try:
            architecture = architecture_of_state(state)
            with torch.device("meta"):
                network = None if architecture is None else VelocityUNet(architecture)
        except (ValueError, RuntimeError, IndexError) as error:  # of shapes that no group norm or convolution has
            raise CheckpointError(f"{file} describes no network ({one_line(error)}): delete it and fetch it again.") from error
        if architecture is None or network is None:
            first = ", ".join(list(state)[:3])
            raise CheckpointError(
                f"{file} holds no network of PnP-Flow (its first keys are {first or 'missing'}): give the model_final.pt that "
                f"its README links to, or choose the prior that the checkpoint belongs to."
            )
        self.network = network
        fill(self.network, state, file)
        self.channels = architecture.channels
        self.stride = 2 ** (len(architecture.widths) - 1)
        if image_size is not None:
            self.image_shape = (self.channels, image_size, image_size)

    def forward(self, x_t: Tensor, t: Tensor) -> Tensor:
        return self.network(x_t, t)
