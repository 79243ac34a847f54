"""Rectified flow: velocity-predicting flows on the straight path, with the NCSN++ network.

The published flows run z_t = t z_0 + (1 - t) ε from noise at t = 0. Those of CelebA-HQ and AFHQ were trained on images z_0 in
[-1, 1], which is `OTPath` itself. LSUN's were trained on z_0 = (x_0 + 1)/2 in [0, 1]: against images in [-1, 1] their noise is
twice as large, so that their time t' is another one than the path's. Equal noise-to-signal ratios, 2(1-t')/t' = (1-t)/t, give

    t' = 2t / (1 + t),   z = x_t / (1 + t) + t'/2,   N(x_t, t) = x̂_0 - ε̂ = (x_t + 2 N'(z, t') - 1) / (1 + t)

with N' the network's velocity of z. N is the velocity on `OTPath` with images in [-1, 1], whichever range the network wants.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from cclight.paths.gaussian import OTPath
from cclight.paths.parameterization import Velocity
from cclight.priors.base import Prior, per_image
from cclight.priors.checkpoints import CheckpointError, architecture_of, fill, load_state, resolve
from cclight.priors.ncsnpp_unet import NCSNpp, NCSNppArchitecture

_FIRST_TIME = 1e-3  # training drew t' from [1e-3, 1]; the network takes the logarithm


def averaged_weights(container: Mapping[str, Any], network: nn.Module, source: Path) -> Mapping[str, Any]:
    """The exponential moving average's weights in the published container, by the network's own keys.

    Args:
        container: {optimizer, model, ema, step}: `model` is a state_dict under the prefix `module.`; ema["shadow_params"]
            lists the averages of the trained parameters in their order, without names. Anything else returns as it is.
        network: the network, not yet frozen: it knows the order and which parameters are trained.
        source: the file it comes from, for the error.

    Raises:
        CheckpointError: where the number of averages is not the number of trained parameters.
    """
    model, ema = container.get("model"), container.get("ema")
    if not (isinstance(model, Mapping) and isinstance(ema, Mapping) and isinstance(ema.get("shadow_params"), list)):
        return container
    weights = {key.removeprefix("module."): value for key, value in model.items()}
    averages = ema["shadow_params"]
    trained = [name for name, parameter in network.named_parameters() if parameter.requires_grad]
    if len(averages) != len(trained):
        raise CheckpointError(
            f"{source} averages {len(averages)} parameters, {type(network).__name__} trains {len(trained)}: "
            f"set the prior's architecture to the checkpoint's."
        )
    return weights | dict(zip(trained, averages, strict=True))


class RectifiedFlow(Prior):
    """A 1-rectified flow with published weights, on the OT path, predicting the velocity.

    Args:
        checkpoint: a name that `cclight models` lists (celeba_hq, afhq_cat, lsun_bedroom, lsun_church), a file in the published
            container {optimizer, model, ema, step} or a state_dict (see `checkpoints.unwrap`), or hf://owner/repository/file.
        architecture: what fixes the layers; None takes that of the named checkpoint, or celeba_hq's for any other file:
            say {centered: false} for a flow of images in [0, 1].
        activation_checkpointing: recompute activations in the backward pass: less memory, about a third more time.

    Raises:
        CheckpointError: for a checkpoint that cannot be had or does not fit, with the remedy.
    """

    reference = """@inproceedings{liu2023flow,
  title = {Flow Straight and Fast: Learning to Generate and Transfer Data with Rectified Flow},
  author = {Liu, Xingchao and Gong, Chengyue and Liu, Qiang},
  booktitle = {International Conference on Learning Representations},
  year = {2023},
}"""

    def __init__(
        self,
        checkpoint: str,
        architecture: NCSNppArchitecture | None = None,
        activation_checkpointing: bool = False,
    ) -> None:
        super().__init__(OTPath(), Velocity())
        if architecture is None:
            architecture = NCSNppArchitecture(**architecture_of(checkpoint, "RectifiedFlow"))
        self.image_shape = (3, architecture.image_size, architecture.image_size)
        file = resolve(checkpoint)
        with torch.device("meta"):
            self.network = NCSNpp(architecture, activation_checkpointing)
        fill(self.network, averaged_weights(load_state(file), self.network, file), file)

    def forward(self, x_t: Tensor, t: Tensor) -> Tensor:
        if self.network.architecture.centered:
            return self.network(x_t, 999 * t.clamp(min=_FIRST_TIME))
        t = per_image(t, x_t)
        t_network = 2 * t / (1 + t)
        z = x_t / (1 + t) + t_network / 2
        velocity = self.network(z, 999 * t_network.flatten().clamp(min=_FIRST_TIME))
        return (x_t + 2 * velocity - 1) / (1 + t)
