r"""LPIPS' network, and the map of where a restoration differs to the eye.

With the features f_l of layer l of a classifier, each pixel's of length 1, and learned weights w_l,

    d_l(x̂, x) = Σ_c w_lc (f_lc(x̂) - f_lc(x))²,    LPIPS = Σ_l mean d_l,    the map = Σ_l d_l, enlarged to the images' size:

one number for the whole picture, or one for every pixel. The code and w are those of the authors' package `lpips`, the
classifier's weights torchvision's published file, which is read without running anything that it holds.

Reference:
    Zhang et al., The Unreasonable Effectiveness of Deep Features as a Perceptual Metric, CVPR 2018.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import TYPE_CHECKING, Literal

import torch
from torch import Tensor

from cclight.metrics.quantity import Unavailable
from cclight.priors.checkpoints import CheckpointError, cache_folder, fill, load_state, published

if TYPE_CHECKING:
    import lpips

Net = Literal["alex", "vgg", "squeeze"]
BACKBONES: Mapping[Net, str] = {"alex": "alexnet", "vgg": "vgg16", "squeeze": "squeezenet1_1"}
BRIGHTEST = 0.6  # the distance that `heat` paints white: a photograph enlarged ×4 by bicubic reaches 0.57 in places


def load_network(net: Net, spatial: bool = False) -> lpips.LPIPS:
    """LPIPS with its weights, on the CPU: images (B, 3, H, W) in [-1, 1] twice -> (B, 1, 1, 1), or (B, 1, H, W) if spatial.

    Args:
        net: the classifier.
        spatial: give the map in place of its mean.

    Raises:
        ValueError: for an unknown net.
        Unavailable: where the weights cannot be had; names the remedy.
    """
    from torchvision.models import get_model_weights

    if net not in BACKBONES:
        raise ValueError(f"LPIPS knows no net {net!r}: choose one of {', '.join(BACKBONES)}.")
    url = get_model_weights(BACKBONES[net])["DEFAULT"].url
    try:
        file = published(url)
        state = load_state(file)
        # Left to itself the package would let torchvision unpickle whatever lies in the cache; and building draws numbers.
        with warnings.catch_warnings(), torch.random.fork_rng(devices=[]):
            warnings.simplefilter("ignore")
            import lpips

            network = lpips.LPIPS(net=net, spatial=spatial, pnet_rand=True, verbose=False)
        # sliceN.M.weight there is features.M.weight in torchvision's file, which also holds a classifier.
        names = {key: f"features.{key.split('.', 1)[1]}" for key in network.net.state_dict()}
        fill(network.net, {key: state[name] for key, name in names.items() if name in state}, file)
    except (CheckpointError, OSError) as error:
        raise Unavailable(
            f"the {net} weights could not be loaded ({str(error).rstrip('.')}): run once with a network, or save {url} in "
            f"{cache_folder()}, or point TORCH_HOME to a folder that has them"
        ) from error
    return network.requires_grad_(False).eval()


class PerceptualMap:
    """Where a restoration differs to the eye: LPIPS' distance of every pixel, for 1 or 3 channels and sides of 32 or more.

    Args:
        net: the classifier, as `LPIPS` has it; both read the same file.

    Raises:
        ValueError: for an unknown net.
    """

    def __init__(self, net: Net = "squeeze") -> None:
        if net not in BACKBONES:
            raise ValueError(f"LPIPS knows no net {net!r}: choose one of {', '.join(BACKBONES)}.")
        self.net = net
        self._network: lpips.LPIPS | None = None

    def prepare(self, device: torch.device) -> None:
        """Load the network onto the device, before any long work.

        Raises:
            Unavailable: where the weights cannot be had; names the remedy.
        """
        self._network = load_network(self.net, spatial=True).to(device)

    @torch.no_grad()
    def __call__(self, restored: Tensor, clean: Tensor) -> Tensor:
        """The map of each image.

        Args:
            restored: (B, C, H, W), clamped to [-1, 1], of any floating dtype.
            clean: the same shape and range.

        Returns:
            (B, H, W), float32 on the CPU: 0 where nothing differs; 0.1 is hardly seen, 0.5 is plain.

        Raises:
            Unavailable: for images with other than 1 or 3 channels or smaller than 32 pixels.
        """
        if self._network is None:
            self.prepare(restored.device)
        assert self._network is not None
        device = next(self._network.parameters()).device
        return self._network(as_rgb(restored).to(device), as_rgb(clean).to(device))[:, 0].cpu()


def as_rgb(images: Tensor) -> Tensor:
    """Images (B, 1 or 3, H, W) as LPIPS takes them: (B, 3, H, W), float32, in [-1, 1].

    Raises:
        Unavailable: for images with other than 1 or 3 channels or smaller than 32 pixels.
    """
    if images.ndim != 4:
        raise Unavailable(f"LPIPS is defined on pictures, the arrays have {images.ndim - 2} sides")
    channels, height, width = images.shape[1:]
    if channels not in (1, 3):
        raise Unavailable(f"LPIPS is defined on 1 or 3 channels, the images have {channels}")
    if min(height, width) < 32:
        raise Unavailable(f"LPIPS needs sides of 32 pixels or more, the images are {height}×{width}")
    return images.float().clamp(-1, 1).expand(-1, 3, -1, -1)


def heat(distances: Tensor, brightest: float = BRIGHTEST) -> Tensor:
    """A map as a picture: black where nothing differs, over red and yellow to white, on one scale for all pictures.

    Args:
        distances: (..., H, W), 0 or more.
        brightest: which of them is white.

    Returns:
        (..., 3, H, W) in [-1, 1].
    """
    level = distances / brightest
    return torch.stack([(3 * level - start).clamp(0, 1) for start in range(3)], dim=-3) * 2 - 1
