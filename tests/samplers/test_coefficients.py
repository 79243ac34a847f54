"""The table of the conjugate integrators: the paper's integrals, closed forms, exact quadrature."""

from __future__ import annotations

import torch

from cclight import (
    Epsilon,
    VPPath,
)
from cclight.samplers.coefficients import conjugate_table, quadrature
from cclight.samplers.grid import Grid
from cclight.samplers.spectrum import Projector
from tests.samplers.golden import cases, relative


def test_table_agrees_with_the_papers_integrals(golden):
    """The increments of the global integrals, brought back into the local form."""
    for case in cases(golden, "cpgdm__*"):
        if not case.operator.__class__.__name__.startswith("Bicubic"):
            continue
        path, w, lam = VPPath(), case.settings["w"], case.settings["lam"]
        grid = Grid(case.settings["n_steps"], case.settings["t_start"], case.settings["t_end"])
        times = grid.times(path)
        table = conjugate_table(path, Epsilon(), grid, Projector.gains, "alpha2", w, lam)
        b_vp = -2 * path.alpha(times).log()
        a, b = lam * times + b_vp / 2, -w * b_vp / 2
        back = torch.stack([-a[1:], -a[1:] - b[1:]], dim=1).exp()  # null space, range
        target = torch.from_numpy(case.data["exact_Phiy"]).diff()[:, None] * back[:, 1:]
        assert relative(table.phi[:, 2, 1:], target) < 1e-4
        outer = torch.from_numpy(case.data["exact_Phis"]).diff(dim=0)
        network = torch.stack([outer[:, 0], outer.sum(1)], dim=1) * back
        assert relative(table.phi[:, 1], network) < 1e-4


def test_table_meets_its_closed_forms():
    """λ = 0 on VP with ε: the integrals from the first time on are elementary functions of σ/α and b."""
    path, w = VPPath(), 15.0
    grid = Grid(5, 0.6, 0.999)
    times = grid.times(path)
    x, network, target, vjp = conjugate_table(path, Epsilon(), grid, Projector.gains, "alpha2", w).phi.unbind(1)
    ratio, alpha, sigma = path.ratio(times), path.alpha(times), path.sigma(times)
    b = w * alpha.log()  # -w b_VP / 2
    # Null space: ẋ = p x + q N has x/α + ... so the coefficient of ε is α' (ρ' - ρ): DDIM.
    torch.testing.assert_close(network[:, 0], alpha[1:] * ratio.diff(), rtol=1e-11, atol=0)
    torch.testing.assert_close(x[:, 0], alpha[1:] / alpha[:-1], rtol=1e-12, atol=0)
    # Range: ∫ e^{a+b} γ s = e^{b'} - e^{b} in the frame of t = 0, brought back by e^{-a' - b'} with a = b_VP/2 = -ln α.
    expected = alpha[1:] * (-torch.expm1(b[:-1] - b[1:]))
    torch.testing.assert_close(target[:, 1], expected, rtol=1e-11, atol=0)
    # VJP on the null space: w (artanh σ - σ).
    expected = alpha[1:] * (w * (torch.atanh(sigma) - sigma)).diff()
    torch.testing.assert_close(vjp[:, 0], expected, rtol=1e-9, atol=0)


def test_quadrature_integrates_polynomials_exactly():
    nodes, weights, cumulative = quadrature(16)
    for power in range(15):
        torch.testing.assert_close(weights @ nodes**power, torch.tensor(1 / (power + 1), dtype=torch.float64))
        torch.testing.assert_close(cumulative @ nodes**power, nodes ** (power + 1) / (power + 1), rtol=1e-10, atol=1e-13)
