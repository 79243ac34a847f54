"""cclight/priors/guided.py: classifier-free guidance, measured on a labelled mixture where everything is known."""

from __future__ import annotations

import pytest
import torch

from cclight import (
    DDRM,
    AveragePooling,
    Conjugate,
    Epsilon,
    GaussianMixture,
    Guided,
    OTPath,
    PiGDM,
    Retimed,
    SmallPrior,
    Tiled,
    Velocity,
    VPPath,
)

# What average pooling cannot see: the two classes differ in nothing else but the third component's brightness.
CHECKER = torch.tensor([[1.0, -1.0], [-1.0, 1.0]], dtype=torch.float64).repeat(2, 2)[None]
MEANS = torch.stack([0.3 * CHECKER, -0.3 * CHECKER, 0.3 * CHECKER + 0.2])
VARIANCES = torch.full((3,), 0.04, dtype=torch.float64)
WEIGHTS = torch.tensor([0.25, 0.5, 0.25])
PATHS = [(VPPath(), Epsilon()), (OTPath(), Velocity())]


def mixture(path, parameterization, **options):
    return GaussianMixture(MEANS, VARIANCES, WEIGHTS, path, parameterization, classes=torch.tensor([0, 1, 0]), **options)


def of_class(label, path, parameterization):
    chosen = [0, 2] if label == 0 else [1]
    return GaussianMixture(MEANS[chosen], VARIANCES[chosen], WEIGHTS[chosen], path, parameterization)


