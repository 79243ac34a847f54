"""Our samplers for benchmarks/posterior.py, each with eight settings within a budget of network evaluations."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor

from cclight import (
    DDRM,
    DPS,
    OTODE,
    Conjugate,
    DiffPIR,
    PiGDM,
    PnPFlow,
    REDDiff,
    Sampler,
)
from cclight.samplers.heun import ConjugateHeun
from cclight.samplers.moments import ConjugateMoments
from cclight.samplers.tilt import ConjugateTilt

EVALUATION = 2.1  # a forward pass is 1, a vector-Jacobian product 1.1
ON_FLOWS = ("Conjugate flow", "OTODE", "PnPFlow")  # C-ΠGFM and the flows' own; the others restore with the diffusion model
Run = Callable[[Any], Tensor]  # from a cell of posterior.py to restored images


def ours(nfe: int) -> dict[str, dict[str, Run]]:
    """Our samplers, each with its settings, within the budget."""
    half = round(nfe * EVALUATION)  # steps without a product
    renewals = {0.0: (0.1, 0.3), 4.0: (0.1, 0.3, 0.5), 16.0: (0.1, 0.3, 0.5)}
    weights = [(w, u) for w in (2.0, 6.0, 15.0, 40.0) for u in (0.1, 0.4)]
    dps: list[Sampler] = [DPS(nfe, z, eta=e) for z in (3.0, 10.0, 30.0, 100.0) for e in (0.0, 1.0)]
    grids: dict[str, list[Sampler]] = {
        "Conjugate": [Conjugate(nfe, w, t_start=u) for w, u in weights],
        "Conjugate order 2": [Conjugate(nfe, w, t_start=u, order=2) for w, u in weights],
        "Conjugate no VJP": [Conjugate(half, w, t_start=u, jacobian="none") for w, u in weights],
        "Conjugate 1/r² weight": [
            Conjugate(nfe, w, t_start=u, schedule="inverse_variance") for w in (0.5, 1.0, 2.0, 4.0) for u in (0.1, 0.4)
        ],
        "Conjugate churn": [Conjugate(nfe, w, t_start=0.2, churn=c) for w in (2.0, 6.0, 15.0, 40.0) for c in (0.5, 2.0)],
        "Conjugate flow": [Conjugate(nfe, w, t_start=u) for w in (5.0, 15.0, 40.0, 100.0) for u in (0.1, 0.4)],
        "ConjugateHeun": [ConjugateHeun((nfe + 1) // 2, w, t_start=u) for w, u in weights],
        "ConjugateMoments": [
            ConjugateMoments(nfe, t_start=u, timesteps=grid) for u in (0.05, 0.1, 0.2, 0.4) for grid in ("logsnr", "karras")
        ],
        "ConjugateTilt": [ConjugateTilt(nfe, t_start=u, renewal=c) for c, starts in renewals.items() for u in starts],
        "PiGDM": [PiGDM(nfe, w, t_start=u) for w in (0.5, 1.0, 2.0, 4.0) for u in (0.1, 0.4)],
        "OTODE": [OTODE(nfe, w, t_start=u) for w in (0.5, 1.0, 2.0, 4.0) for u in (0.1, 0.4)],
        "DDRM": [
            DDRM(half, e, b, timesteps=grid) for e in (0.5, 0.85) for b in (0.5, 1.0) for grid in ("uniform", "quadratic")
        ],
        "DiffPIR": [DiffPIR(half, z, q**0.5) for z in (1.0, 7.0, 30.0, 100.0) for q in (0.1, 0.5)],
        "REDDiff": [REDDiff(half, z, r) for z in (0.05, 0.25) for r in (0.03, 0.1, 0.3, 1.0)],
        "PnPFlow": [PnPFlow(half // k, k, e, r) for k in (1, 2) for e in (0.5, 1.0) for r in (0.5, 1.0)],
    }
    return {
        name: {_describe(sampler): _runner(sampler, name in ON_FLOWS) for sampler in grid}
        for name, grid in (grids | {"DPS": dps}).items()
    }


def _runner(sampler: Sampler, flow: bool) -> Run:
    def run(cell: Any) -> Tensor:
        prior = cell.flow if flow else cell.prior
        return sampler.sample(prior, cell.operator, cell.y, cell.noise, noise_std=cell.noise_std).image

    return run


def _describe(sampler: Sampler) -> str:
    shown = (
        "samples",
        "steps",
        "guidance",
        "zeta",
        "eta",
        "eta_b",
        "t_start",
        "order",
        "timesteps",
        "churn",
        "renewal",
        "lam",
        "prior_weight",
        "lr",
        "exponent",
    )
    settings = vars(sampler.pigdm if isinstance(sampler, OTODE) else sampler)
    return " ".join(f"{key}={value}" for key, value in settings.items() if key in shown)
