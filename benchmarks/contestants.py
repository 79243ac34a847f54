"""Who takes part: our samplers for benchmarks/posterior.py with eight settings each, and for benchmarks/photographs.py four.

The budget is that of peers.py: NFE n is n network evaluations with a vector-Jacobian product each, and who takes no products
takes more steps.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from peers import describe
from peers import grid as _grid
from torch import Tensor

from cclight import (
    DDNM,
    DDRM,
    DPS,
    OTODE,
    Conjugate,
    DiffPIR,
    PiGDM,
    PnPFlow,
    REDDiff,
    Sampler,
    recipe,
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


def on_photographs(nfe: int) -> dict[str, dict[str, Run]]:
    """Our samplers with four settings each for photographs, within the budget; a setting has one name at all budgets."""
    half = round(nfe * EVALUATION)
    early, weights = (0.6, 0.7), (1.5, 2.8)
    conjugate = partial(Conjugate, schedule="inverse_variance")
    heun = partial(ConjugateHeun, (nfe + 1) // 2, schedule="inverse_variance")
    moments = [{"guidance": w, "t_start": u} for w, u in ((1.0, 0.7), (2.5, 0.6), (2.5, 0.7), (4.0, 0.7))]

    def dps(total: float, t_start: float) -> Sampler:
        return DPS(nfe, total / nfe, eta=0.0, t_start=t_start)

    grids: dict[str, tuple[Callable[..., Sampler], list[dict[str, Any]]]] = {
        "ConjugateMoments": (partial(ConjugateMoments, nfe, timesteps="uniform"), moments),
        "Conjugate": (partial(conjugate, nfe), _grid(guidance=weights, t_start=(0.7, 0.8))),
        "Conjugate no VJP": (partial(conjugate, half, jacobian="none"), _grid(guidance=weights, t_start=early)),
        "ConjugateHeun": (heun, _grid(guidance=weights, t_start=early)),
        "PiGDM": (partial(PiGDM, nfe), _grid(guidance=(1.0, 2.0), t_start=early)),
        "OTODE": (partial(OTODE, nfe), _grid(guidance=(1.0, 2.0), t_start=(0.3, 0.5))),
        "DDNM": (partial(DDNM, half), _grid(eta=(0.3, 0.85), t_start=(0.5, 0.7))),
        "DDRM": (partial(DDRM, half), _grid(eta=(0.3, 0.85), t_start=(0.5, 0.7))),
        "DiffPIR": (partial(DiffPIR, half, t_start=0.6), _grid(prior_weight=(0.25, 1.0), eta=(0.5, 1.0))),
        "REDDiff": (partial(REDDiff, half), _grid(prior_weight=(0.25, 1.0), lr=(0.05, 0.2))),
        "PnPFlow": (partial(PnPFlow, half, 1), _grid(exponent=(0.2, 0.8), t_start=(0.0, 0.4))),
        "DPS": (dps, _grid(total=(30.0, 100.0), t_start=early)),
    }
    return {
        name: {describe(chosen): _runner(make(**chosen), name in ON_FLOWS) for chosen in settings}
        for name, (make, settings) in grids.items()
    }


def packaged(task: str) -> dict[str, Run]:
    """What the packaged configuration of such a task restores with."""
    sampler = recipe({"jpeg": "jpeg", "box": "inpaint", "random": "inpaint"}.get(task, "sr")).sampler
    return {_describe(sampler): _runner(sampler, False)}


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
