"""The samplers of azula and deepinv under benchmarks/posterior.py: their own code on our priors and operators.

A budget of NFE n is 2.1 n units, a network evaluation 1 and a vector-Jacobian product 1.1; eight settings each. Both libraries
draw from torch's global generator, seeded in every run. deepinv works on images in [0, 1] with denoisers of (image, σ): the
prior is scaled to that, y becomes (y + H 1) / 2 and the noise σ_y / 2. Its DPS and DiffPIR clip the estimate to [-1, 1], as for
photographs.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

VJP = 1.1
EVALUATION = 1 + VJP
Run = Callable[[Any], Tensor]
STARTS = (1.0, 0.6)
SMALLEST = 1e-3  # the σ_y given to those that divide by it


def azula(nfe: int) -> dict[str, dict[str, Run]]:
    """MMPS, DiffPIR, PGDM and DPS of azula, each with its settings, within the budget."""
    from azula.denoise import Denoiser, DiracPosterior
    from azula.guidance.diffpir import DiffPIRDenoiser
    from azula.guidance.dps import DPSSampler
    from azula.guidance.mmps import MMPSDenoiser
    from azula.guidance.pgdm import PGDMSampler
    from azula.noise import Schedule
    from azula.sample import DDIMSampler, xEABSampler

    class Path(Schedule):
        def __init__(self, path: Any) -> None:
            super().__init__()
            self.path = path

        def __call__(self, t: Tensor) -> tuple[Tensor, Tensor]:
            return self.path.alpha(t), self.path.sigma(t)

    class Wrapped(Denoiser):
        def __init__(self, prior: Any) -> None:
            super().__init__()
            self.prior, self.schedule = prior, Path(prior.path)

        def forward(self, x_t: Tensor, t: Tensor, **_: Any) -> DiracPosterior:
            return DiracPosterior(mean=self.prior.denoise(x_t, t.expand(len(x_t))))

    def started(cell: Any, start: float) -> Tensor:
        t = torch.tensor(start, dtype=torch.float64)
        alpha, sigma = float(cell.prior.path.alpha(t)), float(cell.prior.path.sigma(t))
        return alpha * cell.operator.pinv(cell.y) + sigma * cell.noise

    def grid(steps: float, start: float, cell: Any) -> dict[str, Any]:
        return {"start": start, "stop": 0.001, "steps": max(1, round(steps)), "silent": True, "dtype": cell.noise.dtype}

    def mmps(kind: Any, iterations: int, start: float) -> Run:
        steps = nfe * EVALUATION / (1 + VJP * (1 + iterations))

        def run(cell: Any) -> Tensor:
            variance = max(cell.noise_std, SMALLEST) ** 2
            denoiser = MMPSDenoiser(Wrapped(cell.prior), cell.y, cell.operator, lambda v: variance * v, iterations=iterations)
            return kind(denoiser, **grid(steps, start, cell))(started(cell, start))

        return run

    def diffpir(strength: float, start: float) -> Run:
        def run(cell: Any) -> Tensor:
            variance = max(cell.noise_std, SMALLEST) ** 2
            denoiser = DiffPIRDenoiser(Wrapped(cell.prior), cell.y, cell.operator, variance, strength, iterations=3)
            return DDIMSampler(denoiser, **grid(nfe * EVALUATION, start, cell))(started(cell, start))

        return run

    def pgdm(eta: float, start: float) -> Run:
        def run(cell: Any) -> Tensor:
            torch.manual_seed(0)
            steps = grid(nfe, start, cell)
            return PGDMSampler(Wrapped(cell.prior), cell.y, cell.operator, cell.operator.pinv, eta=eta, **steps)(
                started(cell, start)
            )

        return run

    def dps(zeta: float, start: float) -> Run:
        def run(cell: Any) -> Tensor:
            torch.manual_seed(0)
            sampler = DPSSampler(Wrapped(cell.prior), cell.y, cell.operator, zeta, **grid(nfe, start, cell))
            return sampler(started(cell, start))

        return run

    return {
        "azula MMPS": {
            f"{kind.__name__} iterations={k} start={u}": mmps(kind, k, u)
            for kind in (DDIMSampler, xEABSampler)
            for k in (1, 2)
            for u in STARTS
        },
        "azula DiffPIR": {f"lmbda={z} start={u}": diffpir(z, u) for z in (0.03, 0.3, 3.0, 30.0) for u in STARTS},
        "azula PGDM": {f"eta={z} start={u}": pgdm(z, u) for z in (0.0, 0.3, 0.6, 1.0) for u in STARTS},
        "azula DPS": {f"zeta={z} start={u}": dps(z, u) for z in (10.0, 30.0, 100.0, 300.0) for u in STARTS},
    }


class UnitDenoiser(nn.Module):
    """The prior as deepinv asks for it: images in [0, 1] with noise of a standard deviation σ.

    Attributes:
        calls: how often it was asked.
    """

    def __init__(self, prior: Any) -> None:
        super().__init__()
        self.prior = prior
        self.calls = 0

    def forward(self, x: Tensor, sigma: Tensor | float, *_: Any, **__: Any) -> Tensor:
        """The denoised images, (B, C, H, W), in x's dtype."""
        self.calls += 1
        sigma = torch.as_tensor(sigma, dtype=torch.float64).flatten()
        t = self.prior.path.time_at_ratio(2 * sigma).expand(len(x)).to(x.device)
        alpha = self.prior.path.alpha(t).view(-1, 1, 1, 1).to(x.dtype)
        return (self.prior.denoise(alpha * (2 * x - 1), t.to(x.dtype)) + 1) / 2


