"""The samplers of azula and deepinv for benchmarks/posterior.py and photographs.py: their own code, our priors and operators.

A budget of NFE n is 2.1 n units, a network evaluation 1 and a vector-Jacobian product 1.1. Both libraries draw from torch's
global generator, seeded in every run. deepinv works on images in [0, 1] with denoisers of (image, σ): the prior is scaled to
that, y becomes (y + H 1) / 2 and the noise σ_y / 2. Its DPS and DiffPIR clip the estimate to [-1, 1], as for photographs.

Each has a list of settings, eight for mixtures and four for photographs. `start` is the
path's time at which it begins, from α guess + σ ε; deepinv's own samplers begin with noise where there is none. Who cannot
take an operator says so in a TypeError.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from itertools import product
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from cclight import LinearOperator, Operator, SpectralOperator

VJP = 1.1
EVALUATION = 1 + VJP
Run = Callable[[Any], Tensor]
Guess = Callable[[Any], Tensor]  # the image, (B, C, H, W), that sampling begins near
Settings = Mapping[str, Sequence[Mapping[str, Any]]]
SMALLEST = 1e-3  # the σ_y given to those that divide by it


def grid(**values: Sequence[Any]) -> list[dict[str, Any]]:
    """Every choice of one value for each name."""
    return [dict(zip(values, choice, strict=True)) for choice in product(*values.values())]


STARTS = (1.0, 0.6)
OF_MIXTURES: Settings = {
    "azula MMPS": grid(kind=("DDIMSampler", "xEABSampler"), iterations=(1, 2), start=STARTS),
    "azula DiffPIR": grid(lmbda=(0.03, 0.3, 3.0, 30.0), start=STARTS),
    "azula PGDM": grid(eta=(0.0, 0.3, 0.6, 1.0), start=STARTS),
    "azula DPS": grid(zeta=(10.0, 30.0, 100.0, 300.0), start=STARTS),
    "deepinv DDRM": grid(sigma_max=(1.0, 4.0), spacing=("linear", "geometric"), eta=(0.5, 0.85)),
    "deepinv DiffPIR": grid(lambda_=(1.0, 7.0, 30.0, 100.0), zeta=(0.1, 0.5)),
    "deepinv DPS": grid(weight=(10, 30, 100, 300), solver=("ddpm", "ddim")),
}


OF_PHOTOGRAPHS: Settings = {
    "azula MMPS": [
        {"kind": kind, "iterations": k, "start": u}
        for kind, k, u in (("DDIMSampler", 1, 0.6), ("DDIMSampler", 1, 0.3), ("DDIMSampler", 2, 0.3), ("xEABSampler", 1, 0.3))
    ],
    "azula DiffPIR": grid(lmbda=(1.0, 30.0), start=(0.6, 0.3)),
    "azula PGDM": [{"eta": e, "start": u} for e, u in ((0.0, 0.6), (0.0, 0.3), (0.3, 0.3), (1.0, 0.3))],
    "azula DPS": grid(total=(250.0, 1000.0), start=(0.6, 0.3)),
    "deepinv DDRM": grid(sigma_max=(1.0, 3.0), spacing=("geometric",), eta=(0.5, 0.85)),
    "deepinv DiffPIR": grid(lambda_=(7.0, 30.0), zeta=(0.5, 1.0)),
    "deepinv DPS": [{"weight": w, "solver": "ddim", "start": u} for w, u in ((30, 0.6), (100, 0.3), (300, 0.3), (1000, 0.3))],
    "deepinv ΠGDM": [{"weight": w, "solver": "ddim", "start": u} for w, u in ((1.0, 0.6), (1.0, 0.3), (2.0, 0.3), (4.0, 0.3))],
    "deepinv moments": [
        {"iterations": k, "solver": solver, "start": u}
        for k, solver, u in ((1, "ddim", 0.6), (1, "ddim", 0.3), (1, "ddpm", 0.3), (2, "ddim", 0.3))
    ],
}


def pseudoinverse(cell: Any) -> Tensor:
    """H⁺y, (B, C, H, W)."""
    return cell.operator.pinv(cell.y)


def _runs(makers: Mapping[str, Callable[..., Run]], settings: Settings, guess: Guess, nfe: int) -> dict[str, dict[str, Run]]:
    """Each maker's run of each of its settings, by what describes it."""
    return {
        name: {describe(chosen): makers[name](guess=guess, nfe=nfe, **chosen) for chosen in settings[name]}
        for name in makers
        if name in settings
    }


def describe(chosen: Mapping[str, Any]) -> str:
    """A setting in words."""
    return " ".join(value if isinstance(value, str) else f"{key.strip('_')}={value}" for key, value in chosen.items())


def given(cell: Any, kind: type[Operator], name: str) -> Any:
    """The cell with an operator that the sampler can take: its own, or the linear problem that it also is.

    Raises:
        TypeError: with what it needs.
    """
    if isinstance(cell.operator, kind):
        return cell
    operator, y, noise_std = cell.operator.linear_problem(cell.y, cell.noise_std)
    if not isinstance(operator, kind):
        raise TypeError(f"{name} needs a {kind.__name__}, and {type(operator).__name__} is none")
    return replace(cell, operator=operator, y=y, noise_std=noise_std)


