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


def _jit(size: str, patch: int, place: str, gigabytes: float) -> Card:
    name, source = f"jit_{size}_{patch}", f"https://www.dropbox.com/scl/fo/3ken1avtsd81ip67b9qpi/{place}"
    return Card(name, "AzulaPrior", "", "see github.com/LTH14/JiT", source, f"{name}.pth", gigabytes, by_hand=True)


def _vdm(name: str, stem: str, gigabytes: float, sha256: str) -> Card:
    source = f"https://the-eye.eu/public/AI/models/v-diffusion/{stem}.pth"
    licence = "see github.com/crowsonkb/v-diffusion-pytorch"
    return Card(f"vdm_{name}", "AzulaPrior", "", licence, source, f"{stem}.pth", gigabytes, sha256)


def _adm_cond(side: int, gigabytes: float) -> Card:
    file = f"{side}x{side}_diffusion.pt"
    return Card(f"adm_imagenet{side}_cond", "AzulaPrior", "", _OPENAI_LICENCE, f"{_OPENAI}{file}", file, gigabytes)


def _drunet(colour: str, file: str) -> Card:
    source, licence = f"hf://deepinv/drunet/{file}", "see huggingface.co/deepinv/drunet"
    return Card(f"drunet_{colour}", "DeepinvPrior", "", licence, source, file, 0.1, architecture={"denoiser": "DRUNet"})


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
        _jit("0.1b", 16, "AE2EE_zxp_OiHJKJkf3rk7s/jit-b-16?rlkey=14gjrblmljewpl6ygxzlr3njm&dl=1", 0.5),
        _jit("0.1b", 32, "ALvwlNXI-BuMlaBtCCLguIQ/jit-b-32?rlkey=14gjrblmljewpl6ygxzlr3njm&dl=1", 0.5),
        _jit("0.5b", 16, "AFbI1Bevlz89myAjqiZtmH0/jit-l-16?rlkey=14gjrblmljewpl6ygxzlr3njm&dl=1", 1.8),
        _jit("0.5b", 32, "AF2TnHpJKLnLEo0tFz7S1_0/jit-l-32?rlkey=14gjrblmljewpl6ygxzlr3njm&dl=1", 1.8),
        _jit("1.0b", 16, "ALQzc8CWONX6fVvej_kfjY0/jit-h-16?rlkey=14gjrblmljewpl6ygxzlr3njm&dl=1", 3.8),
        _jit("1.0b", 32, "AH5eChpH2vfteS6hYqIRPAQ/jit-h-32?rlkey=14gjrblmljewpl6ygxzlr3njm&dl=1", 3.8),
        _vdm("danbooru128", "danbooru_128", 2.3, "1728940d3531504246dbdc75748205fd8a24238a17e90feb82a64d7c8078c449"),
        _vdm("imagenet128", "imagenet_128", 1.2, "cac117cd0ed80390b2ae7f3d48bf226fd8ee0799d3262c13439517da7c214a67"),
        _vdm("wikiart128", "wikiart_128", 1.0, "b3ca8d0cf8bd47dcbf92863d0ab6e90e5be3999ab176b294c093431abdce19c1"),
        _vdm("wikiart256", "wikiart_256", 1.2, "da45c38aa31cd0d2680d29a3aaf2f50537a4146d80bba2ca3e7a18d227d9b627"),
        _vdm("yfcc512", "yfcc_1", 1.9, "a1c0f6baaf89cb4c461f691c2505e451ff1f9524744ce15332b7987cc6e3f0c8"),
        _vdm("yfcc512_large", "yfcc_2", 3.9, "69ad4e534feaaebfd4ccefbf03853d5834231ae1b5402b9d2c3e2b331de27907"),
        _adm_cond(64, 1.2),
        _adm_cond(128, 1.7),
        _adm_cond(512, 2.2),
        _drunet("color", "drunet_deepinv_color_finetune_22k.pth"),
        _drunet("gray", "drunet_deepinv_gray_finetune_26k.pth"),
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