def physics(cell: Any) -> tuple[Any, Tensor]:
    """The cell's operator as a `deepinv.physics.DecomposablePhysics` on images in [0, 1], and its measurements."""
    from deepinv.physics import DecomposablePhysics, GaussianNoise

    class Decomposed(DecomposablePhysics):
        def A(self, x: Tensor, **_: Any) -> Tensor:
            return operator(x)

        def A_adjoint(self, y: Tensor, **_: Any) -> Tensor:
            return operator.adjoint(y)

        def A_dagger(self, y: Tensor, **_: Any) -> Tensor:
            return operator.pinv(y)

    operator, shape = cell.operator, tuple(cell.noise.shape[1:])
    s = operator.singular_values(shape).expand(shape).to(cell.noise)
    inverse = torch.where(s > 0, 1 / s, 0.0)
    result = Decomposed(
        U=lambda z, **_: operator(operator.from_spectral(inverse * z)),
        U_adjoint=lambda y, **_: inverse * operator.spectral(operator.adjoint(y)),
        V=lambda z, **_: operator.from_spectral(z),
        V_adjoint=lambda x, **_: operator.spectral(x),
        mask=s[None],
        noise_model=GaussianNoise(max(cell.noise_std, SMALLEST) / 2),
    )
    return result, (cell.y + operator(torch.ones_like(cell.noise[:1]))) / 2


def deepinv(nfe: int) -> dict[str, dict[str, Run]]:
    """DPS, DDRM and DiffPIR of deepinv, each with its settings, within the budget."""
    from deepinv.optim.data_fidelity import L2
    from deepinv.sampling import DDRM, DPS, DiffPIR

    half = round(nfe * EVALUATION)  # steps without a product

    def run_with(make: Callable[[UnitDenoiser], Any], start: bool = False) -> Run:
        def run(cell: Any) -> Tensor:
            torch.manual_seed(0)
            kind, y = physics(cell)
            denoiser = UnitDenoiser(cell.prior)
            more = {"x_init": (cell.operator.pinv(cell.y) + 1) / 2} if start else {}
            image = make(denoiser)(y, kind, **more)
            if denoiser.calls > half:
                raise RuntimeError(f"{denoiser.calls} calls where the budget is {half}")
            return 2 * image.detach() - 1

        return run

    def ddrm(top: float, spacing: str, eta: float) -> Run:
        sigmas = np.linspace(top, 2e-3, half) if spacing == "linear" else np.geomspace(top, 2e-3, half)
        return run_with(lambda denoiser: DDRM(denoiser, sigmas=sigmas, eta=eta))

    def diffpir(strength: float, zeta: float) -> Run:
        def make(denoiser: UnitDenoiser) -> Any:
            return DiffPIR(denoiser, L2(), max_iter=half, zeta=zeta, lambda_=strength)

        return run_with(make, start=True)

    def dps(weight: float, solver: str) -> Run:
        return run_with(lambda denoiser: DPS(denoiser, solver=solver, num_steps=nfe + 1, weight=weight))

    return {
        "deepinv DDRM": {
            f"sigma_max={top} {spacing} eta={eta}": ddrm(top, spacing, eta)
            for top in (1.0, 4.0)
            for spacing in ("linear", "geometric")
            for eta in (0.5, 0.85)
        },
        "deepinv DiffPIR": {f"lambda={z} zeta={q}": diffpir(z, q) for z in (1.0, 7.0, 30.0, 100.0) for q in (0.1, 0.5)},
        "deepinv DPS": {
            f"weight={w:g} {solver}": dps(w, solver) for w in (10.0, 30.0, 100.0, 300.0) for solver in ("ddpm", "ddim")
        },
    }