def images(n, seed=0):
    return torch.randn(n, 1, 4, 4, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.mark.parametrize(("path", "parameterization"), PATHS, ids=str)
def test_a_labelled_mixture_is_the_mixture_of_that_class(path, parameterization):
    whole = mixture(path, parameterization)
    assert whole.labels == 2
    x, t = images(3), path.time(torch.tensor([0.2, 0.5, 0.9], dtype=torch.float64))
    unlabelled = GaussianMixture(MEANS, VARIANCES, WEIGHTS, path, parameterization)(x, t)
    torch.testing.assert_close(whole(x, t), unlabelled)
    torch.testing.assert_close(whole(x, t, torch.full((3,), -1)), unlabelled)
    each = torch.stack(
        [of_class(0, path, parameterization)(x, t)[0], of_class(1, path, parameterization)(x, t)[1], unlabelled[2]]
    )
    torch.testing.assert_close(whole(x, t, torch.tensor([0, 1, -1])), each)


@pytest.mark.parametrize(("path", "parameterization"), PATHS, ids=str)
def test_the_output_is_the_formula_for_each_image_and_its_label(path, parameterization):
    whole, x = mixture(path, parameterization), images(2)
    t, label = path.time(torch.tensor([0.3, 0.8], dtype=torch.float64)), torch.tensor([1, 0])
    without = whole(x, t)
    labelled = torch.stack([of_class(c, path, parameterization)(x, t)[i] for i, c in enumerate((1, 0))])
    for weight in (0.0, 1.0, 2.5):
        guided = Guided(whole, weight)
        assert guided.evaluations == 2
        torch.testing.assert_close(guided(x, t, label), without + weight * (labelled - without))
        torch.testing.assert_close(guided(x, t, torch.tensor([-1, 0]))[0], without[0])
    constant = Guided(whole, 2.5, class_label=1)
    torch.testing.assert_close(constant(x, t), Guided(whole, 2.5)(x, t, torch.tensor([1, 1])))


def test_it_is_one_doubled_call():
    class Counted(GaussianMixture):
        sizes: list[int]

        def forward(self, x_t, t, label=None):
            self.sizes.append(len(x_t))
            return super().forward(x_t, t, label)

    prior = Counted(MEANS, VARIANCES, classes=torch.tensor([0, 1, 0]))
    prior.sizes = []
    Guided(prior, 2.0, class_label=1).denoise(images(3), torch.full((3,), 0.4, dtype=torch.float64))
    assert prior.sizes == [6]


@pytest.mark.parametrize(("path", "parameterization"), PATHS, ids=str)
def test_the_conjugate_integrator_follows_the_label_as_far_as_the_weight_says(path, parameterization):
    """From measurements that say nothing of the class: half are restored to it without guidance, all with it, and further."""
    whole, operator, noise = mixture(path, parameterization), AveragePooling(2), images(200, 1)
    y = operator(whole.sample(200, torch.Generator().manual_seed(2)))
    sampler = Conjugate(10, 2.0, t_start=0.3)
    for label, sign in ((0, 1), (1, -1)):
        shares, reach = [], []
        for weight in (0.0, 0.5, 1.0, 2.0, 4.0):
            image = sampler.sample(Guided(whole, weight, label), operator, y, noise).image
            projection = sign * (image * CHECKER).mean((1, 2, 3))
            shares.append(float((projection > 0).double().mean()))
            reach.append(float(projection.mean()))
        assert 0.4 < shares[0] < 0.6
        assert 0.7 < shares[1] < 0.9
        assert shares[2:] == [1, 1, 1]
        assert reach == sorted(reach)
        assert reach[2] == pytest.approx(0.3, abs=0.03)
        exact = sampler.sample(of_class(label, path, parameterization), operator, y, noise).image
        torch.testing.assert_close(sampler.sample(Guided(whole, 1.0, label), operator, y, noise).image, exact)


@pytest.mark.parametrize(("path", "parameterization"), PATHS, ids=str)
def test_with_many_steps_it_solves_the_guided_ode(path, parameterization):
    """Under classifier-free guidance too, the conjugate integrator and plain Euler steps have one limit."""
    prior, operator, noise = Guided(mixture(path, parameterization), 2.5, class_label=0), AveragePooling(2), images(3, 1)
    y = operator(images(3, 3) / 3)
    conjugate = Conjugate(400, 2.0).sample(prior, operator, y, noise).image
    plain = PiGDM(400, 2.0, schedule="alpha2", integrator="euler").sample(prior, operator, y, noise).image
    few = Conjugate(40, 2.0).sample(prior, operator, y, noise).image
    assert float((plain - conjugate).norm() / conjugate.norm()) < 3e-3
    assert 5e-3 < float((few - conjugate).norm() / conjugate.norm()) < 5e-2


def test_it_wraps_and_is_wrapped():
    whole = mixture(VPPath(), Epsilon())
    x, t = images(2), torch.full((2,), 0.4, dtype=torch.float64)
    guided = Guided(whole, 2.0, class_label=1)
    assert Tiled(guided).evaluations == 2
    torch.testing.assert_close(Tiled(guided)(x, t), guided(x, t))
    retimed = Retimed(guided, OTPath(), Velocity())
    other = Guided(mixture(OTPath(), Velocity()), 2.0, class_label=1)
    torch.testing.assert_close(retimed.denoise(x, 1 - t), other.denoise(x, 1 - t), rtol=1e-6, atol=1e-6)
    image = DDRM(3).sample(guided, AveragePooling(2), AveragePooling(2)(x), images(2, 1)).image
    assert image.isfinite().all()


@pytest.mark.parametrize(
    ("make", "line"),
    [
        (lambda: Guided(SmallPrior(), 2.0), "needs a prior with labels, and this SmallPrior has none"),
        (lambda: Guided(Guided(mixture(VPPath(), Epsilon()), 2.0), 2.0), "knows images without a label, and Guided knows none"),
        (lambda: Guided(mixture(VPPath(), Epsilon()), float("nan")), "give a finite number"),
        (lambda: Guided(mixture(VPPath(), Epsilon()), 2.0, class_label=2), r"knows the labels 0 \.\.\. 1"),
        (lambda: Guided(mixture(VPPath(), Epsilon()), 2.0).denoise(images(1), torch.ones(1)), "needs a label per image"),
        (lambda: GaussianMixture(MEANS, VARIANCES, classes=torch.tensor([0, 2, 0])), "classes are 3 labels"),
        (lambda: GaussianMixture(MEANS, VARIANCES, classes=torch.tensor([0, 1])), "classes are 3 labels"),
    ],
)
def test_what_makes_no_sense_is_one_line(make, line):
    with pytest.raises(ValueError, match=line):
        make()
