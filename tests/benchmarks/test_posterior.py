"""benchmarks/posterior.py: what it measures, its budgets, its peers, and that a run goes on where it stopped."""

from __future__ import annotations

import json
from importlib import import_module

import pytest
import torch

import cclight
from tests.benchmarks.test_benchmarks import FOLDER, load


@pytest.fixture
def posterior(monkeypatch):
    monkeypatch.syspath_prepend(str(FOLDER))  # it imports peers from beside it
    return load("posterior")


def test_measures_tell_exact_samples_from_the_priors(posterior):
    cell = posterior.Cell(8, "pool4", 0.05, 1, 60)
    exact = cell.posterior.sample(60, torch.Generator().manual_seed(5)).flatten(0, 1)
    prior = cell.truth.sample(60, torch.Generator().manual_seed(5))
    near, far = cell.row("exact", "", 0, exact, 0.0), cell.row("prior", "", 0, prior, 0.0)
    assert near.mmd < 0.1 * far.mmd
    assert near.weight_error < 0.5 * far.weight_error


def test_responsibilities_find_the_component_that_samples_come_from(posterior):
    cell = posterior.Cell(8, "pool4", 0.0, 1, 20)
    means, factors = cell.truth.means[3], torch.linalg.cholesky(cell.truth.covariances()[3])
    x = means + torch.randn(1, 20, 192, generator=torch.Generator().manual_seed(0), dtype=torch.float64) @ factors.T
    assert float(cell.responsibilities(x)[..., 3].mean()) > 0.95


