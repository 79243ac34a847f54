"""What does half precision cost a restoration?

    python benchmarks/precision.py FOLDER [--limit 12] [--size 256]

The network alone runs in it. First the relative errors of the denoised image x̂_0 and of the product Jᵀv beside float32, by the
ratio ρ = σ/α of noise to signal, with v of usual size and 10⁵ times smaller, as residuals of last steps are: the largest error
of any photograph. Then sr.yaml and deblur.yaml in either precision: LPIPS and PSNR, and how far the pictures are
from those in float32. On a GPU where there is one.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence

import torch
from torch import Tensor

import cclight
from cclight.metrics.image import LPIPS, PSNR
from cclight.problem import Problem

RATIOS = (0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0)
HALVES = {"bf16": torch.bfloat16, "fp16": torch.float16}
PRECISIONS = {"float32": None} | HALVES


def photographs(folder: str, limit: int, size: int, device: torch.device) -> Tensor:
    """The first photographs, their centres, (B, 3, size, size)."""
    data = cclight.RestorationDataModule(cclight.ImageFolder(folder), cclight.Denoising(), image_size=size, limit=limit)
    return torch.cat([data.on_after_batch_transfer(batch, 0).clean for batch in data.predict_dataloader()]).to(device)


def products(prior: cclight.Prior, x: Tensor, t: float, v: Tensor, dtype: torch.dtype | None) -> tuple[Tensor, Tensor]:
    """N and Jᵀv in a precision."""
    with torch.no_grad(), torch.autocast(x.device.type, dtype, enabled=dtype is not None):
        problem = Problem(prior, cclight.Denoising(), x, x)
        with torch.autocast(x.device.type, enabled=False):
            return problem.network_and_vjp(x, t, lambda _: v)


def errors(prior: cclight.Prior, clean: Tensor, ratio: float, dtype: torch.dtype) -> list[float]:
    """The largest relative errors of x̂_0, Jᵀv and Jᵀ(10⁻⁵ v)."""
    generator = torch.Generator().manual_seed(0)
    found = []
    for one in clean.split(1):
        noise, v = (torch.randn(one.shape, generator=generator).to(one) for _ in range(2))
        t = float(prior.path.time_at_ratio(torch.tensor([ratio], dtype=torch.float64)))
        level = Problem(prior, cclight.Denoising(), one, one).level(t)
        x = level.alpha * one + level.sigma * noise
        exact, product = products(prior, x, t, v, None)
        half, rounded = products(prior, x, t, v, dtype)
        _, small = products(prior, x, t, 1e-5 * v, dtype)
        x_0 = level.s * x + level.o * exact
        found.append([
            float((half - exact).norm() * abs(level.o) / x_0.norm()),
            float((rounded - product).norm() / product.norm()),
            float((small * 1e5 - product).norm() / product.norm()),
        ])  # fmt: skip
    return torch.tensor(found).amax(0).tolist()


def restored(task: str, clean: Tensor, dtype: torch.dtype | None) -> Tensor:
    """The photographs after a degradation and a restoration, in [-1, 1]."""
    operator, prior, sampler, _ = cclight.recipe(task)
    prior = prior.to(clean.device)
    images = []
    for place, one in enumerate(clean.split(1)):
        y, noise = operator(one), torch.randn(one.shape, generator=torch.Generator().manual_seed(place)).to(one)
        with torch.autocast(one.device.type, dtype, enabled=dtype is not None):
            images.append(sampler.sample(prior, operator, y, noise).image)
    return torch.cat(images).clamp(-1, 1)


def main(arguments: Sequence[str] | None = None) -> None:
    """Print both tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", help="photographs")
    parser.add_argument("--limit", type=int, default=12)
    parser.add_argument("--size", type=int, default=256)
    chosen = parser.parse_args(arguments)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    clean = photographs(chosen.folder, chosen.limit, chosen.size, device)
    prior = cclight.SmallPrior().to(device).eval().requires_grad_(False)
    print(f"{torch.cuda.get_device_name() if device.type == 'cuda' else 'CPU'}\n")
    print(f"| ρ | {' | '.join(f'{name}: x̂_0 | Jᵀv | Jᵀv, v small' for name in HALVES)} |\n|{'---|' * (1 + 3 * len(HALVES))}")
    for ratio in RATIOS:
        found = [error for dtype in HALVES.values() for error in errors(prior, clean, ratio, dtype)]
        print(f"| {ratio:g} | {' | '.join(f'{error:.1e}' for error in found)} |", flush=True)
    lpips, psnr = LPIPS(), PSNR()
    lpips.prepare(device)
    print("\n| task | precision | LPIPS | PSNR (dB) | PSNR to float32 (dB) |\n|---|---|---|---|---|")
    for task in ("sr", "deblur"):
        whole = restored(task, clean, None)
        for name, dtype in PRECISIONS.items():
            images = whole if dtype is None else restored(task, clean, dtype)
            values = [float(metric(images, clean).mean()) for metric in (lpips, psnr)]
            to_whole = "" if dtype is None else f"{float(psnr(images, whole).mean()):.1f}"
            print(f"| {task} | {name} | {values[0]:.4f} | {values[1]:.2f} | {to_whole} |", flush=True)


if __name__ == "__main__":
    main()
