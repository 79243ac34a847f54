import math
import pickle
import urllib.request

import numpy as np
import pytest
import torch
from torch import nn

from cclight.data.preprocessing import Preprocessing
from cclight.data.sources import ImageFolder
from cclight.metrics.fid import FID, KID, FeatureDistances, FeatureStatistics, frechet_distance, lowest_hashes, read_statistics
from cclight.metrics.inception import Inception
from cclight.metrics.quantity import Unavailable
from cclight.runs.files import write_whole
from cclight.runs.pictures import encode_picture


class Colours(nn.Module):
    """Six features: the mean and the spread of each colour."""

    def forward(self, images):
        pixels = images.double().flatten(2) / 255
        return torch.cat([pixels.mean(-1), pixels.std(-1)], dim=1).float()


def pictures(folder, count, shift=0, size=(12, 10), channels=3, seed=0):
    """PNGs of random content; returns their paths and their tensors."""
    g = torch.Generator().manual_seed(seed)
    folder.mkdir()
    paths, images = [], []
    for index in range(count):
        bright = torch.randint(20, 200, (channels, 1, 1), generator=g)
        image = (bright + torch.randint(0, 50, (channels, *size), generator=g) + shift).clamp(0, 255).to(torch.uint8)
        paths.append(folder / f"{index:05d}.png")
        write_whole(paths[-1], encode_picture(image))
        images.append(image)
    return paths, images


def distances(network=None, **options):
    distances = FeatureDistances(network or Colours(), **{"kid_subset_size": 5, "kid_subsets": 10, **options})
    distances.prepare(torch.device("cpu"))
    return distances


class Broken(nn.Module):
    """Features that are NaN for pictures of that brightness or more."""

    def __init__(self, brightness):
        super().__init__()
        self.brightness = brightness

    def forward(self, images):
        mean = images.double().flatten(1).mean(1, keepdim=True)
        return torch.where(mean >= self.brightness, torch.nan, mean).float().expand(-1, 4)


class TestStatistics:
    def features(self, n=40, d=4):
        return torch.randn(n, d, generator=torch.Generator().manual_seed(0)).double() * torch.arange(1, d + 1) + 10

    def test_agree_with_mean_and_covariance(self):
        f = self.features()
        statistics = FeatureStatistics.zeros(4, limit=100)
        for places in range(40)[:7], range(40)[7:30], range(40)[30:]:
            statistics.update(places, f[list(places)])
        assert statistics.count == 40
        assert torch.allclose(statistics.mean, f.mean(0), rtol=1e-12)
        assert torch.allclose(statistics.covariance, torch.cov(f.T), rtol=1e-10)

    def test_keep_no_more_than_the_limit_and_the_same_in_any_order(self):
        f = self.features()
        one, two = FeatureStatistics.zeros(4, limit=15), FeatureStatistics.zeros(4, limit=15)
        for place in range(40):
            one.update([place], f[place : place + 1])
        two.update(list(range(40))[::-1], f.flip(0))
        assert len(one.kept) == 15
        assert sorted(one.kept) == sorted(two.kept) == sorted(lowest_hashes(list(range(40)), 15))
        for place, feature in one.kept.items():
            assert torch.equal(feature, f[place].float())
            assert torch.equal(feature, two.kept[place])

    def test_what_is_kept_is_spread_over_all(self):
        kept = lowest_hashes(list(range(10_000)), 1000)
        assert sum(place < 5000 for place in kept) == pytest.approx(500, abs=80)


