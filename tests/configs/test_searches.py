"""The searches for `cclight tune`: each fits a configuration, and the tasks' settings are points of their own searches."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from cclight.commands.tune.search import read_search
from cclight.commands.tune.trial import Evaluation
from cclight.configs import packaged_configs

SEARCHES = {path.stem: path for path in sorted((packaged_configs() / "search").glob("*.yaml"))}
CONFIGURATIONS = {
    "conjugate": ["--config", "sr.yaml", "--model.sampler", "Conjugate"],
    "moments": ["--config", "inpaint.yaml"],
    "pigdm": ["--config", "sr.yaml", "--model.sampler", "PiGDM"],
}
TINY = ["--model.prior.init_args.weights", str(Path(__file__).parents[1] / "assets" / "tiny.safetensors")]


@pytest.mark.parametrize("name", SEARCHES)
def test_each_fits_its_configuration(name, monkeypatch):
    monkeypatch.chdir(packaged_configs())
    search = read_search(SEARCHES[name])
    # What LPIPS needs is not here to be had, and not what is asked.
    evaluation = Evaluation([*CONFIGURATIONS[name], *TINY], replace(search, objective="psnr"))
    evaluation.check()
    assert {constraint.metric for constraint in search.constraint} <= set(evaluation.quantities)
    assert search.objective in evaluation.quantities
    if name == "moments":  # what is packaged
        assert evaluation.own is not None
