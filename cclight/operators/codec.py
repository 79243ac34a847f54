"""Compression by a learned image codec."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from cclight.operators.base import Operator

STRIDE = 64  # the deepest of the codecs halve an image six times


class CodecCompression(Operator):
    """Compressed and decompressed by a network of compressai; y is the decoded image, and h† y = y.

    The codec rounds what it transmits, which has no gradient: going backward, the whole of it counts as the identity.

    Args:
        model: a name from compressai's zoo of image codecs.
        quality: the codec's quality level, from 1 (worst).
        weights: a file with the codec's state dict; None lets compressai download its own.

    Raises:
        ImportError: without compressai.
        ValueError: for a model or quality that compressai does not know.
        FileNotFoundError: where the weights are not at hand.
    """

    reference = """@article{begaint2020compressai,
  title = {CompressAI: a PyTorch library and evaluation platform for end-to-end compression research},
  author = {B{\\'e}gaint, Jean and Racap{\\'e}, Fabien and Feltman, Simon and Pushparaja, Akshay},
  journal = {arXiv preprint arXiv:2011.03029},
  year = {2020}
}"""

    def __init__(self, model: str = "bmshj2018-factorized", quality: int = 1, weights: str | None = None) -> None:
        super().__init__()
        try:
            from compressai.zoo import image_models
        except ImportError as error:
            raise ImportError("CodecCompression needs compressai: pip install 'cclight[codec]'.") from error
        if model not in image_models:
            raise ValueError(f"compressai knows no image codec {model!r}: choose one of {', '.join(sorted(image_models))}.")
        try:
            codec = image_models[model](quality=quality, pretrained=weights is None)
            if weights is not None:
                codec.load_state_dict(torch.load(weights, map_location="cpu", weights_only=True))
        except OSError as error:
            raise FileNotFoundError(
                f"The weights of {model} at quality {quality} cannot be had ({error}): give a state dict's path as weights."
            ) from error
        self.codec = codec.eval().requires_grad_(False)

    def forward(self, x: Tensor) -> Tensor:
        self.check_images(tuple(x.shape))
        height, width = x.shape[2:]
        levels = (x.detach().float().clamp(-1, 1) + 1) / 2
        levels = functional.pad(levels, (0, -width % STRIDE, 0, -height % STRIDE), mode="replicate")
        with torch.no_grad():
            decoded = self.codec(levels)["x_hat"][..., :height, :width].clamp(0, 1) * 2 - 1
        return x + (decoded.to(x.dtype) - x).detach()

    def pinv(self, y: Tensor) -> Tensor:
        return y

    def check_images(self, shape: tuple[int, ...]) -> None:
        if shape[-3] != 3:
            raise ValueError(f"CodecCompression takes images of 3 channels, got {shape[-3]}: give it RGB images.")
