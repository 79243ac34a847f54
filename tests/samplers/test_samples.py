"""Several samples of each measurement, from Python."""

import warnings
from dataclasses import dataclass

import pytest
import torch

from cclight.operators.pixelwise import AveragePooling
from cclight.priors.mixture import GaussianMixture
from cclight.samplers.base import Sampler
from cclight.samplers.conjugate import Conjugate
from cclight.samplers.ddrm import DDRM


@pytest.fixture(scope="module")
def problem():
    g = torch.Generator().manual_seed(0)
    prior = GaussianMixture(torch.randn(3, 1, 4, 4, generator=g) / 2, torch.full((3,), 0.1), torch.full((3,), 1 / 3))
    operator = AveragePooling(2)
    return prior, operator, operator(torch.randn(2, 1, 4, 4, generator=g) / 2)


@pytest.mark.parametrize("sampler", [Conjugate(steps=3), DDRM(steps=4, eta=0.5)], ids=lambda one: type(one).__name__)
def test_the_first_sample_is_the_restoration_and_the_others_do_not_depend_on_their_number(problem, sampler):
    three, two = (sampler.sample(*problem, samples=count, seed=5) for count in (3, 2))
    assert three.image.shape == (3, 2, 1, 4, 4)
    assert torch.equal(three.image[0], sampler.sample(*problem, seed=5).image)
    assert torch.equal(three.image[:2], two.image)
    assert three.image.std(0).min() > 0
    assert three.nfe == two.nfe == sampler.sample(*problem).nfe


def test_an_image_has_the_samples_that_it_has_alone(problem):
    prior, operator, y = problem
    together = Conjugate(steps=3).sample(prior, operator, y, samples=3).image
    alone = Conjugate(steps=3).sample(prior, operator, y[:1], samples=3).image
    torch.testing.assert_close(together[:, :1], alone, rtol=1e-5, atol=1e-6)


def test_the_trajectory_has_the_form_of_the_images(problem):
    kept = Conjugate(steps=3).sample(*problem, samples=2, keep_trajectory=True)
    assert [state.shape for state in kept.trajectory] == [(2, 2, 1, 4, 4)] * 3
    assert torch.equal(kept.trajectory[-1], kept.image)
    assert Conjugate(steps=3).sample(*problem, samples=2).trajectory is None


@pytest.mark.parametrize("samples", [0, -1, 1025])
def test_no_such_number_of_samples(problem, samples):
    with pytest.raises(ValueError, match=f"from 1 to 1024 times, got {samples}"):
        Conjugate(steps=2).sample(*problem, samples=samples)


@pytest.mark.parametrize("given", [{"noise": torch.zeros(2, 1, 4, 4)}, {"generators": [torch.Generator()] * 2}])
def test_noise_and_a_number_of_samples_are_two_answers(problem, given):
    with pytest.raises(ValueError, match="leave noise and generators out"):
        Conjugate(steps=2).sample(*problem, samples=2, **given)


@dataclass(frozen=True)
class Deaf(Sampler):
    """Begins with the pseudoinverse and nothing else."""

    steps: int = 1

    def begin(self, problem):
        return problem.pinv_y

    def step(self, problem, n, state):
        return problem.denoise(state, problem.times[n])


def test_samples_that_are_copies_are_told_of(problem):
    with pytest.warns(UserWarning, match="Deaf makes the same restoration of every noise, its samples are copies"):
        Deaf().sample(*problem, samples=2)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        Deaf().sample(*problem, samples=1)
        Conjugate(steps=2).sample(*problem, samples=2)
