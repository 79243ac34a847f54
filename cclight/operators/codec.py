"""Compression by a learned image codec."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional

from cclight.errors import one_line
from cclight.operators.base import Operator
from cclight.priors.checkpoints import CheckpointError, check_finite, load_state, published

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
        FileNotFoundError: where there is no file of that name.
        CheckpointError: where the weights cannot be downloaded or do not fit; nothing that their file holds is executed.
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
            from compressai.zoo.image import cfgs, model_urls
            from compressai.zoo.pretrained import load_pretrained
        except ImportError as error:
            raise ImportError("CodecCompression needs compressai: pip install 'cclight[codec]'.") from error
        if model not in image_models:
            raise ValueError(f"compressai knows no image codec {model!r}: choose one of {', '.join(sorted(image_models))}.")
        known = sorted(cfgs[model])
        if quality not in known:
            raise ValueError(f"{model} has no quality {quality}: choose one of {', '.join(map(str, known))}.")
        try:
            # compressai would unpickle whatever lies in the cache.
            file = Path(weights).expanduser() if weights is not None else published(model_urls[model]["mse"][quality])
            state = load_pretrained(load_state(file))
        except (OSError, KeyError, CheckpointError) as error:
            kind = CheckpointError if isinstance(error, CheckpointError) else FileNotFoundError
            raise kind(
                f"The weights of {model} at quality {quality} cannot be had ({error}): give a state dict's path as weights."
            ) from error
        with torch.random.fork_rng(devices=[]):  # building draws numbers
            codec = image_models[model](quality=quality, pretrained=False)
        try:
            codec.load_state_dict(state)  # compressai's own, which knows that some tables have any length
        except (RuntimeError, KeyError, TypeError, AttributeError) as error:
            raise CheckpointError(
                f"{file} does not fit {model} at quality {quality} ({one_line(error)}): give a state dict of that codec."
            ) from error
        check_finite(codec.state_dict(), file)
        self.codec = codec.eval().requires_grad_(False)

    def forward(self, x: Tensor) -> Tensor:
        self.check_images(tuple(x.shape[1:]))
        height, width = x.shape[2:]
        levels = (x.detach().float().clamp(-1, 1) + 1) / 2
        levels = functional.pad(levels, (0, -width % STRIDE, 0, -height % STRIDE), mode="replicate")
        with torch.no_grad():
            decoded = self.codec(levels)["x_hat"][..., :height, :width].clamp(0, 1) * 2 - 1
        return x + (decoded.to(x.dtype) - x).detach()

    def pinv(self, y: Tensor) -> Tensor:
        return y

    def check_images(self, shape: tuple[int, ...]) -> None:
        if len(shape) != 3 or shape[0] != 3:
            given = shape[0] if len(shape) == 3 else f"the shape {tuple(shape)}"
            raise ValueError(f"CodecCompression takes images of 3 channels, got {given}: give it RGB images.")
