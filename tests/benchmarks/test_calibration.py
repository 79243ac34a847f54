"""benchmarks/calibration.py: exact samples are ideal, others are not, settings are chosen elsewhere, a run goes on."""

from __future__ import annotations

import json

import pytest
import torch

from cclight import ConjugateMoments
from tests.benchmarks.test_benchmarks import load


@pytest.fixture(scope="module")
def calibration():
    return load("calibration")


@pytest.fixture(scope="module")
def cell(calibration):
    return calibration.Calibrated(8, "blur", 0.05, (20, 8, 8), draw=3)


def test_exact_samples_are_calibrated_and_others_are_not(calibration, cell):
    exact = cell.posterior.sample(8, torch.Generator().manual_seed(5))
    mean = cell.posterior.mean[:, None]
    right, narrow, wide = (
        cell.calibration("", "", 0, 0.0, cell.evidence(mean + scale * (exact - mean))) for scale in (1.0, 0.7, 1.5)
    )
    assert right.spread_error == pytest.approx(1, abs=0.1)
    assert (right.coverage_50, right.coverage_90) == pytest.approx((0.5, 0.9), abs=0.03)
    assert right.crps == pytest.approx(1, abs=0.05)
    assert narrow.spread_error < 0.65
    assert wide.spread_error > 1.5
    assert narrow.coverage_90 < right.coverage_90 < wide.coverage_90
    assert min(narrow.crps, wide.crps) > right.crps


def test_settings_are_chosen_on_other_measurements(calibration, cell):
    tuning = calibration.Calibrated(8, "blur", 0.05, (4, 8, 8), draw=2)
    exact = tuning.posterior.sample(8, torch.Generator().manual_seed(5)).flatten(0, 1)
    good = {"there": lambda c: exact if c is tuning else c.noise, "here": lambda c: 9 * c.noise}
    rows = list(calibration.compare(cell, tuning, {"good": good, "broken": {"": lambda c: c.noise * torch.nan}}, 5))
    assert [(row.sampler, row.setting) for row in rows] == [("good", "there")]
    assert rows[0].crps == cell.score(cell.noise)
    assert rows[0].tuned == tuning.score(exact)


def test_the_second_order_mends_what_the_first_is_too_sure_of(calibration, cell):
    samplers = {str(order): ConjugateMoments(5, t_start=0.7, order=order) for order in (1, 2)}
    first, second = (line.split(" | ") for line in calibration.mending([cell], samplers).splitlines()[2:])
    assert float(first[1]) < 0.75 < 0.85 < float(second[1]) < 1.15


def test_the_added_contestant_tries_eight_settings_too(calibration, cell):
    ((name, settings),) = calibration.mended(3).items()
    assert (name, len(settings)) == ("ConjugateMoments order 2", 8)
    images = [run(cell) for run in settings.values()]
    assert len({float(image.mean()) for image in images}) == 8


def test_a_run_goes_on_where_it_stopped(calibration, tmp_path, monkeypatch, capsys):
    def restore(cell):
        return cell.noise

    def rows():
        return json.loads((tmp_path / "calibration_8.json").read_text())["rows"]

    monkeypatch.setattr(calibration, "ours", lambda nfe: {"noise": {"only": restore}})
    monkeypatch.setattr(calibration, "mended", lambda nfe: {})
    arguments = ["--ours", "--only", "blur", "0.05", "--measurements", "4", "--output", str(tmp_path)]
    calibration.main([*arguments, "--nfe", "5"])
    saved = rows()
    assert [(row["sampler"], row["nfe"]) for row in saved] == [("exact samples", 0), ("noise", 5)]
    calibration.main([*arguments, "--nfe", "5", "10"])
    assert rows()[:2] == saved
    assert [(row["sampler"], row["nfe"]) for row in rows()[2:]] == [("noise", 10)]
    assert "| noise | " in capsys.readouterr().out
    with pytest.raises(SystemExit):
        calibration.main([*arguments, "--measurements", "5"])
    assert "choose another --output" in capsys.readouterr().err
