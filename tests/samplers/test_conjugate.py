"""C-ΠGDM and C-ΠGFM against the paper's code, the guided ODE itself, and DDIM."""

from __future__ import annotations

import gc
import weakref
from dataclasses import FrozenInstanceError, replace
from functools import cache

import pytest
import torch
from torch import Tensor
from torchdiffeq import odeint

from cclight import (
    BicubicDownsampling,
    Conjugate,
    Epsilon,
    GaussianMixture,
    Inpainting,
    OTPath,
    Sample,
    Velocity,
    VPPath,
)
from cclight.operators.base import Operator
from cclight.operators.masks import Box
from cclight.paths.gaussian import GaussianPath
from cclight.paths.guidance import Schedule, gamma
from cclight.priors.base import Prior
from cclight.samplers.coefficients import conjugate_table
from cclight.samplers.grid import Grid
from tests.samplers.golden import cases, relative

DIFFUSION = "cpgdm__*"
FLOW = "flow_conjv2__*"


def sampler_of(settings: dict) -> Conjugate:
    if "skip_t" in settings:
        return Conjugate(settings["n_steps"], settings["w"], settings["B"], settings["skip_t"])
    return Conjugate(settings["n_steps"], settings["w"], settings["lam"], settings["t_start"], settings["t_end"])


@pytest.mark.parametrize("pattern", [DIFFUSION, FLOW])
def test_agrees_with_the_papers_code_in_float64(golden, pattern):
    for case in cases(golden, pattern):
        result = sampler_of(case.settings).sample(case.prior, case.operator, case.y, case.noises[0])
        if pattern == FLOW:
            expected, tolerance = case.expected("x_final_fixed64"), 2e-5
        elif "x_final_p64" in case.data:
            expected, tolerance = case.expected("x_final_p64"), 2e-5
        else:
            expected, tolerance = case.expected("x_final_cont"), 3e-3
        assert relative(result.image, expected) < tolerance, case.name
        assert result.nfe == case.settings["n_steps"]


@pytest.mark.parametrize("pattern", [DIFFUSION, FLOW])
def test_float32_agrees_with_float64(golden, pattern):
    for case in cases(golden, pattern):
        sampler = sampler_of(case.settings | {"w": 15.0})
        exact = sampler.sample(case.prior, case.operator, case.y, case.noises[0]).image
        single = sampler.sample(case.prior.float(), case.operator, case.y.float(), case.noises[0].float()).image
        assert single.dtype == torch.float32
        assert relative(single, exact) < 1e-4, case.name


def test_float32_survives_an_early_start_where_the_global_form_does_not(golden):
    (case,) = cases(golden, "cpgdm__bicubic4__w15*")
    for t_start in (0.0, 0.2):
        sampler = Conjugate(steps=5, guidance=15.0, t_start=t_start)
        exact = sampler.sample(case.prior, case.operator, case.y, case.noises[0]).image
        single = sampler.sample(case.prior, case.operator, case.y.float(), case.noises[0].float()).image
        assert relative(single, exact) < 1e-4


class Counting(Prior):
    """Counts forward calls of a prior and refuses a second backward pass."""

    def __init__(self, prior: Prior) -> None:
        super().__init__(prior.path, prior.parameterization)
        self.prior, self.channels, self.calls, self.backward = prior, prior.channels, 0, 0
        self.image_shape = prior.image_shape

    def forward(self, x_t: Tensor, t: Tensor) -> Tensor:
        self.calls += 1
        output = self.prior(x_t, t)
        output.register_hook(self._count)
        return output

    def _count(self, gradient: Tensor) -> None:
        self.backward += 1


def smooth_mixture(path, parameterization, seed: int = 0) -> GaussianMixture:
    generator = torch.Generator().manual_seed(seed)
    means = 0.5 * torch.randn(3, 1, 8, 8, generator=generator, dtype=torch.float64)
    return GaussianMixture(means, torch.tensor([0.3, 0.4, 0.5]).double() ** 2, path=path, parameterization=parameterization)


def problem(prior: GaussianMixture, operator: Operator, batch: int = 2) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    clean = prior.sample(batch, generator)
    return operator(clean), torch.randn(clean.shape, generator=generator, dtype=torch.float64)


SETTINGS = [
    (VPPath(), Epsilon()),
    (VPPath(), Velocity()),
    (VPPath(), Sample()),
    (OTPath(), Velocity()),
    (OTPath(), Sample()),
    (OTPath(), Epsilon()),
]


@pytest.mark.parametrize(("path", "parameterization"), SETTINGS)
@pytest.mark.parametrize("order", [1, 2])
def test_one_network_call_and_one_vjp_a_step(path, parameterization, order):
    prior = Counting(smooth_mixture(path, parameterization))
    operator = BicubicDownsampling(4)
    y, noise = problem(prior.prior, operator)
    result = Conjugate(steps=7, t_start=0.4, order=order).sample(prior, operator, y, noise)
    assert (prior.calls, prior.backward, result.nfe) == (7, 7, 7)
    assert result.trajectory is None
    assert not result.image.requires_grad
    assert result.image.isfinite().all()


