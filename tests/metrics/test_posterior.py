"""The estimators of many answers: closed forms, exact posteriors of mixtures, and that each can fail."""

import math

import numpy as np
import pytest
import torch

from cclight import AveragePooling, GaussianMixture
from cclight.metrics.image import PSNR
from cclight.metrics.posterior import LEVELS, POSTERIOR, best_and_mean, evidence, posterior_metrics


def drawn(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def ideal(count, pixels=200_000, spread=1.0, shift=0.0):
    """A truth and samples of one normal distribution for each pixel; the samples `spread` times as wide and shifted."""
    means, noise = 3 * drawn(pixels, seed=1), drawn(count + 1, pixels, seed=2)
    return means + shift + spread * noise[:-1], means + noise[-1]


class TestClosedForms:
    samples = torch.tensor([[0.0, 1.0], [1.0, 1.0], [5.0, 4.0]])
    truth = torch.tensor([2.0, 1.0])

    def test_the_sums_of_two_pixels(self):
        found = evidence(self.samples, self.truth, 10)
        assert found.error == pytest.approx(0 + 1)  # means 2 and 2
        assert found.variance == pytest.approx(7 + 3)
        assert found.spread_error == pytest.approx(4 / 3 * 10)
        assert found.diversity == pytest.approx(math.sqrt(2 * 5) / 10)
        assert found.mean_psnr == pytest.approx(10 * math.log10(100 / 0.5))
        # (2+1+3)/3 - (1+5+4)/(3·2) and (0+0+3)/3 - (0+3+3)/(3·2), over two pixels and the range
        assert found.score == pytest.approx((2 - 10 / 6 + 1 - 1) / 2 / 10)
        # rank 2 of the first pixel; the second truth equals two samples and has ranks 0, 1, 2 alike
        assert found.ranks == pytest.approx((1 / 3, 1 / 3, 4 / 3, 0))

    def test_diversity_is_the_distance_of_pairs(self):
        x = drawn(5, 3, 4, 4)
        pairs = [(x[j] - x[k]).square().mean() for j in range(5) for k in range(j)]
        assert evidence(x, x[0], 2).diversity == pytest.approx(float(torch.stack(pairs).mean().sqrt()) / 2)

    def test_crps_is_the_fair_double_sum(self):
        x, truth = drawn(6, 40), drawn(40, seed=3)
        distances = (x[:, None] - x[None]).abs().sum((0, 1)) / (2 * 6 * 5)
        assert evidence(x, truth, 2).score == pytest.approx(float(((x - truth).abs().mean(0) - distances).mean()) / 2)

    def test_mean_psnr_is_the_metrics(self):
        x, truth = (drawn(4, 3, 16, 16) / 8).clamp(-1, 1), (drawn(3, 16, 16, seed=4) / 8).clamp(-1, 1)
        expected = float(PSNR()(x.mean(0)[None], truth[None]))
        assert evidence(x, truth, 2).mean_psnr == pytest.approx(expected, abs=1e-4)
        assert evidence(truth.expand(2, -1, -1, -1), truth, 2).mean_psnr == 100

    def test_coverage_of_a_rank_is_its_share_of_the_central_band(self):
        middle = evidence(torch.tensor([[0.0], [2.0]]), torch.tensor([1.0]), 2)  # rank 1 of 0, 1, 2
        assert [middle.coverage(level) for level in (0, 1 / 6, 1 / 3, 0.9, 1)] == pytest.approx([0, 0.5, 1, 1, 1])
        outside = evidence(torch.tensor([[0.0], [2.0]]), torch.tensor([3.0]), 2)
        assert [outside.coverage(level) for level in (1 / 3, 2 / 3, 1)] == pytest.approx([0, 0.5, 1])

    def test_what_the_measurement_tells_is_left_out_of_ranks(self):
        x, truth = drawn(4, 50), drawn(50, seed=5)
        x[:, 10:] = truth[10:] + 1e-6 * drawn(4, 40, seed=6)  # float32's rounding
        assert sum(evidence(x, truth, 2).ranks) == pytest.approx(10)
        told = evidence(x[:, 10:], truth[10:], 2)
        assert math.isnan(told.coverage(0.5))

    def test_nothing_to_divide(self):
        truth = drawn(8)
        assert math.isnan(evidence(truth.expand(3, -1), truth, 2).spread_error)
        assert math.isinf(evidence(torch.tensor([[-1.0], [1.0]]), torch.zeros(1), 2).spread_error)

    def test_the_best_of_k_beside_their_mean(self):
        assert vars(best_and_mean([20.0, 24.0, 22.0], "higher")) == {"best": 24, "mean": 22}
        assert vars(best_and_mean(torch.tensor([0.5, 0.25]), "lower")) == {"best": 0.25, "mean": 0.375}


@pytest.mark.parametrize("count", [2, 4, 8])
class TestIdealSamples:
    """The statistical error of each number is about n^-1/2 over 200,000 pixels; the tolerances are four of them."""

    def test_reach_the_ideal(self, count):
        found = evidence(*ideal(count), 2)
        assert found.spread_error == pytest.approx(1, abs=0.02)
        assert found.reliability().actual == pytest.approx(LEVELS, abs=0.005)
        assert found.reliability().calibration_error < 0.005
        assert found.diversity == pytest.approx(math.sqrt(2) / 2, rel=0.01)
        assert found.score == pytest.approx(1 / math.sqrt(math.pi) / 2, abs=0.004)  # E|x - y| / 2 of two standard normals

    def test_without_the_correction_they_would_not(self, count):
        found = evidence(*ideal(count), 2)
        assert found.variance / found.error < 1 - 0.5 / count

    def test_too_narrow_too_wide_and_shifted(self, count):
        right, narrow, wide, off = (
            evidence(*ideal(count, **settings), 2) for settings in ({}, {"spread": 0.5}, {"spread": 2.0}, {"shift": 1.0})
        )
        assert narrow.spread_error == pytest.approx((1 + 1 / count) * 0.25 / (1 + 0.25 / count), rel=0.02)
        assert wide.spread_error == pytest.approx((1 + 1 / count) * 4 / (1 + 4 / count), rel=0.02)
        assert narrow.diversity < right.diversity < wide.diversity
        for level in (0.5, 0.9):
            assert narrow.coverage(level) < right.coverage(level) - 0.01
            assert wide.coverage(level) > right.coverage(level) + 0.01
            assert off.coverage(level) < right.coverage(level) - 0.01
        for wrong in (narrow, wide, off):
            assert wrong.reliability().calibration_error > 0.01
            assert wrong.score > right.score + 0.005  # proper: the truth's own distribution is best
        assert off.mean_psnr < right.mean_psnr

    def test_rounding_to_few_values_leaves_them_ideal(self, count):
        x, truth = ideal(count)
        found = evidence(x.round(), truth.round(), 2)
        assert found.spread_error == pytest.approx(1, abs=0.02)
        assert found.reliability().actual == pytest.approx(LEVELS, abs=0.005)


@pytest.mark.parametrize("count", [2, 8])
def test_exact_posterior_samples_of_a_mixture_are_ideal(count):
    g = torch.Generator().manual_seed(0)
    prior = GaussianMixture(drawn(3, 1, 4, 4), 0.05 + drawn(3, 16, seed=8).square(), image_shape=(1, 4, 4))
    operator, noise_std = AveragePooling(2), 0.1
    truth = prior.sample(4000, g)
    y = operator(truth)
    posterior = prior.posterior(operator, y + noise_std * torch.randn(y.shape, generator=g, dtype=y.dtype), noise_std)
    samples = posterior.sample(count, g).movedim(1, 0)
    found = evidence(samples, truth, 2)  # all images at once: 64,000 numbers of 4000 independent posteriors
    variance = float(torch.diagonal(posterior.covariance, dim1=1, dim2=2).mean())
    assert found.variance / found.pixels == pytest.approx(variance, rel=0.03)
    assert found.diversity == pytest.approx(math.sqrt(2 * variance) / 2, rel=0.015)
    assert found.spread_error == pytest.approx(1, abs=0.04)
    assert found.reliability().actual == pytest.approx(LEVELS, abs=0.01)
    pairs = (posterior.sample(1, g)[:, 0] - posterior.sample(1, g)[:, 0]).abs().mean() / 2
    assert found.score == pytest.approx(float(pairs) / 2, abs=0.01)  # the least CRPS: half the distance of two samples

    unconditional = evidence(prior.sample(4000 * count, g).view(samples.shape), truth, 2)
    assert unconditional.score > 1.1 * found.score
    mean = posterior.mean + (samples - posterior.mean) / 2
    assert evidence(mean, truth, 2).spread_error < 0.5


def test_chunks_and_memory_maps_change_nothing(tmp_path, monkeypatch):
    x, truth = drawn(4, 3, 8, 10), drawn(3, 8, 10, seed=7)
    whole = evidence(x, truth, 2)
    np.save(tmp_path / "samples.npy", x.numpy())
    mapped = np.load(tmp_path / "samples.npy", mmap_mode="r")
    monkeypatch.setattr("cclight.metrics.posterior._CHUNK", 64)
    for samples, clean in ((x, truth), (mapped, truth.numpy())):
        parts = evidence(samples, clean, 2)
        assert parts.as_dict() == pytest.approx(whole.as_dict())
        assert parts.ranks == pytest.approx(whole.ranks)
    assert evidence(x.float(), truth.float(), 2).as_dict() == pytest.approx(whole.as_dict(), rel=1e-5)


def test_images_are_pooled_before_they_are_divided():
    images = [ideal(4, 3, spread=1.0) for _ in range(1)] + [(drawn(4, 9, seed=s), drawn(9, seed=90 + s)) for s in range(2)]
    pooled = sum((evidence(*image, 2) for image in images[1:]), evidence(*images[0], 2))
    together = evidence(torch.cat([x for x, _ in images], 1), torch.cat([t for _, t in images]), 2)
    assert pooled.as_dict() == pytest.approx(together.as_dict())
    with pytest.raises(ValueError, match="3 samples on a range of 2 do not add up with 4 on 2"):
        _ = evidence(drawn(3, 9), drawn(9), 2) + pooled


def test_every_number_is_declared():
    found = posterior_metrics(drawn(3, 2, 5), drawn(2, 5), 2)
    assert list(found) == [quantity.name for quantity in POSTERIOR]
    for quantity in POSTERIOR:
        assert quantity.range[0] <= found[quantity.name] <= quantity.range[1]


@pytest.mark.parametrize(
    ("samples", "truth", "data_range", "message"),
    [
        (torch.zeros(1, 4), torch.zeros(4), 2, "need samples >= 2 of each measurement, got 1: --samples 8"),
        (torch.zeros(3, 4), torch.zeros(5), 2, r"3 samples of shape \(4,\) and a truth of shape \(5,\)"),
        (torch.zeros(3, 4), torch.zeros(4), 0, "largest value less the smallest one, got 0"),
        (torch.full((3, 4), math.nan), torch.zeros(4), 2, "hold NaN or infinity"),
        (torch.zeros(3, 0), torch.zeros(0), 2, "has no pixels"),
    ],
)
def test_bad_input(samples, truth, data_range, message):
    with pytest.raises(ValueError, match=message):
        posterior_metrics(samples, truth, data_range)


def test_bad_levels_and_no_values():
    with pytest.raises(ValueError, match=r"probability, got 1\.5"):
        evidence(drawn(2, 3), drawn(3), 2).coverage(1.5)
    with pytest.raises(ValueError, match="no samples"):
        best_and_mean([], "higher")