class TestFrechet:
    def test_commuting_gaussians(self):
        q, _ = torch.linalg.qr(torch.randn(5, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64))
        a, b = torch.tensor([1.0, 2, 3, 4, 5]).double(), torch.tensor([2.0, 0.5, 3, 1, 9]).double()
        mean = torch.arange(5).double()
        expected = (mean**2).sum() + ((a.sqrt() - b.sqrt()) ** 2).sum()
        value = frechet_distance(mean, q @ a.diag() @ q.T, torch.zeros(5).double(), q @ b.diag() @ q.T)
        assert value == pytest.approx(float(expected), rel=1e-12)

    def test_is_zero_for_the_same_even_where_singular(self):
        f = torch.randn(3, 20, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
        covariance = torch.cov(f.T)  # rank 2 of 20
        assert frechet_distance(f.mean(0), covariance, f.mean(0), covariance) == pytest.approx(0, abs=1e-6)


class TestDistances:
    def test_agree_with_their_definitions(self, tmp_path):
        one, a = pictures(tmp_path / "a", 9)
        two, b = pictures(tmp_path / "b", 9, shift=30, seed=1)
        fid, kid = distances(kid_subset_size=9).compute(one, two)
        f, g = (Colours()(torch.stack(images)).double() for images in (a, b))
        expected = frechet_distance(f.mean(0), torch.cov(f.T), g.mean(0), torch.cov(g.T))
        assert (fid.quantity, fid.images) == (FID, 9)
        assert fid.mean == pytest.approx(expected, rel=1e-5)

        def k(x, y):
            return (x @ y.T / 6 + 1) ** 3

        def off_diagonal(x):
            return (x.sum() - x.trace()) / (9 * 8)

        expected = off_diagonal(k(f, f)) + off_diagonal(k(g, g)) - 2 * k(f, g).mean()
        assert (kid.quantity, kid.images) == (KID, 9)
        assert kid.mean == pytest.approx(float(expected), rel=1e-4)

    def test_a_network_that_gives_no_numbers_is_refused_before_any_work(self):
        with pytest.raises(ValueError, match="Broken gives NaN or infinity on a black picture"):
            FeatureDistances(Broken(0)).prepare(torch.device("cpu"))

    def test_features_that_are_no_numbers_do_not_spoil_the_end(self, tmp_path):
        one, _ = pictures(tmp_path / "a", 3)
        measured = FeatureDistances(Broken(1))
        measured.prepare(torch.device("cpu"))
        for summary in measured.compute(one, one):
            assert summary.as_json()["unavailable"]

    def test_small_runs_take_all_images_for_a_subset(self, tmp_path):
        one, _ = pictures(tmp_path / "a", 4)
        two, _ = pictures(tmp_path / "b", 3)
        _, kid = distances(kid_subset_size=1000, kid_images=1000).compute(one, two)
        assert math.isfinite(kid.mean)

    def test_do_not_depend_on_the_size_of_neighbours(self, tmp_path):
        one, _ = pictures(tmp_path / "a", 5)
        wide, _ = pictures(tmp_path / "wide", 5, size=(20, 9))
        mixed = [path for pair in zip(one, wide, strict=True) for path in pair]
        fid, _ = distances().compute(mixed, [*one, *wide])
        assert fid.mean == pytest.approx(0, abs=1e-8)

    def test_grey_pictures_count_as_coloured_ones(self, tmp_path):
        grey, images = pictures(tmp_path / "grey", 3, channels=1)
        for index, image in enumerate(images):
            write_whole(tmp_path / f"{index}.png", encode_picture(image.expand(3, -1, -1)))
        fid, _ = distances().compute(grey, [tmp_path / f"{index}.png" for index in range(3)])
        assert fid.mean == pytest.approx(0, abs=1e-12)

    def test_a_folder_as_reference(self, tmp_path):
        one, _ = pictures(tmp_path / "a", 5)
        two, _ = pictures(tmp_path / "b", 6, shift=10)
        (tmp_path / "b" / "notes.txt").write_text("no picture")
        expected = distances().compute(one, two)
        assert distances(reference=str(tmp_path / "b")).compute(one, one) == expected

    def test_a_source_as_reference(self, tmp_path):
        """Its photographs are cut as the data's are: a folder of the same cuts gives the same distances."""
        one, _ = pictures(tmp_path / "a", 5)
        pictures(tmp_path / "photographs", 6, shift=10, size=(40, 31))
        source = ImageFolder(tmp_path / "photographs")
        (tmp_path / "cut").mkdir()
        for photo in source.shard():
            write_whole(tmp_path / "cut" / f"{photo.index}.png", encode_picture(Preprocessing((16, 16))(photo)))
        expected = distances(reference=str(tmp_path / "cut")).compute(one, [])
        assert distances(reference=source, reference_size=16).compute(one, []) == expected
        assert distances(reference=source, reference_size=None).compute(one, []) != expected
        (tmp_path / "photographs" / "00003.png").write_bytes(b"no picture")
        with pytest.warns(UserWarning, match=r"00003\.png.*left out"):
            fid, _ = distances(reference=source, reference_size=16).compute(one, [])
        assert fid.mean is not None
        (tmp_path / "none").mkdir()
        with pytest.raises(ValueError, match="finds no avif/bmp"):
            distances(reference=ImageFolder(tmp_path / "none"))
        with pytest.raises(FileNotFoundError, match="absent"):
            distances(reference=ImageFolder(tmp_path / "absent"))

    def test_statistics_as_reference(self, tmp_path):
        one, _ = pictures(tmp_path / "a", 5)
        two, images = pictures(tmp_path / "b", 6, shift=10)
        f = Colours()(torch.stack(images)).double()
        np.savez(tmp_path / "b.npz", mu=f.mean(0).numpy(), sigma=torch.cov(f.T).numpy())
        fid, kid = distances(reference=str(tmp_path / "b.npz")).compute(one, [])
        assert fid.mean == pytest.approx(distances().compute(one, two)[0].mean, rel=1e-5)
        assert "give a folder" in kid.unavailable

    def test_foreign_statistics_are_refused(self, tmp_path):
        np.savez(tmp_path / "a.npz", mu=np.zeros(6))
        (tmp_path / "b.npz").write_bytes(b"no archive")
        np.savez(tmp_path / "c.npz", mu=np.array([{}], dtype=object), sigma=np.zeros((6, 6)))
        np.savez(tmp_path / "d.npz", mu=np.full(6, np.nan), sigma=np.zeros((6, 6)))
        np.savez(tmp_path / "e.npz", mu=np.zeros(6), sigma=np.zeros((6, 5)))
        (tmp_path / "f.npz").touch()
        (tmp_path / "g.npz").write_bytes((tmp_path / "e.npz").read_bytes()[:-30])
        with open(tmp_path / "h.npz", "wb") as file:
            np.save(file, np.zeros(6))
        for name in "abcdefgh":
            with pytest.raises(ValueError, match=r"holds no statistics .*give an \.npz file with mu and sigma"):
                read_statistics(tmp_path / f"{name}.npz")
            with pytest.raises(ValueError, match="holds no statistics"):
                FeatureDistances(reference=str(tmp_path / f"{name}.npz"))
        np.savez(tmp_path / "d.npz", mu=np.zeros(5), sigma=np.zeros((5, 5)))
        with pytest.raises(ValueError, match=r"d\.npz has 5 features, the network 6: make it with the same network"):
            distances(reference=str(tmp_path / "d.npz"))

    def test_a_reference_folder_without_pictures_is_refused_at_once(self, tmp_path):
        (tmp_path / "b").mkdir()
        (tmp_path / "b" / "notes.txt").write_text("no picture")
        with pytest.raises(ValueError, match="b holds fewer than 2 pictures"):
            distances(reference=str(tmp_path / "b"))

    def test_what_is_missing_is_said(self, tmp_path):
        one, _ = pictures(tmp_path / "a", 3)
        for summary in distances().compute(one, [*one[:2], tmp_path / "absent.png"]):
            assert "1 of 6 pictures are not saved" in summary.unavailable
        for summary in distances().compute(one[:1], one[:1]):
            assert "needs 2 images or more" in summary.unavailable

    def test_a_network_of_other_shape_is_refused(self):
        with pytest.raises(ValueError, match=r"Identity must return features of shape \(1, d\)"):
            distances(nn.Identity())

    def test_settings_are_checked(self, tmp_path):
        with pytest.raises(ValueError, match=r"kid_images \(10\) must be at least kid_subset_size \(1000\)"):
            FeatureDistances(kid_images=10)
        with pytest.raises(ValueError, match="does not exist"):
            FeatureDistances(reference=str(tmp_path / "absent"))


class Dangerous:
    """Unpickling this makes a file."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return open, (self.path, "w")


NAME = "weights-inception-2015-12-05-6726825d.pth"


class TestInceptionWeights:
    @pytest.fixture
    def cached(self, tmp_path, monkeypatch):
        """The weights' place in the cache."""
        (tmp_path / "hub" / "checkpoints").mkdir(parents=True)
        monkeypatch.setenv("TORCH_HOME", str(tmp_path))
        return tmp_path / "hub" / "checkpoints" / NAME

    @pytest.mark.parametrize("given", [True, False])
    def test_a_file_with_code_is_refused_and_not_run(self, tmp_path, cached, given):
        path = tmp_path / "weights.pth" if given else cached
        path.write_bytes(pickle.dumps({"fc.bias": Dangerous(str(tmp_path / "made"))}, protocol=2))
        with pytest.raises(ValueError if given else Unavailable, match="was refused, nothing of it executed"):
            Inception(str(path) if given else None).load()
        assert not (tmp_path / "made").exists()

    @pytest.mark.parametrize("content", [b"", b"PK\x03\x04 half", "list", "other"])
    def test_weights_that_are_none_are_refused_before_any_work(self, tmp_path, content):
        path = tmp_path / "weights.pth"
        if isinstance(content, bytes):
            path.write_bytes(content)
        else:
            torch.save([torch.zeros(3)] if content == "list" else {"weight": torch.zeros(3)}, path)
        with pytest.raises(ValueError, match=r"^The Inception weights could not be loaded from .*weights\.pth \(.*leave"):
            distances(Inception(str(path)))

    def test_a_path_without_a_file_is_refused_before_any_work(self, tmp_path):
        with pytest.raises(ValueError, match="No such file"):
            distances(Inception(str(tmp_path / "none.pth")))

    def test_a_broken_download_is_warned_of_and_said_at_the_end(self, tmp_path, cached):
        cached.write_bytes(b"PK\x03\x04 half")
        one, _ = pictures(tmp_path / "a", 3)
        with pytest.warns(UserWarning, match="FID and KID are unavailable: the Inception weights could not be loaded"):
            measured = distances(Inception())
        for summary in measured.compute(one, one):
            assert f"could not be loaded from {cached}" in summary.unavailable
            assert "save https://github.com/toshas/torch-fidelity" in summary.unavailable

    def test_an_address_that_cannot_be_reached_is_named_once(self, tmp_path, monkeypatch):
        monkeypatch.setenv("TORCH_HOME", str(tmp_path))
        for name in ("http_proxy", "https_proxy"):
            monkeypatch.setenv(name, "http://127.0.0.1:9")
        monkeypatch.setenv("no_proxy", "")
        monkeypatch.setattr(urllib.request, "_opener", None)  # urllib keeps the proxies of its first call
        with pytest.raises(Unavailable) as error:
            Inception().load()
        assert str(error.value).count("https://") == 1
        assert "or save the file by hand as" in str(error.value)

    @pytest.mark.slow
    def test_weights_full_of_nan_are_refused(self, tmp_path):
        save_random_inception(tmp_path / "weights.pth")
        state = torch.load(tmp_path / "weights.pth", weights_only=True)
        torch.save(state | {"fc.bias": state["fc.bias"] * torch.nan}, tmp_path / "weights.pth")
        with pytest.raises(ValueError, match=r"not finite in 1 of \d+ weights \(fc\.bias\)"):
            Inception(str(tmp_path / "weights.pth")).load()


def save_random_inception(path):
    """Seeded weights for torch-fidelity's Inception, scaled so that features keep a size and differ between images."""
    from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3

    class Unloaded(FeatureExtractorInceptionV3):
        def load_state_dict(self, *args, **kwargs):
            pass

    torch.save({}, path)
    network = Unloaded("inception-v3-compat", ["2048"], feature_extractor_weights_path=str(path))
    g = torch.Generator().manual_seed(0)
    weights = network.state_dict()
    for name, value in weights.items():
        if value.ndim > 1:
            value.copy_(torch.randn(value.shape, generator=g) * (2 / value[0].numel()) ** 0.5)
        elif name.endswith("running_var"):
            value.fill_(0.7)
        elif value.is_floating_point() and "weight" not in name:
            value.copy_(0.1 * torch.randn(value.shape, generator=g))
    torch.save(weights, path)


@pytest.mark.slow
def test_fid_and_kid_are_torch_fidelitys_on_the_same_pictures(tmp_path):
    from torch_fidelity import calculate_metrics

    save_random_inception(tmp_path / "inception.pth")
    one, _ = pictures(tmp_path / "restored", 7, size=(40, 32))
    two, _ = pictures(tmp_path / "clean", 7, size=(40, 32), shift=25, seed=1)
    options = {"fid": True, "kid": True, "kid_subset_size": 5, "kid_subsets": 20, "cuda": False, "verbose": False}
    weights = str(tmp_path / "inception.pth")
    folders = {"input1": str(tmp_path / "restored"), "input2": str(tmp_path / "clean")}
    expected = calculate_metrics(**folders, **options, feature_extractor_weights_path=weights, cache=False, save_cpu_ram=True)
    fid, kid = distances(Inception(weights), kid_subset_size=5, kid_subsets=20).compute(one, two)
    assert fid.mean > 0.1
    assert fid.mean == pytest.approx(expected["frechet_inception_distance"], rel=1e-4)
    assert kid.mean == pytest.approx(expected["kernel_inception_distance_mean"], rel=1e-6)
