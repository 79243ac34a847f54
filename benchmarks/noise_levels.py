"""Every packaged sampler on every spectral operator under growing noise, beside DDRM and the measurement itself.

python benchmarks/noise_levels.py [FOLDER]

The embedded prior, the photographs of a folder (six of scikit-image's without one) at --size pixels, PSNR in dB. A cell is
marked where it lies more than 0.5 dB under DDRM's with 20 steps (-), or under the measurement itself, enlarged where it is
smaller (!). `Conjugate` and `Heun` have settings of the operator's kind, `Moments` the packaged ones and the others their own;
nothing is chosen here, and nothing depends on σ_y.
"""

from __future__ import annotations

import argparse
import json
import warnings
from pathlib import Path

import torch
from torch import Tensor
from torch.nn.functional import interpolate

from cclight import (
    DDNM,
    DDRM,
    DPS,
    OTODE,
    AveragePooling,
    BicubicDownsampling,
    Box,
    Colorization,
    Conjugate,
    ConjugateHeun,
    Denoising,
    DiffPIR,
    GaussianBlur,
    ImageFolder,
    Inpainting,
    OTPath,
    PiGDM,
    PnPFlow,
    RandomPixels,
    REDDiff,
    SamplePhotographs,
    Sampler,
    SmallPrior,
    Source,
    SpectralOperator,
    UniformBlur,
    Velocity,
    recipe,
)
from cclight.data.preprocessing import Preprocessing

LEVELS = (0.0, 0.01, 0.05, 0.2)
ALLOWED = 0.5


# Conjugate's settings for a kind of measurement, by what they were chosen on.
ENLARGED = Conjugate(5, 2.8, t_start=0.8, schedule="inverse_variance")
DEBLURRED = Conjugate(5, 2.0, t_start=0.8, schedule="inverse_variance")
COLOURED = Conjugate(5, 2.0, t_start=0.6, schedule="inverse_variance")


def operators(size: int) -> dict[str, tuple[SpectralOperator, Conjugate]]:
    """One of each kind, and the settings of Conjugate that suit it."""
    return {
        "bicubic ×4": (BicubicDownsampling(4), ENLARGED),
        "pooling ×4": (AveragePooling(4), ENLARGED),
        "Gaussian blur 3": (GaussianBlur(), DEBLURRED),
        "uniform blur 9": (UniformBlur(), DEBLURRED),
        "box": (Inpainting(Box(size // 4), fill=True), COLOURED),
        "random 70 %": (Inpainting(RandomPixels(0.7)), COLOURED),
        "grey": (Colorization(), COLOURED),
        "noise alone": (Denoising(), DEBLURRED),
    }


def samplers(conjugate: Conjugate = DEBLURRED) -> dict[str, Sampler]:
    """Conjugate and the others; those that only a flow suits run on one."""
    return {
        "DDRM": DDRM(20),
        "DDNM": DDNM(20),
        "Conjugate": conjugate,
        "Heun": ConjugateHeun(3, conjugate.guidance, conjugate.t_start, schedule=conjugate.schedule),
        "Moments": recipe("sr").sampler,
        "PiGDM": PiGDM(20),
        "OTODE": OTODE(20),
        "DiffPIR": DiffPIR(20),
        "REDDiff": REDDiff(100),
        "PnPFlow": PnPFlow(20, samples=1),
        "DPS": DPS(100),
    }


def psnr(image: Tensor, clean: Tensor) -> float:
    """The mean over images in dB."""
    return float((10 * torch.log10(4 / (image.clamp(-1, 1) - clean).square().mean(dim=(1, 2, 3)))).mean())


def look(y: Tensor, clean: Tensor) -> Tensor:
    """The measurement as a picture of the image's size."""
    picture = y.expand(-1, clean.shape[1], -1, -1)
    return picture if picture.shape == clean.shape else interpolate(picture, tuple(clean.shape[-2:]), mode="bicubic")


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("folder", nargs="?", help="photographs; scikit-image's without it")
    parser.add_argument("--size", type=int, default=128, help="side of the images in pixels (128)")
    parser.add_argument("--limit", type=int, default=6, help="how many photographs (6)")
    parser.add_argument("--only", nargs="+", choices=tuple(samplers()), help="samplers; all without it")
    parser.add_argument("--output", type=Path, help="write the numbers there as JSON")
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    source: Source = ImageFolder(options.folder) if options.folder else SamplePhotographs()
    prepare = Preprocessing((options.size, options.size))
    clean = torch.stack([prepare(photograph) for photograph in source.shard(limit=options.limit)])
    chosen = [name for name in samplers() if not options.only or name in ("DDRM", *options.only)]
    priors = SmallPrior(), SmallPrior(path=OTPath(), parameterization=Velocity())
    print(f"| operator | σ_y | measurement | {' | '.join(chosen)} |\n|---|---|---|{'---|' * len(chosen)}", flush=True)
    rows = []
    for name, (operator, conjugate) in operators(options.size).items():
        kinds = samplers(conjugate)
        for level in LEVELS:
            y = operator(clean)
            y = y + level * torch.randn(y.shape, generator=torch.Generator().manual_seed(1))
            given = psnr(look(y, clean), clean)
            found = {}
            for title in chosen:
                prior = priors[title in ("OTODE", "PnPFlow")]
                found[title] = psnr(kinds[title].sample(prior, operator, y, noise_std=level).image, clean)
            least = found["DDRM"] - ALLOWED
            cells = [f"{v:.1f}{'' if v >= least else '-'}{'' if v >= given else '!'}" for v in found.values()]
            print(f"| {name} | {level:g} | {given:.1f} | {' | '.join(cells)} |", flush=True)
            rows.append({"operator": name, "noise_std": level, "measurement": given, **found})
    if options.output:
        options.output.write_text(json.dumps(rows, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