def azula(nfe: int, settings: Settings = OF_MIXTURES, guess: Guess = pseudoinverse) -> dict[str, dict[str, Run]]:
    """MMPS, DiffPIR, PGDM and DPS of azula, each with its settings, within the budget."""
    import azula.sample
    from azula.denoise import Denoiser, DiracPosterior
    from azula.guidance.diffpir import DiffPIRDenoiser
    from azula.guidance.dps import DPSSampler
    from azula.guidance.mmps import MMPSDenoiser
    from azula.guidance.pgdm import PGDMSampler
    from azula.noise import Schedule

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

    def started(cell: Any, guess: Guess, start: float) -> Tensor:
        t = torch.tensor(start, dtype=torch.float64)
        alpha, sigma = float(cell.prior.path.alpha(t)), float(cell.prior.path.sigma(t))
        return alpha * guess(cell) + sigma * cell.noise

    def times(steps: float, start: float, cell: Any) -> dict[str, Any]:
        return {"start": start, "stop": 0.001, "steps": max(1, round(steps)), "silent": True, "dtype": cell.noise.dtype}

    def mmps(kind: str, iterations: int, start: float, guess: Guess, nfe: int) -> Run:
        steps = nfe * EVALUATION / (1 + VJP * (1 + iterations))

        def run(cell: Any) -> Tensor:
            cell = given(cell, LinearOperator, "azula MMPS")
            variance = max(cell.noise_std, SMALLEST) ** 2
            denoiser = MMPSDenoiser(Wrapped(cell.prior), cell.y, cell.operator, lambda v: variance * v, iterations=iterations)
            return getattr(azula.sample, kind)(denoiser, **times(steps, start, cell))(started(cell, guess, start))

        return run

    def diffpir(lmbda: float, start: float, guess: Guess, nfe: int) -> Run:
        def run(cell: Any) -> Tensor:
            cell = given(cell, LinearOperator, "azula DiffPIR")
            variance = max(cell.noise_std, SMALLEST) ** 2
            denoiser = DiffPIRDenoiser(Wrapped(cell.prior), cell.y, cell.operator, variance, lmbda, iterations=3)
            return azula.sample.DDIMSampler(denoiser, **times(nfe * EVALUATION, start, cell))(started(cell, guess, start))

        return run

    def pgdm(eta: float, start: float, guess: Guess, nfe: int) -> Run:
        def run(cell: Any) -> Tensor:
            torch.manual_seed(0)
            steps = times(nfe, start, cell)
            sampler = PGDMSampler(Wrapped(cell.prior), cell.y, cell.operator, cell.operator.pinv, eta=eta, **steps)
            return sampler(started(cell, guess, start))

        return run

    def dps(start: float, guess: Guess, nfe: int, zeta: float | None = None, total: float = 0.0) -> Run:
        step = total / nfe if zeta is None else zeta  # `total` is how far all steps lead together

        def run(cell: Any) -> Tensor:
            torch.manual_seed(0)
            sampler = DPSSampler(Wrapped(cell.prior), cell.y, cell.operator, step, **times(nfe, start, cell))
            return sampler(started(cell, guess, start))

        return run

    makers = {"azula MMPS": mmps, "azula DiffPIR": diffpir, "azula PGDM": pgdm, "azula DPS": dps}
    return _runs(makers, settings, guess, nfe)


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
    """The cell's operator as deepinv's physics on images in [0, 1], and its measurements.

    A spectral operator is a `DecomposablePhysics`, a nonlinear one whose measurements are images a `Physics`.
    """
    from deepinv.physics import DecomposablePhysics, GaussianNoise, Physics

    class Decomposed(DecomposablePhysics):
        def A(self, x: Tensor, **_: Any) -> Tensor:
            return operator(x)

        def A_adjoint(self, y: Tensor, **_: Any) -> Tensor:
            return operator.adjoint(y)

        def A_dagger(self, y: Tensor, **_: Any) -> Tensor:
            return operator.pinv(y)

    class Nonlinear(Physics):
        def A(self, x: Tensor, **_: Any) -> Tensor:
            return (operator(2 * x - 1) + 1) / 2

        def A_dagger(self, y: Tensor, **_: Any) -> Tensor:
            return (operator.pinv(2 * y - 1) + 1) / 2

    operator, shape = cell.operator, tuple(cell.noise.shape[1:])
    noise_model = GaussianNoise(max(cell.noise_std, SMALLEST) / 2)
    if not isinstance(operator, SpectralOperator):
        if isinstance(operator, LinearOperator):
            raise TypeError(f"deepinv is given a singular value decomposition here, which {type(operator).__name__} has not")
        return Nonlinear(noise_model=noise_model), (cell.y + 1) / 2
    s = operator.singular_values(shape).expand(shape).to(cell.noise)
    inverse = torch.where(s > 0, 1 / s, 0.0)
    result = Decomposed(
        U=lambda z, **_: operator(operator.from_spectral(inverse * z)),
        U_adjoint=lambda y, **_: inverse * operator.spectral(operator.adjoint(y)),
        V=lambda z, **_: operator.from_spectral(z),
        V_adjoint=lambda x, **_: operator.spectral(x),
        mask=s[None],
        noise_model=noise_model,
    )
    return result, (cell.y + operator(torch.ones_like(cell.noise[:1]))) / 2


