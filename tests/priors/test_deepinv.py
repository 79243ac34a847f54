"""cclight/priors/deepinv.py: deepinv's own denoisers with tiny random networks; nothing is downloaded."""

from __future__ import annotations

import urllib.error

import pytest
import torch
from torch import nn

from cclight import EDM, Conjugate, DeepinvPrior, OTPath
from cclight.operators.pixelwise import AveragePooling
from cclight.priors.checkpoints import CheckpointError
from tests.priors.tiny import edm_state, seeded

models = pytest.importorskip("deepinv.models", reason="needs the extra cclight[deepinv]")
DRUNET = {"nc": (8, 8, 8, 8), "nb": 1, "pretrained": None}


def noise(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def relative(a, b):
    return float((a - b).abs().max() / b.abs().max())


def drunet(**changes):
    return seeded(models.DRUNet(**{**DRUNET, **changes}))


def made(name, **arguments):
    return {"class_path": f"deepinv.models.{name}", "init_args": arguments}


def test_the_estimate_is_deepinv_s_own_in_its_units():
    network, z, rho = drunet(), noise(2, 3, 16, 16), torch.tensor([0.1, 1.7])
    with torch.no_grad():
        expected = 2 * torch.cat([network(z[i : i + 1] / 2 + 0.5, float(rho[i]) / 2) for i in range(2)]) - 1
    assert relative(DeepinvPrior(drunet()).estimate(z, rho), expected) < 1e-5
    ot = DeepinvPrior(drunet(), path=OTPath())
    t = ot.path.time_at_ratio(rho)
    assert relative(ot.denoise(t.view(-1, 1, 1, 1) * z, t), expected) < 1e-4


def test_weights_from_a_file_and_one_image_in_a_batch(tmp_path):
    torch.save(drunet().state_dict(), tmp_path / "drunet.pth")
    prior = DeepinvPrior(made("DRUNet", **{**DRUNET, "pretrained": str(tmp_path / "drunet.pth")}))
    z, rho = noise(1, 3, 16, 16), torch.tensor([0.4])
    assert torch.equal(prior.estimate(z, rho), DeepinvPrior(drunet()).estimate(z, rho))
    operator = AveragePooling(2)
    image = Conjugate(2, 2.0).sample(prior, operator, operator(z.clamp(-1, 1)), noise(1, 3, 16, 16, seed=1)).image
    assert image.isfinite().all()


def test_a_network_of_edm_from_a_file_is_our_own_edm(tmp_path):
    """The two arguments that deepinv needs beside a file, and whose defaults are silently wrong, are given."""
    state = edm_state(
        model_channels=128, channel_mult=(1,), attn_resolutions=(), label_dim=4, img_resolution=8, channel_mult_emb=4
    )
    torch.save(state, tmp_path / "ours.pt")
    torch.save({key.removeprefix("model."): value for key, value in state.items()}, tmp_path / "theirs.pt")
    arguments = {"model_type": "ddpm", "img_resolution": 8, "channel_mult": (1,), "num_blocks": 1, "attn_resolutions": ()}
    file = str(tmp_path / "theirs.pt")
    prior = DeepinvPrior(made("NCSNpp", **arguments, label_dim=4, augment_dim=0, pretrained=file))
    ours = EDM(str(tmp_path / "ours.pt"))
    assert prior.labels == 4
    z, rho = noise(2, 3, 8, 8), torch.tensor([0.1, 5.0])
    for label in (None, torch.tensor([1, -1])):
        assert relative(prior.estimate(z, rho, label), ours.estimate(z, rho, label)) < 1e-5


def test_a_network_left_in_training_is_set_to_sampling():
    network = nn.Sequential(nn.Dropout(0.5))
    network.forward = lambda x, sigma: nn.Sequential.forward(network, x)
    prior = DeepinvPrior(network.train())
    z, rho = noise(1, 3, 4, 4), torch.tensor([0.1])
    assert relative(prior.estimate(z, rho), z) < 1e-6


def offline(*_, **__):
    raise urllib.error.URLError("no network")


def test_without_a_network_the_file_is_named(monkeypatch):
    monkeypatch.setattr(torch.hub, "load_state_dict_from_url", offline)
    monkeypatch.setattr("deepinv.models.drunet.load_state_dict_from_url", offline)
    with pytest.raises(CheckpointError, match=r"fetch hf://deepinv/drunet/drunet_deepinv_color.* set pretrained to its path"):
        DeepinvPrior(made("DRUNet", pretrained="download"))


@pytest.mark.parametrize(
    ("denoiser", "line"),
    [
        (made("DRUNet"), "set its pretrained to a file, download or null"),
        (made("DRUNetz", pretrained=None), "deepinv.models has no DRUNetz"),
        (made("DRUNet", pretrained=None, sides=3), "DRUNet cannot be made of .*sides"),
        ({"class_path": "nowhere.Denoiser"}, "nowhere.Denoiser cannot be imported"),
        ({"class": "DRUNet"}, "write it as {class_path: deepinv.models.DRUNet"),
        (made("DRUNet", pretrained="?"), "does not fit DRUNet: .* keys missing"),
        ({"class_path": "fractions.Fraction"}, "makes a Fraction, no network"),
    ],
)
def test_what_cannot_be_made_is_one_line(denoiser, line, tmp_path):
    torch.save({"weight": torch.zeros(2)}, tmp_path / "other.pth")
    if denoiser.get("init_args", {}).get("pretrained") == "?":
        denoiser = made("DRUNet", **{**DRUNET, "pretrained": str(tmp_path / "other.pth")})
    with pytest.raises(ValueError, match=line) as error:
        DeepinvPrior(denoiser)
    assert "\n" not in str(error.value)


def test_values_out_of_range_are_refused():
    with pytest.raises(ValueError, match="takes no labels"):
        DeepinvPrior(drunet(), class_label=0)
    with pytest.raises(ValueError, match="the lesser first"):
        DeepinvPrior(drunet(), noise_range=(1.0, 0.1))
