"""cclight/metrics/perceptual.py: the authors' own numbers from a file that is read and never run."""

import pickle
import warnings
from pathlib import Path

import pytest
import torch

from cclight.metrics.image import LPIPS
from cclight.metrics.perceptual import PerceptualMap, heat
from cclight.metrics.quantity import Unavailable
from tests.metrics.test_image import pair, torch_home  # noqa: F401 - a fixture

FILES = {"alex": "alexnet-owt-7be5be79.pth", "vgg": "vgg16-397923af.pth", "squeeze": "squeezenet1_1-b8a52dc0.pth"}


@pytest.fixture(autouse=True)
def weights(some_torch_home, monkeypatch):
    monkeypatch.setenv("TORCH_HOME", str(some_torch_home))


def theirs(spatial):
    """The package as its README calls it: with torchvision's own loading of the backbone."""
    with warnings.catch_warnings(), torch.random.fork_rng(devices=[]):
        warnings.simplefilter("ignore")
        import lpips

        return lpips.LPIPS(net="squeeze", spatial=spatial, verbose=False)


@torch.no_grad()
def test_maps_are_those_of_the_package():
    restored, clean = (image.clamp(-1, 1) for image in pair(size=(2, 3, 70, 50)))
    maps = PerceptualMap()(restored, clean)
    assert maps.shape == (2, 70, 50)
    assert torch.equal(maps, theirs(spatial=True)(restored, clean)[:, 0])
    assert torch.equal(LPIPS()(restored, clean), theirs(spatial=False)(restored, clean).flatten().double())


@torch.no_grad()
def test_the_metric_is_torchmetrics_too():
    from torchmetrics.image.lpip import LearnedPerceptualImagePatchSimilarity

    restored, clean = (image.clamp(-1, 1) for image in pair(size=(2, 3, 70, 50)))
    expected = LearnedPerceptualImagePatchSimilarity(net_type="squeeze").net(restored, clean)
    torch.testing.assert_close(LPIPS()(restored, clean), expected.flatten().double(), rtol=0, atol=1e-6)


def test_a_map_shows_where():
    _, clean = pair(size=(1, 3, 192, 160))
    restored = clean.clone()
    restored[..., 100:140, 20:60] = clean[..., 100:140, 20:60].flip(-1, -2) * -1
    difference = PerceptualMap()(restored, clean)[0]
    inside = difference[100:140, 20:60].mean()
    assert inside > 5 * difference[:60, 100:].mean()
    assert PerceptualMap()(clean, clean).abs().max() == 0


def test_grey_and_half_precision_images_have_maps():
    restored, clean = pair(size=(1, 1, 40, 50), dtype=torch.bfloat16)
    in_colour = [image.float().expand(-1, 3, -1, -1) for image in (restored, clean)]
    assert torch.equal(PerceptualMap()(restored, clean), PerceptualMap()(*in_colour))
    with pytest.raises(Unavailable, match="sides of 32 pixels or more, the images are 31×50"):
        PerceptualMap()(restored[..., :31, :], clean[..., :31, :])
    with pytest.raises(ValueError, match="no net 'resnet': choose one of alex, vgg, squeeze"):
        PerceptualMap("resnet")


def test_heat_is_black_red_yellow_white():
    colours = (heat(torch.tensor([[0.0, 0.2, 0.4, 0.6, 9.0]]))[:, 0] + 1) / 2
    expected = torch.tensor([[0, 0, 0], [1, 0, 0], [1, 1, 0], [1, 1, 1], [1, 1, 1]]).float().T
    torch.testing.assert_close(colours, expected)


def test_loading_leaves_the_global_generator_alone():
    before = torch.get_rng_state()
    PerceptualMap().prepare(torch.device("cpu"))
    assert torch.equal(before, torch.get_rng_state())


class Malice:
    def __init__(self, witness):
        self.witness = witness

    def __reduce__(self):
        return Path.touch, (self.witness,)


@pytest.mark.parametrize("net", list(FILES))
@pytest.mark.parametrize("write", ["torch", "pickle"])
@pytest.mark.parametrize("kind", [LPIPS, PerceptualMap])
def test_a_pickle_in_the_backbones_place_does_not_run(kind, write, net, tmp_path, monkeypatch):
    folder, witness = tmp_path / "hub" / "checkpoints", tmp_path / "executed"
    folder.mkdir(parents=True)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    if write == "torch":
        torch.save({"features.0.weight": Malice(witness)}, folder / FILES[net])
    else:
        (folder / FILES[net]).write_bytes(pickle.dumps({"features.0.weight": Malice(witness)}, protocol=2))
    with pytest.raises(Unavailable, match=f"the {net} weights could not be loaded .*was refused, nothing of it executed"):
        kind(net).prepare(torch.device("cpu"))
    assert not witness.exists()


def test_weights_full_of_nan_are_refused(some_torch_home, tmp_path, monkeypatch):
    state = torch.load(some_torch_home / "hub" / "checkpoints" / FILES["squeeze"], weights_only=True)
    state["features.3.squeeze.weight"] = state["features.3.squeeze.weight"] * torch.nan
    (tmp_path / "hub" / "checkpoints").mkdir(parents=True)
    torch.save(state, tmp_path / "hub" / "checkpoints" / FILES["squeeze"])
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    with pytest.raises(Unavailable, match="not finite"):
        LPIPS().prepare(torch.device("cpu"))