def deepinv(nfe: int, settings: Settings = OF_MIXTURES, guess: Guess = pseudoinverse) -> dict[str, dict[str, Run]]:
    """DPS, DDRM, DiffPIR and PosteriorDiffusion of deepinv, each with its settings, within the budget."""
    from deepinv.optim.data_fidelity import L2
    from deepinv.sampling import (
        DDRM,
        DPS,
        DDIMSolver,
        DDPMSolver,
        DiffPIR,
        MomentMatchingDataFidelity,
        PiGDMDataFidelity,
        PosteriorDiffusion,
        VariancePreservingDiffusion,
    )

    double = {"dtype": torch.float64}

    def run_with(
        make: Callable[[UnitDenoiser], Any],
        most: int,
        name: str,
        kind: type[Operator] = SpectralOperator,
        begin: Callable[[Any], dict[str, Any]] = lambda cell: {},
    ) -> Run:
        def run(cell: Any) -> Tensor:
            cell = given(cell, kind, name)
            torch.manual_seed(0)
            of_cell, y = physics(cell)
            denoiser = UnitDenoiser(cell.prior)
            image = make(denoiser)(y, of_cell, **begin(cell))
            if denoiser.calls > most:
                raise RuntimeError(f"{denoiser.calls} calls where the budget is {most}")
            return (2 * image.detach() - 1).to(cell.noise.dtype)

        return run

    def ddrm(sigma_max: float, spacing: str, eta: float, guess: Guess, nfe: int) -> Run:
        half = round(nfe * EVALUATION)  # steps without a product
        sigmas = (np.linspace if spacing == "linear" else np.geomspace)(sigma_max, 2e-3, half)
        return run_with(lambda denoiser: DDRM(denoiser, sigmas=sigmas, eta=eta), half, "deepinv DDRM")

    def diffpir(lambda_: float, zeta: float, guess: Guess, nfe: int) -> Run:
        half = round(nfe * EVALUATION)

        def make(denoiser: UnitDenoiser) -> Any:
            return DiffPIR(denoiser, L2(), max_iter=half, zeta=zeta, lambda_=lambda_)

        return run_with(make, half, "deepinv DiffPIR", begin=lambda cell: {"x_init": (guess(cell) + 1) / 2})

    def from_guess(start: float | None, guess: Guess, nfe: int) -> Callable[[Any], dict[str, Any]]:
        """What a PosteriorDiffusion is told to begin from: its state, in [-1, 1] on its path, and its times."""

        def begin(cell: Any) -> dict[str, Any]:
            if start is None:
                return {}
            sde, t = VariancePreservingDiffusion(), torch.tensor(start, **double)
            x = sde.scale_t(t) * (guess(cell) + sde.sigma_t(t) * cell.noise)
            return {"x_init": x, "timesteps": torch.linspace(start, 0, nfe + 1, **double)}

        return begin

    def dps(weight: float, guess: Guess, nfe: int, solver: str = "ddpm", start: float | None = None) -> Run:
        return run_with(
            lambda denoiser: DPS(denoiser, solver=solver, num_steps=nfe + 1, weight=weight),
            nfe,
            "deepinv DPS",
            Operator,
            from_guess(start, guess, nfe),
        )

    def posterior(name: str, fidelity: Any, steps: int, solver: str, start: float, guess: Guess) -> Run:
        def make(denoiser: UnitDenoiser) -> Any:
            kind = {"ddpm": DDPMSolver, "ddim": DDIMSolver}[solver]
            times = torch.linspace(1, 0, steps + 1, **double)
            return PosteriorDiffusion(fidelity(denoiser), denoiser, VariancePreservingDiffusion(), kind(timesteps=times))

        return run_with(make, steps, name, begin=from_guess(start, guess, steps))

    def pigdm(weight: float, solver: str, start: float, guess: Guess, nfe: int) -> Run:
        return posterior("deepinv ΠGDM", partial(PiGDMDataFidelity, weight=weight), nfe, solver, start, guess)

    def moments(iterations: int, solver: str, start: float, guess: Guess, nfe: int) -> Run:
        # Conjugate gradients from zero apply the operator once more than they iterate, and the result takes one product.
        steps = max(1, round(nfe * EVALUATION / (1 + VJP * (iterations + 2))))
        fidelity = partial(MomentMatchingDataFidelity, cg_max_iter=iterations)
        return posterior("deepinv moments", fidelity, steps, solver, start, guess)

    makers = {
        "deepinv DDRM": ddrm,
        "deepinv DiffPIR": diffpir,
        "deepinv DPS": dps,
        "deepinv ΠGDM": pigdm,
        "deepinv moments": moments,
    }
    return _runs(makers, settings, guess, nfe)
