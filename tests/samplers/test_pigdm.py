"""ΠGDM and ΠGFM against the paper's code and the guided ODE."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from cclight import BicubicDownsampling, Epsilon, OTPath, PiGDM, Velocity, VPPath
from cclight.problem import Problem
from tests.samplers.golden import cases, relative
from tests.samplers.test_conjugate import BOX, Counting, guided_ode, problem, smooth_mixture


class FromPureNoise(Problem):
    """The paper's code starts some inpainting runs from noise alone."""

    def start(self, t: float) -> Tensor:
        return self.noise


def test_pigdm_agrees_with_the_papers_code(golden):
    for case in cases(golden, "pgdm_cont__*"):
        settings = case.settings
        sampler = PiGDM(settings["n_steps"], settings["w"], settings["lam"], settings["t_start"], settings["t_end"])
        kind = FromPureNoise if len(case.noises) > 1 else Problem
        with torch.no_grad():
            *_, image = sampler.iterate(kind(case.prior, case.operator, case.y, case.noises[-1]))
        assert relative(image, case.expected("x_final_cont_exact")) < 2e-5, case.name


def test_pigfm_agrees_with_the_papers_code(golden):
    for case in cases(golden, "flow_pgdm__*"):
        settings = case.settings
        sampler = PiGDM(
            settings["n_steps"],
            settings["w"],
            t_start=settings["skip_t"],
            schedule="inverse_variance",
            integrator="euler",
        )
        result = sampler.sample(case.prior, case.operator, case.y, case.noises[0])
        assert relative(result.image, case.expected("x_final")) < 2e-5, case.name


@pytest.mark.parametrize("pattern", ["pgdm_cont__*", "flow_pgdm__*"])
def test_float32_agrees_with_float64(golden, pattern):
    for case in cases(golden, pattern):
        flow = pattern.startswith("flow")
        sampler = PiGDM(5, 15.0, schedule="inverse_variance", integrator="euler") if flow else PiGDM(5, 15.0)
        exact = sampler.sample(case.prior, case.operator, case.y, case.noises[0]).image
        single = sampler.sample(case.prior, case.operator, case.y.float(), case.noises[0].float()).image
        assert relative(single, exact) < 1e-4, case.name


@pytest.mark.parametrize(("path", "parameterization"), [(VPPath(), Epsilon()), (OTPath(), Velocity())])
@pytest.mark.parametrize("integrator", ["exponential", "euler"])
def test_converges_to_the_guided_ode(path, parameterization, integrator):
    prior, exact = smooth_mixture(path, parameterization), guided_ode(path, BOX, "constant", 1.0)
    y, noise = problem(prior, BOX)
    errors = []
    for steps in (40, 320):
        sampler = PiGDM(steps, 1.0, 0.2, 0.4, 0.95, integrator=integrator)
        errors.append(relative(sampler.sample(prior, BOX, y, noise).image, exact))
    assert errors[1] < 0.02
    assert errors[1] < errors[0] / 4


def test_one_network_call_and_one_vjp_a_step():
    prior, operator = Counting(smooth_mixture(VPPath(), Epsilon())), BicubicDownsampling(4)
    y, noise = problem(prior.prior, operator)
    result = PiGDM(steps=6, t_start=0.4).sample(prior, operator, y, noise)
    assert (prior.calls, prior.backward, result.nfe) == (6, 6, 6)
    assert not result.image.requires_grad


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"integrator": "rk4"}, "Unknown integrator 'rk4': choose exponential or euler"),
        ({"guidance": -0.1}, "guidance is a weight"),
    ],
)
def test_bad_settings_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        PiGDM(**arguments)
