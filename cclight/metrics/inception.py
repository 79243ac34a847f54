"""Inception: the network whose features FID and KID compare."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn

from cclight.errors import one_line
from cclight.metrics.quantity import LOADING_ERRORS, Unavailable


class Inception(nn.Module):
    """The Inception network of FID as torch-fidelity has it, with TensorFlow 1's resize: uint8 (B, 3, H, W) -> (B, 2048).

    Args:
        weights: a file with the weights, weights-inception-2015-12-05-6726825d.pth; None downloads it once (91 MB).
    """

    def __init__(self, weights: str | None = None) -> None:
        super().__init__()
        self.weights = weights
        self._network: nn.Module | None = None

    def load(self) -> nn.Module:
        """The network with its weights.

        Raises:
            Unavailable: when the weights cannot be had; names the remedy.
        """
        from torch_fidelity.feature_extractor_inceptionv3 import URL_INCEPTION_V3, FeatureExtractorInceptionV3

        path = self.weights or f"{torch.hub.get_dir()}/checkpoints/{Path(URL_INCEPTION_V3).name}"
        try:
            # torch-fidelity unpickles whatever the file holds: let only a file that is plain tensors get there.
            if self.weights is None:
                torch.hub.load_state_dict_from_url(URL_INCEPTION_V3, map_location="cpu", check_hash=True, weights_only=True)
            else:
                torch.load(path, map_location="cpu", weights_only=True)
            return FeatureExtractorInceptionV3("inception-v3-compat", ["2048"], feature_extractor_weights_path=path)
        except LOADING_ERRORS as error:
            raise Unavailable(
                f"the Inception weights could not be loaded from {path} ({one_line(error)}): run once with a network, or save "
                f"{URL_INCEPTION_V3} there"
            ) from error

    def forward(self, images: Tensor) -> Tensor:
        if self._network is None:
            self._network = self.load().to(images.device)
        return self._network(images)[0]