BICUBIC, BOX = BicubicDownsampling(4), Inpainting(Box(4))


@cache
def guided_ode(path: GaussianPath, operator: Operator, schedule: Schedule, w: float) -> Tensor:
    """`problem`'s guided ODE from progress 0.4 to 0.95, integrated to 1e-9 by torchdiffeq: what every sampler must approach.

    The mixture's network is exact under every parameterization, so that they all have this one answer.
    """
    parameterization = Sample()
    prior = smooth_mixture(path, parameterization)
    y, noise = problem(prior, operator)
    pinv_y = operator.pinv(y)
    times = Grid(1, 0.4, 0.95).times(path)
    start = path.alpha(times[0]) * pinv_y + path.sigma(times[0]) * noise

    def velocity(t: Tensor, x: Tensor) -> Tensor:
        s, o = parameterization.coefficients(path, t)
        p, q = parameterization.drift(path, t)
        with torch.enable_grad():
            x = x.detach().requires_grad_()
            network = prior(x, t.expand(x.shape[0]))
        residual = pinv_y - operator.project(s * x.detach() + o * network.detach())
        (vjp,) = torch.autograd.grad(network, x, residual)
        return p * x.detach() + q * network.detach() + gamma(schedule, w, path, t) * (s * residual + o * vjp)

    return odeint(velocity, start, times, rtol=1e-9, atol=1e-9)[-1]


@pytest.mark.parametrize(("path", "parameterization"), SETTINGS)
@pytest.mark.parametrize("schedule", ["alpha2", "constant", "inverse_variance"])
def test_converges_to_the_guided_ode(path, parameterization, schedule):
    prior, exact = smooth_mixture(path, parameterization), guided_ode(path, BOX, schedule, 2.0)
    y, noise = problem(prior, BOX)
    errors = []
    for steps in (20, 160):
        sampler = Conjugate(steps, guidance=2.0, lam=0.3, t_start=0.4, t_end=0.95, schedule=schedule)
        errors.append(relative(sampler.sample(prior, BOX, y, noise).image, exact))
    assert errors[1] < 0.02
    assert errors[1] < errors[0] / 3  # first order, eight times the steps; the grid is still coarse for the stiffest


@pytest.mark.parametrize(("path", "parameterization"), SETTINGS[:4])
def test_second_order_converges_at_second_order(path, parameterization):
    prior, exact = smooth_mixture(path, parameterization), guided_ode(path, BICUBIC, "alpha2", 2.0)
    y, noise = problem(prior, BICUBIC)
    errors = []
    for steps in (40, 160):
        sampler = Conjugate(steps, guidance=2.0, lam=0.3, t_start=0.4, t_end=0.95, order=2)
        errors.append(relative(sampler.sample(prior, BICUBIC, y, noise).image, exact))
    order = torch.log(torch.tensor(errors[0] / errors[1])) / torch.log(torch.tensor(4.0))
    assert order > 1.8


def test_without_guidance_it_is_ddim(golden):
    (case,) = cases(golden, "cpgdm__bicubic4__w15*")
    prior, path = case.prior, case.prior.path
    result = Conjugate(steps=5, guidance=0.0).sample(prior, case.operator, case.y, case.noises[0])
    times = Grid(5, 0.6, None).times(path)
    alpha, sigma = path.alpha(times), path.sigma(times)
    x = alpha[0] * case.operator.pinv(case.y) + sigma[0] * case.noises[0]
    for n in range(5):
        epsilon = prior(x, times[n].expand(x.shape[0]))
        x_0 = (x - sigma[n] * epsilon) / alpha[n]
        x = alpha[n + 1] * x_0 + sigma[n + 1] * epsilon
    torch.testing.assert_close(result.image, x, rtol=1e-10, atol=1e-10)


def test_tables_are_computed_once_and_go_with_the_settings():
    prior, operator = smooth_mixture(VPPath(), Epsilon()), BicubicDownsampling(4)
    y, noise = problem(prior, operator)
    sampler = Conjugate()
    sampler.sample(prior, operator, y, noise)
    made = conjugate_table.cache_info().misses
    sampler.sample(prior, operator, y[:1], noise[:1])
    assert conjugate_table.cache_info().misses == made
    more = replace(sampler, steps=10).sample(prior, operator, y, noise)
    assert more.nfe == 10
    torch.testing.assert_close(more.image, Conjugate(10).sample(prior, operator, y, noise).image, rtol=0, atol=0)
    with pytest.raises(FrozenInstanceError):
        sampler.steps = 10


def test_tables_are_bounded_and_hold_no_operator():
    prior = smooth_mixture(VPPath(), Epsilon())
    for _ in range(20):
        operator = BicubicDownsampling(4)
        y, noise = problem(prior, operator)
        Conjugate(1).sample(prior, operator, y, noise, noise_std=0.1)
    gone = weakref.ref(operator)
    del operator
    gc.collect()
    assert gone() is None
    assert conjugate_table.cache_info().currsize <= 16


