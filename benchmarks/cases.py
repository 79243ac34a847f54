"""The problems of benchmarks/photographs.py: a photograph, what was done to it, and what a restoration of it is worth.

A network evaluation and a vector-Jacobian product are counted where they happen, in the prior, so that a peer's bookkeeping is
not asked.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import interpolate

from cclight import (
    JPEG,
    LPIPS,
    PSNR,
    SSIM,
    BicubicDownsampling,
    Box,
    GaussianBlur,
    Inpainting,
    LineKernel,
    Operator,
    OTPath,
    Prior,
    Problem,
    RandomPixels,
    Retimed,
)
from cclight.data.noise import generator, standard_normal
from cclight.operators.circular import CircularBlur

LARGEST = 10.0  # images lie in [-1, 1]: what goes beyond this has diverged
TASKS: dict[str, Callable[[int], Operator]] = {
    "sr": lambda size: BicubicDownsampling(4),
    "blur": lambda size: GaussianBlur(3.0, 61 if size >= 64 else 15),
    "box": lambda size: Inpainting(Box(size // 4), fill=True),
    "random": lambda size: Inpainting(RandomPixels(0.7), fill=True),
    "motion": lambda size: CircularBlur(LineKernel(15.0, 30.0)),
    "jpeg": lambda size: JPEG(10),
}
TITLES = {
    "sr": "super-resolution ×4",
    "blur": "Gaussian blur",
    "box": "box",
    "random": "random 70 %",
    "motion": "motion blur",
    "jpeg": "JPEG 10",
}


class _Tally(torch.autograd.Function):
    """The identity, whose derivative counts how often it is asked for."""

    generate_vmap_rule = False

    @staticmethod
    def forward(x: Tensor, counted: Counted) -> Tensor:
        return x.view_as(x)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, Counted], output: Tensor) -> None:
        ctx.counted = inputs[1]

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        ctx.counted.products += 1
        return gradient, None


class Counted(Prior):
    """A prior that counts what is asked of it.

    Attributes:
        calls: network evaluations so far.
        products: vector-Jacobian products so far.
    """

    def __init__(self, prior: Prior) -> None:
        super().__init__(prior.path, prior.parameterization)
        self.prior = prior
        self.speak_for(prior)
        self.calls = self.products = 0

    def forward(self, x_t: Tensor, t: Tensor) -> Tensor:
        self.calls += 1
        return self.prior(_Tally.apply(x_t, self), t)


@dataclass(frozen=True)
class Case:
    """A photograph to restore.

    Attributes:
        clean: it, (1, 3, H, W).
        operator: H.
        y: its measurement.
        noise: ε, from which every sampler begins.
        noise_std: σ_y.
        prior: a diffusion model, which counts.
        flow: the same on the straight path.
    """

    clean: Tensor
    operator: Operator
    y: Tensor
    noise: Tensor
    noise_std: float
    prior: Counted
    flow: Prior

    @cached_property
    def guess(self) -> Tensor:
        """The image that our samplers begin near, and the peers too: H⁺y, damped under noise, a hole filled smoothly."""
        return Problem(self.prior, self.operator, self.y, self.noise, self.noise_std).guess()


def cases(clean: Tensor, task: str, noise_std: float, prior: Counted, first: int) -> list[Case]:
    """The photographs (B, 3, H, W), measured.

    Args:
        clean: the photographs.
        task: a key of TASKS.
        noise_std: σ_y.
        prior: the prior.
        first: the number of the first photograph, of which its noise is made.
    """
    operator = TASKS[task](clean.shape[-1])
    flow = Retimed(prior, OTPath())
    found = []
    for place, image in enumerate(clean.split(1), first):
        y = operator(image)
        y = y + noise_std * standard_normal(tuple(y.shape[1:]), [generator(0, place, "measurement")])
        noise = standard_normal(tuple(image.shape[1:]), [generator(0, place, "initial")])
        found.append(Case(image, operator, y, noise, noise_std, prior, flow))
    return found


@dataclass(frozen=True)
class Measured:
    """What the restorations of some photographs are worth, and what each cost.

    Attributes:
        lpips: of each; None where it is not finite or left the range of images.
        psnr: of each in dB.
        ssim: of each.
        calls: network evaluations for each.
        products: vector-Jacobian products for each.
        seconds: for each, the mean.
    """

    lpips: list[float | None]
    psnr: list[float | None]
    ssim: list[float | None]
    calls: float
    products: float
    seconds: float

    def mean(self, metric: str) -> float:
        """The mean of a metric, NaN where one photograph has none."""
        values = getattr(self, metric)
        return math.nan if None in values else sum(values) / len(values)

    @property
    def score(self) -> float | None:
        """The mean LPIPS, by which settings are chosen; None where one photograph has none."""
        return None if None in self.lpips else self.mean("lpips")


class Judge:
    """Runs and measures.

    Raises:
        Unavailable: where LPIPS' weights cannot be had.
    """

    def __init__(self) -> None:
        self.metrics = {"lpips": LPIPS(), "psnr": PSNR(), "ssim": SSIM()}
        for metric in self.metrics.values():
            metric.prepare(torch.device("cpu"))

    def __call__(self, run: Callable[[Case], Tensor], of: list[Case]) -> Measured:
        """Every case restored and measured.

        Raises:
            TypeError: where the sampler cannot take the operator.
        """
        values: dict[str, list[float | None]] = {key: [] for key in self.metrics}
        prior = of[0].prior
        prior.calls = prior.products = 0
        seconds = 0.0
        for case in of:
            _ = case.guess  # the same for all: not theirs to pay
            began = time.perf_counter()
            image = run(case)
            seconds += time.perf_counter() - began
            sane = bool(image.isfinite().all()) and float(image.abs().max()) <= LARGEST
            for key, metric in self.metrics.items():
                values[key].append(round(float(metric(image, case.clean)), 6) if sane else None)
        n = len(of)
        return Measured(**values, calls=prior.calls / n, products=prior.products / n, seconds=round(seconds / n, 4))


def baselines(task: str) -> dict[str, dict[str, Callable[[Case], Tensor]]]:
    """What needs no network, with its settings."""
    from skimage.restoration import denoise_tv_chambolle

    def variation(weight: float) -> Callable[[Case], Tensor]:
        def run(case: Case) -> Tensor:
            image = case.guess[0].movedim(0, -1).double().numpy()
            smooth = denoise_tv_chambolle(image, weight=weight, channel_axis=-1)
            return torch.from_numpy(smooth).movedim(-1, 0)[None].float()

        return run

    def bicubic(case: Case) -> Tensor:
        return interpolate(case.y, tuple(case.clean.shape[-2:]), mode="bicubic")

    enlarged = {"bicubic": {"": bicubic}} if task == "sr" else {}
    return {
        "pseudoinverse": {"": lambda case: case.operator.pinv(case.y)},
        "damped pseudoinverse": {"": lambda case: case.guess},
        **enlarged,
        "total variation": {f"weight={w:g}": variation(w) for w in (0.02, 0.05, 0.1, 0.2)},
    }
