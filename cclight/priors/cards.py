"""The published checkpoints that cclight knows, as data.

A checksum stands here only where the publisher gives one; a size is counted from the number of parameters.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Card:
    """What is known about a published checkpoint.

    Attributes:
        name: what `checkpoint:` takes.
        prior: the class that loads it.
        paper: the rows of Pandey et al.'s tables that it serves, or an empty string.
        licence: the licence as its publisher states it.
        source: where the file is: https://..., hf://owner/repository/file, or a page to fetch it from by hand.
        file: its name in the cache.
        gigabytes: about how large the file is.
        sha256: checksum, only where the publisher gives one.
        by_hand: no address serves the file to a program.
        architecture: arguments of the network that differ from the defaults.
    """

    name: str
    prior: str
    paper: str
    licence: str
    source: str
    file: str
    gigabytes: float
    sha256: str | None = None
    by_hand: bool = False
    architecture: Mapping[str, Any] = field(default_factory=dict)


_OPENAI = "https://openaipublic.blob.core.windows.net/diffusion/jul-2021/"
_OPENAI_LICENCE = "MIT; model card: research only"
_DRIVE = "https://drive.google.com/file/d/"


def _flow(name: str, paper: str, file_id: str, **architecture: Any) -> Card:
    return Card(
        name=name,
        prior="RectifiedFlow",
        paper=paper,
        licence="none stated",
        source=f"{_DRIVE}{file_id}/view",
        file=f"rectified_flow_{name}.pth",
        gigabytes=1.0,
        by_hand=True,
        architecture=architecture,
    )


_NVLABS = "https://nvlabs-fi-cdn.nvidia.com/edm/pretrained/"
_INVERSEBENCH = "https://github.com/devzhk/InverseBench/releases/download/diffusion-prior/"


def _edm(name: str, file: str, gigabytes: float) -> Card:
    return Card(name, "EDM", "", "CC BY-NC-SA 4.0", f"{_NVLABS}{file}", file, gigabytes)


def _inversebench(name: str, file: str, gigabytes: float, **architecture: Any) -> Card:
    return Card(name, "EDM", "", "MIT", f"{_INVERSEBENCH}{file}", file, gigabytes, architecture=architecture)


def _pnpflow(name: str, file_id: str, image_size: int) -> Card:
    source, file = f"{_DRIVE}{file_id}/view", f"pnpflow_{name}.pt"
    return Card(name, "PnPFlowUNet", "", "BSD-3-Clause", source, file, 0.1, None, True, {"image_size": image_size})


CARDS: dict[str, Card] = {
    card.name: card
    for card in (
        Card(
            "imagenet256",
            "ADM",
            "ImageNet",
            _OPENAI_LICENCE,
            f"{_OPENAI}256x256_diffusion_uncond.pt",
            "256x256_diffusion_uncond.pt",
            2.2,
        ),
        Card(
            name="ffhq256",
            prior="ADM",
            paper="FFHQ",
            licence="BSD-3-Clause (this copy of ffhq_10m.pt)",
            source="hf://deepinv/diffunet/diffusion_ffhq_10m.pt",
            file="diffusion_ffhq_10m.pt",
            gigabytes=0.4,
            sha256="81d535743156ec6be34d8668e6920da94f0614074d7793a16c8fa9e306237faa",
            architecture={"num_channels": 128, "num_res_blocks": 1, "attention_resolutions": (16,)},
        ),
        _flow("celeba_hq", "CelebA-HQ", "1ryhuJGz75S35GEdWDLiq4XFrsbwPdHnF"),
        _flow("afhq_cat", "AFHQ-cat", "1isc4Yl2Tj1ckjfSPCtCLQtZWpBqY5VUy"),
        _flow("lsun_bedroom", "LSUN bedroom", "1HUJ95q605YK4sH3yIysk8j3pNXALJi8t", centered=False),
        _flow("lsun_church", "", "1lFG5y492wCTToox9MSTjYWw-WqCJqM5y", centered=False),
        Card(
            name="imagenet256_cond",
            prior="ADM",
            paper="",
            licence=_OPENAI_LICENCE,
            source=f"{_OPENAI}256x256_diffusion.pt",
            file="256x256_diffusion.pt",
            gigabytes=2.2,
            architecture={"class_cond": True},
        ),
        *(
            Card(f"adm_lsun_{room}", "ADM", "", _OPENAI_LICENCE, f"{_OPENAI}lsun_{room}.pt", f"lsun_{room}.pt", 2.2)
            for room in ("bedroom", "cat", "horse")
        ),
        *(
            _edm(f"edm_{short}_{kind}", f"edm-{long}-{kind}.pkl", 0.2)
            for short, long in (
                ("cifar10", "cifar10-32x32-uncond"),
                ("cifar10_cond", "cifar10-32x32-cond"),
                ("ffhq64", "ffhq-64x64-uncond"),
                ("afhqv2_64", "afhqv2-64x64-uncond"),
            )
            for kind in ("vp", "ve")
        ),
        _pnpflow("celeba128", "1ZZ6S-PGRx-tOPkr4Gt3A6RN-PChabnD6", 128),
        _pnpflow("afhq_cat256", "1FpD3cYpgtM8-KJ3Qk48fcjtr1Ne_IMOF", 256),
        _edm("edm_imagenet64_cond", "edm-imagenet-64x64-cond-adm.pkl", 1.2),
        # Their networks' images: v/10 of a vorticity v; v - 3 of a speed v in km/s, in [-1.5, 1.5]; 2v - 1 of a permittivity v;
        # 2v/max(v) - 1 of a brightness v; the real and imaginary part of v / (the 0.99 quantile of |v|).
        _inversebench("navier_stokes", "ns-5m.pt", 0.1),
        _inversebench("full_waveform", "fwi-5m.pt", 0.1, data_range=(-1.5, 1.5)),
        _inversebench("linear_scattering", "in-scatter-5m.pt", 0.1),
        _inversebench("black_hole", "blackhole.pt", 0.1, preconditioning="vp"),
        _inversebench("mri_knee", "mri-knee.pt", 0.1),
        _inversebench("mri_brain", "mri-brain.pt", 0.1),
        _inversebench(
            "ffhq256_inversebench",
            "ffhq256.pt",
            0.4,
            preconditioning="vp",
            num_channels=128,
            num_res_blocks=1,
            attention_resolutions=(16,),
        ),
    )
}
