"""The golden problems: the paper's own code on an isotropic Gaussian mixture (see tests/golden/README.md)."""

from __future__ import annotations

import json
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from cclight import Epsilon, GaussianBlur, GaussianMixture, Inpainting, OTPath, Velocity, VPPath
from cclight.operators.base import SpectralOperator
from cclight.operators.masks import FixedMask
from cclight.operators.separable import BicubicDownsampling
from tests.conftest import held

SHAPE = (3, 16, 16)


class Case(NamedTuple):
    name: str
    settings: dict
    data: dict[str, np.ndarray]
    prior: GaussianMixture
    operator: SpectralOperator
    y: Tensor
    noises: list[Tensor]  # every draw of the run, in order; the first is the initial noise

    def expected(self, key: str) -> Tensor:
        return torch.from_numpy(self.data[key]).double()


def load(path: Path) -> dict[str, np.ndarray]:
    with np.load(held(path)) as data:
        return {key: data[key] for key in data.files}


def noise_bank() -> Tensor:
    """Every draw of the golden runs: number k, with m numbers per image of B, is bank[k, :B, :m]."""
    return torch.from_numpy(np.random.RandomState(20240527).standard_normal((64, 2, 768)).astype(np.float32))


def mixture(golden: Path, flow: bool) -> GaussianMixture:
    data = load(golden / "samplers" / "gmm.npz")
    return GaussianMixture(
        torch.from_numpy(data["mu"]),
        torch.from_numpy(data["s"]) ** 2,
        torch.from_numpy(data["pi"]),
        path=OTPath() if flow else VPPath(),
        parameterization=Velocity() if flow else Epsilon(),
        image_shape=SHAPE,
    )


def mask(golden: Path, name: str) -> Tensor:
    """The golden mask, (3, 16, 16), True where a value is kept."""
    data = load(golden / "operators" / name)
    if "mask" in data:
        return torch.from_numpy(data["mask"]).bool()
    return torch.from_numpy(data["Hx"]).view(-1, *SHAPE)[0] != 0


def cases(golden: Path, pattern: str) -> list[Case]:
    bank = noise_bank()
    problems = load(golden / "samplers" / "problem.npz")
    found = []
    for path in sorted((golden / "samplers").glob(pattern)):
        data = load(path)
        meta = json.loads(str(data["meta"]))
        flow = meta.get("side") == "flow"
        y = torch.from_numpy(problems[meta["y"].split(":")[1]]).double()
        batch = y.shape[0]
        degradation = meta["deg"]
        operator: SpectralOperator
        if degradation in ("bicubic4", "sr4"):
            operator, y = BicubicDownsampling(4), y.view(batch, 3, 4, 4)
        elif degradation in ("deblur_gauss_fix", "deblur_fix"):
            operator, y = GaussianBlur(3.0, 61), y.view(batch, *SHAPE)
        else:
            kept = mask(golden, "op_flow__inp__16.npz" if flow else "op__in2_20ff1__16.npz")
            operator = Inpainting(FixedMask(kept))
            if degradation == "inp_20ff1":  # the kept values in a list
                listed, y = y, y.new_zeros(batch, *SHAPE)
                y[:, kept] = listed
            y = y.view(batch, *SHAPE)
        noises = [
            bank[k, :batch].reshape(batch, -1)[:, : int(np.prod(shape[1:]))].reshape(batch, *SHAPE).double()
            for k, shape in meta["noise_calls"]
        ]
        found.append(Case(path.stem, meta["settings"], data, mixture(golden, flow), operator, y, noises))
    assert found, f"no golden case matches {pattern}"
    return found


def relative(ours: Tensor, golden: Tensor) -> float:
    return float((ours.double() - golden).norm() / golden.norm())
