"""cclight/priors/pnpflow.py and pnpflow_unet.py: against the original's outputs, and a self-made tiny checkpoint."""

from __future__ import annotations

import gzip
import json

import pytest
import torch

from cclight import Conjugate, PnPFlow, PnPFlowUNet
from cclight.operators.pixelwise import AveragePooling
from cclight.priors.cards import CARDS
from cclight.priors.checkpoints import CheckpointError
from cclight.priors.pnpflow_unet import VelocityUNet, architecture_of_state
from tests.priors.tiny import edm_state, pnpflow_state


def relative(a, b):
    return float((a - b).abs().max() / b.abs().max())


def noise(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.fixture
def tiny(tmp_path):
    torch.save(pnpflow_state(), tmp_path / "tiny.pt")
    return str(tmp_path / "tiny.pt")


def test_velocity_estimate_and_derivative_are_the_original_s(golden):
    folder = golden / "karras" / "pnpflow"
    numbers = torch.load(folder / "unet.io.pt", weights_only=True)
    prior = PnPFlowUNet(str(folder / "unet.weights.pt"))
    for row, t in enumerate(numbers["t"]):
        x, time = numbers["x_t"][row].clone().requires_grad_(), t.expand(2)
        velocity = prior(x, time)
        (vjp,) = torch.autograd.grad(velocity, x, numbers["v"])
        assert relative(velocity.detach(), numbers["velocity"][row]) < 1e-5
        assert relative(vjp, numbers["vjp_velocity"][row]) < 1e-5
        assert relative(prior.denoise(x, time).detach(), numbers["x1_hat"][row]) < 1e-5
    with torch.no_grad():
        assert relative(prior(numbers["x_t_mixed"], numbers["t_mixed"]), numbers["velocity_mixed"]) < 1e-5


def test_published_networks_have_their_keys_and_shapes(golden):
    for name in ("celeba128", "afhq_cat256"):
        file = golden / "karras" / "pnpflow" / "fullsize_keys" / f"{name}.json.gz"
        content = json.loads(gzip.decompress(file.read_bytes()))
        state = {key: torch.empty(shape, device="meta") for key, shape in content["keys"].items()}
        with torch.device("meta"):
            network = VelocityUNet(architecture_of_state(state))
        assert {key: list(value.shape) for key, value in network.state_dict().items()} == content["keys"]
        assert CARDS[name].gigabytes == pytest.approx(4e-9 * content["num_params"], abs=0.05)
        assert CARDS[name].architecture["image_size"] == content["constructor"]["input_height"]


def test_the_tiny_network_takes_any_size_or_the_given_one(tiny):
    prior = PnPFlowUNet(tiny)
    prior.check_images((3, 8, 12))
    with pytest.raises(ValueError, match="divisible by 2, got 9×8"):
        prior.check_images((3, 9, 8))
    with pytest.raises(ValueError, match=r"set data\.image_size to 16"):
        PnPFlowUNet(tiny, image_size=16).check_images((3, 32, 32))


@pytest.mark.parametrize("sampler", [Conjugate(3, 2.0), PnPFlow(2)], ids=lambda sampler: type(sampler).__name__)
def test_samplers_restore_through_it(tiny, sampler):
    operator = AveragePooling(2)
    y = operator(noise(2, 3, 16, 16).clamp(-1, 1))
    image = sampler.sample(PnPFlowUNet(tiny, 16), operator, y, noise(2, 3, 16, 16, seed=1)).image
    assert image.shape == (2, 3, 16, 16)
    assert image.isfinite().all()


def test_another_network_is_named(tmp_path):
    torch.save(edm_state(), tmp_path / "edm.pt")
    with pytest.raises(CheckpointError, match=r"holds no network of PnP-Flow \(its first keys are model.map_layer0"):
        PnPFlowUNet(str(tmp_path / "edm.pt"))


def test_a_missing_key_is_named(tmp_path):
    state = pnpflow_state()
    state.pop("mid_modules.1.attn_q.weight")
    torch.save(state, tmp_path / "less.pt")
    with pytest.raises(CheckpointError, match=r"1 keys missing \(mid_modules.1.attn_q.weight\)"):
        PnPFlowUNet(str(tmp_path / "less.pt"))


def test_the_published_files_are_fetched_by_hand(tmp_path, monkeypatch):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    with pytest.raises(CheckpointError, match=r"fetch it in a browser from https://drive.* save it as .*celeba128"):
        PnPFlowUNet("celeba128")


def test_shapes_that_make_no_network_are_refused(tmp_path):
    """Keys of a checkpoint with another shape: one line, whatever it breaks."""
    whole = pnpflow_state()
    first = [key for key in whole if "_conv" in key or "map_" in key or "main" in key]
    for key in [*first, *list(whole)[::17]]:
        for shape in ((0,), (33, 3, 3, 3)):
            torch.save({**whole, key: torch.zeros(shape)}, tmp_path / "odd.pt")
            with pytest.raises(CheckpointError) as error:
                PnPFlowUNet(str(tmp_path / "odd.pt"))
            assert "\n" not in str(error.value)
