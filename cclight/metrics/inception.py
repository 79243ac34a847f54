"""Inception: the network whose features FID and KID compare."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn

from cclight.errors import one_line
from cclight.metrics.quantity import Unavailable
from cclight.priors.checkpoints import CheckpointError, cache_folder, fill, load_state, published


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
            Unavailable: when they cannot be downloaded or their place in the cache holds something else; names the remedy.
            CheckpointError: when the file that was given holds anything else.
        """
        from torch_fidelity.feature_extractor_inceptionv3 import URL_INCEPTION_V3, FeatureExtractorInceptionV3

        path = Path(self.weights) if self.weights else cache_folder() / Path(URL_INCEPTION_V3).name
        try:
            if self.weights is None:
                published(URL_INCEPTION_V3)
            # torch-fidelity unpickles whatever the file holds: let only a file that is plain tensors get there.
            state = load_state(path)
            with torch.random.fork_rng(devices=[]):  # building draws numbers
                network = FeatureExtractorInceptionV3("inception-v3-compat", ["2048"], feature_extractor_weights_path=str(path))
            fill(network, state, path)
        except (OSError, RuntimeError, CheckpointError) as error:
            reason = str(error).rstrip(".") if isinstance(error, CheckpointError) else one_line(error)
            text = f"Inception weights could not be loaded from {path} ({reason})"
            if self.weights is not None:
                raise CheckpointError(f"The {text}: give the file {URL_INCEPTION_V3}, or leave `weights` out.") from error
            remedy = "" if URL_INCEPTION_V3 in reason else f": run once with a network, or save {URL_INCEPTION_V3} there"
            raise Unavailable(f"the {text}{remedy}") from error
        return network

    def forward(self, images: Tensor) -> Tensor:
        if self._network is None:
            self._network = self.load().to(images.device)
        return self._network(images)[0]