def test_deepinv_keeps_its_budget_and_sees_the_same_problem(posterior):
    pytest.importorskip("deepinv")
    peers = import_module("peers")
    cell = posterior.Cell(8, "blur", 0.05, 1, 4)
    physics, _ = peers.physics(cell)
    x = torch.rand(4, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(2 * physics.A(x) - cell.operator(torch.ones(1, 3, 8, 8)), cell.operator(2 * x - 1))
    torch.testing.assert_close(physics.U(physics.U_adjoint(physics.A(x))), physics.A(x), atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(physics.mask * physics.V_adjoint(x), physics.U_adjoint(physics.A(x)), atol=1e-4, rtol=1e-4)
    for settings in peers.deepinv(2).values():
        image = next(iter(settings.values()))(cell)  # raises over the budget
        assert image.shape == cell.noise.shape
        assert image.isfinite().all()


def test_a_denoiser_on_unit_images_is_the_prior(posterior):
    peers = import_module("peers")
    cell = posterior.Cell(8, "pool4", 0.0, 1, 4)
    path, t = cell.prior.path, torch.full((4,), 0.3)
    alpha, ratio = float(path.alpha(t[0])), float(path.ratio(t[0]))
    expected = cell.prior.denoise(alpha * cell.noise, t)
    found = 2 * peers.UnitDenoiser(cell.prior)((cell.noise + 1) / 2, ratio / 2) - 1
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)


def test_every_sampler_of_ours_tries_eight_settings_within_the_budget(posterior):
    cell = posterior.Cell(8, "pool4", 0.0, 1, 1)
    for name, settings in posterior.ours(4).items():
        assert len(settings) == 8, name
    assert set(posterior.ours(posterior.ONLY_DPS)) == {"DPS"}
    assert posterior.ours(4)["ConjugateTilt"]["steps=4 t_start=0.1 order=2 timesteps=logsnr renewal=0.0"](cell).shape == (
        1,
        3,
        8,
        8,
    )


def test_settings_are_chosen_on_other_measurements(posterior, monkeypatch):
    cell, tuning = (posterior.Cell(8, "pool4", 0.0, 1, 4, draw=draw) for draw in (1, 2))
    assert not torch.equal(cell.y, tuning.y)
    exact = tuning.reference.view(-1, 3, 8, 8)
    good = {"there": lambda c: exact if c is tuning else c.noise, "here": lambda c: 9 * c.noise if c is tuning else exact}
    broken = {"there": lambda c: exact if c is tuning else c.noise * torch.nan}
    monkeypatch.setattr(posterior, "ours", lambda nfe: {"good": good, "broken": broken})
    rows = list(posterior.compare(cell, tuning, 5, with_peers=False))
    assert [(row.sampler, row.setting) for row in rows] == [("good", "there")]
    assert rows[0].distance == cell.distance(cell.noise)
    assert rows[0].tuned == tuning.distance(exact) < rows[0].distance


def test_ratios_compare_the_best_of_both(posterior):
    """Best by the tuning draw: PnPFlow and DPS, luckier on the reported measurements, are not chosen."""

    def row(sampler: str, tuned: float, distance: float):
        return posterior.Row("8x8 pool4 0.0", sampler, "", 5, tuned, distance, 0.1, 0, 0, 0, 0, 0)

    own = [row("PiGDM", 0.4, 0.5), row("Conjugate", 0.2, 0.2), row("PnPFlow", 0.3, 0.15)]
    peers = [row("azula MMPS", 0.25, 0.3), row("deepinv DPS", 0.3, 0.2)]
    assert "| 8x8 pool4 0.0 | 0.50 (Conjugate 0.1000, azula MMPS 0.2000) |" in posterior.ratios(own + peers)


def test_a_run_goes_on_where_it_stopped(posterior, tmp_path, monkeypatch, capsys):
    """With another budget, and with another sampler."""
    pytest.importorskip("matplotlib", reason="needs matplotlib: pip install 'cclight[bench]'")
    everything = posterior.ours

    def only(*names: str) -> None:
        first = {name: dict(list(settings.items())[:1]) for name, settings in everything(2).items() if name in names}
        monkeypatch.setattr(posterior, "ours", lambda nfe: first)

    def rows() -> list[dict]:
        return json.loads((tmp_path / "posterior_8.json").read_text())["rows"]

    arguments = ["--ours", "--only", "pool4", "0.0", "--measurements", "1", "--samples", "4", "--output", str(tmp_path)]
    only("ConjugateTilt")
    posterior.main([*arguments, "--nfe", "2"])
    saved = rows()
    assert [(row["sampler"], row["nfe"]) for row in saved] == [("ConjugateTilt", 2)]
    posterior.main([*arguments, "--nfe", "2", "3"])
    assert rows()[0] == saved[0]
    assert [row["nfe"] for row in rows()] == [2, 3]
    only("ConjugateTilt", "DPS")
    posterior.main([*arguments, "--nfe", "2"])
    assert [(row["sampler"], row["nfe"]) for row in rows()] == [("ConjugateTilt", 2), ("ConjugateTilt", 3), ("DPS", 2)]
    assert (tmp_path / "figures" / "posterior_8.png").stat().st_size > 1000
    with pytest.raises(SystemExit):
        posterior.main([*arguments, "--nfe", "4", "--samples", "5"])
    assert "choose another --output" in capsys.readouterr().err


def test_flows_restore_with_a_flow(posterior):
    cell = posterior.Cell(8, "pool4", 0.0, 1, 2)
    x, t = torch.rand(2, 3, 8, 8, generator=torch.Generator().manual_seed(0)), torch.tensor([0.3, 0.6])
    assert isinstance(cell.flow.path, cclight.OTPath)
    expected = cclight.Retimed(cell.prior, cclight.OTPath()).denoise(x, t)
    torch.testing.assert_close(cell.flow.denoise(x, t), expected, atol=1e-4, rtol=1e-4)
    sampler = cclight.OTODE(4, 0.5, t_start=0.1)
    restored = sampler.sample(cell.flow, cell.operator, cell.y, cell.noise, noise_std=0.0).image
    setting = next(iter(posterior.ours(4)["OTODE"].values()))
    torch.testing.assert_close(setting(cell), restored)
