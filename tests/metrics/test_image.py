import math
import statistics
import urllib.request
from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter
from skimage.metrics import normalized_root_mse, peak_signal_noise_ratio

from cclight.data.units import Units
from cclight.errors import one_line
from cclight.metrics.gather import gather
from cclight.metrics.image import LPIPS, MSSSIM, NRMSE, PSNR, SSIM, array_metrics, default_metrics
from cclight.metrics.quantity import CONSISTENCY, NFE, SECONDS, Unavailable
from cclight.metrics.summary import bootstrap_interval, summarize
from tests.conftest import SHARED


@pytest.fixture
def torch_home(monkeypatch):
    """SqueezeNet's genuine weights."""
    home = SHARED / "data" / "torch_home"
    if not home.is_dir():
        pytest.skip("needs shared/data/torch_home beside the repository, with SqueezeNet's weights")
    monkeypatch.setenv("TORCH_HOME", str(home))


@pytest.fixture
def no_network(monkeypatch):
    """Every download goes to a port on which nobody listens."""
    for name in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    for name in ("no_proxy", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(urllib.request, "_opener", None)  # urllib keeps the proxies of its first call


def pair(size=(3, 3, 192, 180), noise=0.2, seed=0, dtype=torch.float32):
    """A smooth clean batch and a noisy copy, each image noisier than the one before."""
    g = torch.Generator().manual_seed(seed)
    coarse = torch.rand(size[0], size[1], 6, 5, generator=g) * 2 - 1
    clean = torch.nn.functional.interpolate(coarse, size=size[2:], mode="bilinear")
    scale = noise * torch.arange(1, size[0] + 1).view(-1, 1, 1, 1)
    return (clean + scale * torch.randn(size, generator=g)).to(dtype), clean.to(dtype)


# LPIPS draws its weights from disk, so that it has tests of its own as well.
EVERY = [PSNR(), SSIM(), MSSSIM(), LPIPS("squeeze")]


@pytest.mark.parametrize("metric", EVERY, ids=lambda metric: metric.quantity.name)
class TestEveryImageMetric:
    @pytest.fixture(autouse=True)
    def weights(self, some_torch_home, monkeypatch):
        monkeypatch.setenv("TORCH_HOME", str(some_torch_home))

    def test_falls_in_its_declared_direction(self, metric):
        values = metric(*pair()).tolist()
        best_first = sorted(values, reverse=metric.quantity.direction == "higher")
        assert values == best_first
        assert len(set(values)) == 3

    def test_keeps_its_declared_range(self, metric):
        low, high = metric.quantity.range
        restored, clean = pair()
        for image in (restored, clean, -clean):
            values = metric(image, clean)
            assert values.shape == (3,)
            assert (values >= low).all()
            assert (values <= high + 1e-6).all()

    def test_knows_an_image_from_its_batch_by_nothing(self, metric):
        restored, clean = pair()
        together = metric(restored, clean)
        alone = torch.cat([metric(restored[i : i + 1], clean[i : i + 1]) for i in range(3)])
        assert torch.allclose(together, alone, rtol=0, atol=1e-6)

    def test_clamps(self, metric):
        restored, clean = pair(noise=1.0)
        assert restored.abs().max() > 1
        assert torch.equal(metric(restored, clean), metric(restored.clamp(-1, 1), clean))

    def test_takes_half_precision_and_gives_float64(self, metric):
        restored, clean = pair(dtype=torch.bfloat16)
        value = metric(restored, clean)
        assert value.dtype == torch.float64
        assert torch.equal(value, metric(restored.float(), clean.float()))

    def test_takes_grey_images(self, metric):
        assert metric(*pair(size=(2, 1, 192, 180))).isfinite().all()


class TestPSNR:
    def test_closed_form(self):
        x = torch.zeros(2, 3, 8, 8)
        error = torch.tensor([0.125, 0.5]).view(2, 1, 1, 1)
        expected = [10 * math.log10(4 / 0.125**2), 10 * math.log10(4 / 0.5**2)]
        assert PSNR()(x + error, x).tolist() == pytest.approx(expected, rel=1e-7)  # torchmetrics' ln 10 is a float32

    def test_identical_images_stay_finite(self):
        x = torch.zeros(1, 3, 8, 8)
        assert PSNR()(x, x).tolist() == [100]

    def test_the_mean_of_images_is_not_that_of_the_pooled_error(self):
        x = torch.zeros(2, 3, 8, 8)
        values = PSNR()(x + torch.tensor([0.01, 1.0]).view(2, 1, 1, 1), x)
        summary = summarize(PSNR.quantity, dict(enumerate(values.tolist())), 2)
        assert summary.mean == pytest.approx((10 * math.log10(4e4) + 10 * math.log10(4)) / 2, abs=1e-5)


def ssim_by_scipy(x, y):
    """The definition, on [0, 1], borders reflected."""

    def mean(z):
        return gaussian_filter(z, sigma=1.5, truncate=3.5, mode="mirror")

    covariance = mean(x * y) - mean(x) * mean(y)
    variances = mean(x * x) - mean(x) ** 2 + mean(y * y) - mean(y) ** 2
    luminance = (2 * mean(x) * mean(y) + 0.01**2) / (mean(x) ** 2 + mean(y) ** 2 + 0.01**2)
    return (luminance * (2 * covariance + 0.03**2) / (variances + 0.03**2)).mean()


class TestSSIM:
    def test_agrees_with_its_definition_on_zero_to_one(self):
        restored, clean = pair(size=(2, 3, 40, 33))
        unit = [((image.clamp(-1, 1) + 1) / 2).double().numpy() for image in (restored, clean)]
        expected = [sum(ssim_by_scipy(unit[0][i, c], unit[1][i, c]) for c in range(3)) / 3 for i in range(2)]
        assert SSIM()(restored, clean).tolist() == pytest.approx(expected, abs=1e-5)

    def test_small_images_are_refused(self):
        with pytest.raises(Unavailable, match="sides of 11 pixels or more, the images are 10×12"):
            SSIM()(*pair(size=(1, 3, 10, 12)))


def values_of(shape, units, seed=0):
    """Restored and clean values of arrays, and the images that they are to a prior."""
    draw = torch.Generator().manual_seed(seed)
    clean = units.values(1.4 * torch.rand(2, *shape, generator=draw) - 0.6)
    restored = clean + 0.1 * units.scale * torch.tensor([1.0, 3.0]).view(-1, *[1] * len(shape)) * torch.randn(
        2, *shape, generator=draw
    )
    return restored.double().numpy(), clean.double().numpy(), units.image(restored), units.image(clean)


UNITS = {"hounsfield": Units(1000, 2000), "mean and std": Units(-3, 0.5, ranged=False), "the prior's": Units()}


@pytest.mark.parametrize("units", UNITS.values(), ids=UNITS)
@pytest.mark.parametrize("shape", [(2, 40), (1, 14, 15), (5, 12, 13), (1, 11, 12, 13)], ids=str)
class TestArrays:
    """Against scikit-image and scipy, on the numbers as they are stored."""

    def test_nrmse_is_the_relative_error_in_the_datas_units(self, shape, units):
        restored, clean, *images = values_of(shape, units)
        expected = [normalized_root_mse(b, a, normalization="euclidean") for a, b in zip(restored, clean, strict=True)]
        assert NRMSE()(*images, units).tolist() == pytest.approx(expected, rel=1e-4)

    def test_psnr_is_on_the_range_of_the_values(self, shape, units):
        restored, clean, *images = values_of(shape, units)
        spans = [2 * units.scale if units.ranged else np.ptp(b) for b in clean]
        expected = [peak_signal_noise_ratio(b, a, data_range=r) for a, b, r in zip(restored, clean, spans, strict=True)]
        assert PSNR()(*images, units).tolist() == pytest.approx(expected, rel=1e-4)

    def test_ssim_is_on_the_range_of_the_values(self, shape, units):
        restored, clean, *images = values_of(shape, units)
        if len(shape) == 2:
            with pytest.raises(Unavailable, match=r"not on arrays of 1 sides \(40\)"):
                SSIM()(*images, units)
            return
        low = units.centre - units.scale if units.ranged else clean.reshape(2, -1).min(1).reshape(2, *[1] * len(shape))
        span = 2 * units.scale if units.ranged else np.ptp(clean.reshape(2, -1), 1).reshape(2, *[1] * len(shape))
        a, b = (restored - low) / span, (clean - low) / span
        expected = [np.mean([ssim_by_scipy(a[i, c], b[i, c]) for c in range(shape[0])]) for i in range(2)]
        assert SSIM()(*images, units).tolist() == pytest.approx(expected, abs=2e-5)

    def test_nothing_is_clamped_unless_values_end(self, shape, units):
        _, _, restored, clean = values_of(shape, units)
        far = restored * 3
        ends = replace(units, ranged=True, ends=True)
        assert (NRMSE()(far, clean, ends) < NRMSE()(far, clean, units)).all()
        assert torch.equal(NRMSE()(far, clean, ends), NRMSE()(far.clamp(-1, 1), clean.clamp(-1, 1), ends))


def test_arrays_are_measured_by_three_metrics_and_nothing_is_relative_to_zero():
    assert [metric.quantity.name for metric in array_metrics()] == ["psnr", "nrmse", "ssim"]
    with pytest.raises(Unavailable, match="one is 0 everywhere"):
        NRMSE()(torch.ones(1, 1, 8), torch.zeros(1, 1, 8), Units())


class TestMSSSIM:
    def test_identical_images(self):
        _, clean = pair()
        assert MSSSIM()(clean, clean).tolist() == pytest.approx([1] * 3, abs=1e-6)

    def test_the_least_size_it_names_works(self):
        assert MSSSIM()(*pair(size=(1, 3, 176, 176))).isfinite().all()
        with pytest.raises(Unavailable, match="sides of 176 pixels or more, the images are 175×176"):
            MSSSIM()(*pair(size=(1, 3, 175, 176)))


class TestLPIPS:
    def test_torchmetrics_documented_values(self, torch_home):
        g = torch.Generator().manual_seed(42)
        a, b = (torch.rand(2, 3, 100, 100, generator=g) * 2 - 1 for _ in range(2))
        assert LPIPS("squeeze")(a, b).tolist() == pytest.approx([0.1024, 0.0938], abs=1e-4)

    def test_the_least_size_it_names_works(self, torch_home):
        assert LPIPS("squeeze")(*pair(size=(1, 3, 32, 32))).isfinite().all()
        with pytest.raises(Unavailable, match="sides of 32 pixels"):
            LPIPS("squeeze")(*pair(size=(1, 3, 31, 32)))

    def test_two_channels_are_refused(self, torch_home):
        with pytest.raises(Unavailable, match="1 or 3 channels, the images have 2"):
            LPIPS("squeeze")(*pair(size=(1, 2, 64, 64)))

    def test_takes_minus_one_to_one(self, some_torch_home, monkeypatch):
        """torchmetrics' default accepts [0, 1] in silence, and gives another number."""
        from torchmetrics.functional.image import learned_perceptual_image_patch_similarity as lpips

        monkeypatch.setenv("TORCH_HOME", str(some_torch_home))
        a, b = (image.clamp(-1, 1) for image in pair(size=(1, 3, 64, 64)))
        unit = [(image + 1) / 2 for image in (a, b)]
        value = LPIPS("squeeze")(a, b).item()
        assert value == pytest.approx(lpips(*unit, net_type="squeeze", normalize=True).item(), rel=1e-5)
        assert value != pytest.approx(lpips(*unit, net_type="squeeze").item(), rel=0.1)

    @pytest.mark.parametrize(
        ("net", "file"),
        [("alex", "alexnet-owt-7be5be79.pth"), ("vgg", "vgg16-397923af.pth"), ("squeeze", "squeezenet1_1-b8a52dc0.pth")],
    )
    def test_missing_weights_name_the_remedy(self, tmp_path, monkeypatch, no_network, net, file):
        monkeypatch.setenv("TORCH_HOME", str(tmp_path))
        with pytest.raises(Unavailable) as caught:
            LPIPS(net).prepare(torch.device("cpu"))
        message = str(caught.value)
        assert "\n" not in message
        assert f"the {net} weights could not be loaded" in message
        assert f"https://download.pytorch.org/models/{file} in {tmp_path}/hub/checkpoints" in message

    @pytest.mark.parametrize("content", [b"", b"PK\x03\x04 half a file", b"<html>404</html>"])
    def test_a_broken_file_is_unavailable_too(self, tmp_path, monkeypatch, content):
        folder = tmp_path / "hub" / "checkpoints"
        folder.mkdir(parents=True)
        (folder / "squeezenet1_1-b8a52dc0.pth").write_bytes(content)
        monkeypatch.setenv("TORCH_HOME", str(tmp_path))
        with pytest.raises(Unavailable, match="could not be loaded"):
            LPIPS("squeeze").prepare(torch.device("cpu"))

    def test_an_unknown_net_is_refused(self):
        with pytest.raises(ValueError, match="no net 'resnet': choose one of alex, vgg, squeeze"):
            LPIPS("resnet")


class TestQuantities:
    def test_all_say_what_they_are(self):
        quantities = [*(metric.quantity for metric in default_metrics()), CONSISTENCY, NFE, SECONDS]
        assert len({q.name for q in quantities}) == len(quantities)
        for q in quantities:
            assert q.direction in ("higher", "lower")
            assert q.range[0] < q.range[1]
            assert "mean over images" in q.measures


class TestBootstrap:
    def test_agrees_with_the_normal_interval(self):
        sample = torch.randn(400, generator=torch.Generator().manual_seed(0)).double().tolist()
        low, high = bootstrap_interval(sample)
        half = 1.96 * statistics.stdev(sample) / 20
        assert low == pytest.approx(statistics.mean(sample) - half, abs=0.1 * half)
        assert high == pytest.approx(statistics.mean(sample) + half, abs=0.1 * half)

    def test_depends_on_nothing_but_its_seed(self):
        sample = [1.0, 2.0, 5.0, 7.0, 11.0]
        torch.manual_seed(1)
        first = bootstrap_interval(sample, seed=3)
        torch.manual_seed(2)
        assert bootstrap_interval(sample, seed=3) == first
        assert bootstrap_interval(sample, seed=4) != first

    def test_one_image_has_no_interval(self):
        assert bootstrap_interval([1.0]) is None
        assert bootstrap_interval([]) is None


class TestSummarize:
    def test_does_not_depend_on_the_order(self):
        values = {i: math.sin(i) for i in range(50)}
        backwards = dict(reversed(values.items()))
        assert summarize(CONSISTENCY, values, 50) == summarize(CONSISTENCY, backwards, 50)

    def test_a_part_of_the_images_is_no_mean(self):
        summary = summarize(CONSISTENCY, {0: 1.0, 2: 3.0}, 3)
        assert summary.mean is None
        assert "2 of 3 images have it" in summary.unavailable
        assert summarize(CONSISTENCY, {}, 3, "no weights").unavailable == "no weights"
        assert summarize(CONSISTENCY, {}, 0).unavailable == "no images"

    def test_json_has_no_infinities(self):
        import json

        for summary in (summarize(CONSISTENCY, {0: 1.0}, 1), summarize(CONSISTENCY, {}, 1)):
            content = json.loads(json.dumps(summary.as_json(), allow_nan=False))
            assert content["direction"] == "lower"
            assert content["range"] == [0, None]
        assert "unavailable" in content


def test_gather_without_a_process_group():
    assert gather({"a": 1}) == [{"a": 1}]


def test_one_line():
    assert one_line(ValueError("a\n  b")) == "a b"
    assert one_line(ValueError()) == "ValueError"
    assert len(one_line(ValueError("x" * 1000))) == 160
    words = one_line(ValueError("word " * 100))
    assert words.endswith("word...")
    assert 150 < len(words) <= 160
    assert one_line(ValueError(f"{'word ' * 20}ends. {'more ' * 20}")) == f"{'word ' * 20}ends."
