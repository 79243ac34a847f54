"""The benchmarks' own arithmetic: their distance, their floor, and that a row is measured as it says."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest
import torch

from cclight import Sampler

FOLDER = Path(__file__).resolve().parents[2] / "benchmarks"


def load(name: str) -> ModuleType:
    if str(FOLDER) not in sys.path:
        sys.path.append(str(FOLDER))  # as `python benchmarks/NAME.py` has it: they import what lies beside them
    spec = importlib.util.spec_from_file_location(f"benchmarks_{name}", FOLDER / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


def test_the_distance_of_a_shift_is_its_length_over_the_root_of_the_dimension():
    posterior = load("posterior")
    samples = torch.randn(2, 50, 12, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    assert posterior.sliced_wasserstein(samples, samples[:, torch.randperm(50, generator=torch.Generator())]) < 1e-12
    shift = torch.ones(12, dtype=torch.float64)
    assert posterior.sliced_wasserstein(samples, samples + shift) == pytest.approx(1.0, rel=0.15)


def test_exact_samples_are_at_the_floor_and_the_priors_are_not():
    posterior = load("posterior")
    cell = posterior.Cell(8, "pool4", 0.05, 1, 60)
    exact = cell.posterior.sample(60, torch.Generator().manual_seed(5)).flatten(0, 1)
    prior = cell.prior.sample(60, torch.Generator().manual_seed(5))
    near, far = cell.row("exact", "", 0, exact, 0.0), cell.row("prior", "", 0, prior, 0.0)
    assert abs(near.excess) < 0.3 * near.floor
    assert far.excess > 2 * far.floor
    assert near.mean_error < far.mean_error


def test_the_benchmark_of_noise_levels_has_a_sampler_in_every_column():
    noise_levels = load("noise_levels")
    for _, conjugate in noise_levels.operators(16).values():
        assert all(isinstance(sampler, Sampler) for sampler in noise_levels.samplers(conjugate).values())


@pytest.mark.slow
def test_the_perturbation_drifts_in_the_noise_benchmark():
    noise = load("noise")
    assert noise.drift(2.0, 0.01) < 1e-2 < noise.drift(2.0, 0.2)