def test_trajectory_is_kept_where_asked_for():
    prior, operator = smooth_mixture(VPPath(), Epsilon()), BicubicDownsampling(4)
    y, noise = problem(prior, operator)
    result = Conjugate(steps=4).sample(prior, operator, y, noise, keep_trajectory=True)
    assert result.trajectory is not None
    assert len(result.trajectory) == 4
    assert result.trajectory[-1] is result.image


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"steps": 0}, "steps must be at least 1, got 0"),
        ({"t_start": 1.0}, "0 <= t_start < t_end <= 1, got t_start=1.0"),
        ({"t_start": 0.9, "t_end": 0.5}, "0 <= t_start < t_end <= 1"),
        ({"guidance": -1.0}, "guidance is a weight >= 0, got -1.0"),
        ({"schedule": "beta"}, "Unknown guidance schedule 'beta': choose one of alpha2"),
        ({"timesteps": "cosine"}, "Unknown spacing of time steps 'cosine': choose one of uniform"),
        ({"order": 3}, r"order is 1 \(Euler\) or 2"),
        ({"guidance": float("nan")}, "guidance of Conjugate is a finite number, got nan"),
        ({"jacobian": "jvp"}, "jacobian is vjp or none, got 'jvp'"),
        ({"churn": -0.1}, "churn is a number >= 0"),
        ({"churn": 0.1, "order": 2}, "0 unless order is 1; got churn=0.1 and order=2"),
    ],
)
def test_bad_settings_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        Conjugate(**arguments)


def test_without_the_jacobian_no_graph_is_made_and_the_ode_without_it_is_met():
    path, parameterization = OTPath(), Velocity()
    prior, operator = smooth_mixture(path, parameterization), Inpainting(Box(4))
    y, noise = problem(prior, operator)
    with torch.inference_mode():
        result = Conjugate(6, 2.0, t_start=0.4, jacobian="none").sample(LeafPrior(prior), operator, y, noise)
    assert result.nfe == 6
    times = Grid(80, 0.4, 0.95).times(path)
    pinv_y = operator.pinv(y)

    def velocity(t: Tensor, x: Tensor) -> Tensor:
        s, o = parameterization.coefficients(path, t)
        p, q = parameterization.drift(path, t)
        network = prior(x, t.expand(x.shape[0]))
        return p * x + q * network + gamma("alpha2", 2.0, path, t) * s * (pinv_y - operator.project(s * x + o * network))

    start = path.alpha(times[0]) * pinv_y + path.sigma(times[0]) * noise
    exact = odeint(velocity, start, times[[0, -1]], rtol=1e-9, atol=1e-9)[-1]
    sampler = Conjugate(80, 2.0, t_start=0.4, t_end=0.95, order=2, jacobian="none")
    assert relative(sampler.sample(prior, operator, y, noise).image, exact) < 1e-3


class LeafPrior(Prior):
    """Refuses to be called where a graph would be made."""

    def __init__(self, prior: Prior) -> None:
        super().__init__(prior.path, prior.parameterization)
        self.prior, self.channels = prior, prior.channels

    def forward(self, x_t: Tensor, t: Tensor) -> Tensor:
        assert not torch.is_grad_enabled()
        return self.prior(x_t, t)


@pytest.mark.parametrize(("path", "parameterization"), [(VPPath(), Epsilon()), (OTPath(), Velocity())])
def test_churn_keeps_the_priors_distribution(path, parameterization):
    """Unguided and from pure noise, a Gaussian prior is sampled with the right variance, with fresh noise in every step."""
    variance = 0.3
    prior = GaussianMixture(torch.zeros(1, 1, 8, 8), torch.tensor([variance]), path=path, parameterization=parameterization)
    operator = Inpainting(Box(4))
    noise = torch.randn(32, 1, 8, 8, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    y = torch.zeros_like(noise)
    plain = Conjugate(120, 0.0, t_start=0.05, timesteps="logsnr")
    churned = Conjugate(120, 0.0, t_start=0.05, timesteps="logsnr", churn=0.025)
    before, after = (sampler.sample(prior, operator, y, noise).image for sampler in (plain, churned))
    assert relative(after, before) > 0.3  # most of the initial noise is forgotten
    assert float(after.var()) == pytest.approx(variance, rel=0.08)  # Euler's error with 120 steps is 0.05


def test_churn_draws_from_each_images_generator():
    prior, operator = smooth_mixture(VPPath(), Epsilon()), BicubicDownsampling(4)
    y, noise = problem(prior, operator)
    sampler = Conjugate(4, churn=0.3)
    both = sampler.sample(prior, operator, y, noise, generators=[torch.Generator().manual_seed(k) for k in (5, 6)]).image
    last = sampler.sample(prior, operator, y[1:], noise[1:], generators=[torch.Generator().manual_seed(6)]).image
    torch.testing.assert_close(both[1:], last)
