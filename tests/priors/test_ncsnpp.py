"""cclight/priors/ncsnpp.py and ncsnpp_unet.py: against the original network's outputs, keys and container."""

import json

import pytest
import torch
from torch import nn

from cclight.priors.checkpoints import CheckpointError, fill
from cclight.priors.ncsnpp import RectifiedFlow, averaged_weights
from cclight.priors.ncsnpp_unet import NCSNpp, NCSNppArchitecture, downsample, upsample
from cclight.problem import Problem

SMALL = NCSNppArchitecture(image_size=32, nf=32, ch_mult=(1, 1, 2), num_res_blocks=1, attn_resolutions=(16,), num_scales=20)


def relative(a, b):
    return float((a - b).norm() / b.norm())


@pytest.fixture(scope="module")
def small(networks):
    return torch.load(networks / "ncsnpp_small_rf.pt", weights_only=True)


@pytest.fixture(scope="module")
def container(networks):
    return networks / "ncsnpp_small_rf_checkpoint.pth"


def test_the_small_network_has_the_original_keys_shapes_and_output(small, networks):
    keys = json.loads((networks / "ncsnpp_small_rf.keys.json").read_text())["keys"]
    network = NCSNpp(SMALL)
    assert {key: list(value.shape) for key, value in network.state_dict().items()} == keys
    network.load_state_dict({key: value.float() for key, value in small["state_dict_f16"].items()})
    with torch.no_grad():
        output = network(small["inputs"]["x"], small["inputs"]["time_cond"])
    assert relative(output, small["output"]) < 1e-5


def test_the_full_network_has_the_published_keys_and_shapes(networks):
    published = json.loads((networks / "ncsnpp_rf256_celeba.keys.json").read_text())
    with torch.device("meta"):
        network = NCSNpp(NCSNppArchitecture())
    assert {key: list(value.shape) for key, value in network.state_dict().items()} == published["keys"]
    assert sum(p.numel() for p in network.parameters()) == published["n_params"]
    assert sum(p.numel() for p in network.parameters() if p.requires_grad) == published["n_trainable"]


@pytest.mark.slow
def test_the_full_network_agrees_with_the_original(networks, recipe_weights):
    probe = json.loads((networks / "ncsnpp_rf256.probe.json").read_text())
    with torch.device("meta"):
        network = NCSNpp(NCSNppArchitecture())
    state = recipe_weights(network)
    state["all_modules.0.W"] = (16 * state["all_modules.0.W"].float()).half()
    fill(network, state, "the recipe")
    x = torch.randn(1, 3, 256, 256, generator=torch.Generator().manual_seed(2))
    with torch.no_grad():
        output = network(x, torch.tensor([499.5]))
    assert relative(output[0, 0, :8, :8], torch.tensor(probe["patch_ch0_8x8"])) < 1e-5
    assert output.mean().item() == pytest.approx(probe["mean"], rel=1e-4)
    assert output.std().item() == pytest.approx(probe["std"], rel=1e-4)


def test_the_published_container_gives_the_averaged_weights(container):
    test = torch.load(container, weights_only=True)["_test"]
    prior = RectifiedFlow(str(container), SMALL)
    output = prior(test["x"], test["t"])
    assert relative(output, test["ema_output"]) < 1e-5


def test_the_averages_follow_the_published_order_of_parameters(networks):
    order = json.loads((networks / "ncsnpp_small_rf.ema_order.json").read_text())["trainable_in_order"]
    network = NCSNpp(SMALL)
    assert [f"module.{name}" for name, p in network.named_parameters() if p.requires_grad] == order


def test_too_few_averages_are_refused(container):
    state = torch.load(container, weights_only=True)
    state["ema"]["shadow_params"].pop()
    with pytest.raises(CheckpointError, match=r"averages \d+ parameters, NCSNpp trains \d+: set the prior's architecture"):
        averaged_weights(state, NCSNpp(SMALL), container)


def test_a_plain_state_dict_loads_as_well(small, tmp_path):
    torch.save(small["state_dict_f16"], tmp_path / "plain.pth")
    prior = RectifiedFlow(str(tmp_path / "plain.pth"), SMALL)
    assert relative(prior(small["inputs"]["x"], small["inputs"]["t"]), small["output"]) < 1e-5


def test_pure_noise_is_seen_at_the_first_time_of_training(container):
    prior = RectifiedFlow(str(container), SMALL)
    x = torch.randn(1, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        at_zero, at_first = prior(x, torch.zeros(1)), prior(x, torch.full((1,), 1e-3))
    assert at_zero.isfinite().all()
    assert torch.equal(at_zero, at_first)


class UnitRangeVelocity(nn.Module):
    """The exact velocity E[z_0 - ε | z] of a flow of images (x_0 + 1)/2, with x_0 one Gaussian of mean m and deviation s."""

    def __init__(self, m, s):
        super().__init__()
        self.architecture = NCSNppArchitecture(centered=False)
        self.m, self.s = (m + 1) / 2, s / 2

    def forward(self, z, time_cond):
        t = (time_cond / 999).view(-1, 1, 1, 1)
        variance = (t * self.s) ** 2 + (1 - t) ** 2
        residual = (z - t * self.m) / variance
        z_0 = self.m + t * self.s**2 * residual
        return z_0 - (1 - t) * residual


def test_a_flow_of_unit_range_images_becomes_the_velocity_of_the_ot_path(small, tmp_path):
    m, s = 0.3, 0.4
    torch.save(small["state_dict_f16"], tmp_path / "plain.pth")
    unit_range = NCSNppArchitecture(**{**vars(SMALL), "centered": False})
    prior = RectifiedFlow(str(tmp_path / "plain.pth"), unit_range)
    prior.network = UnitRangeVelocity(m, s)
    x = torch.randn(5, 3, 4, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    t = torch.tensor([0.001, 0.2, 0.5, 0.9, 1.0], dtype=torch.float64)
    alpha, sigma = (f(t).view(-1, 1, 1, 1) for f in (prior.path.alpha, prior.path.sigma))
    posterior_mean = m + alpha * s**2 / ((alpha * s) ** 2 + sigma**2) * (x - alpha * m)
    assert relative(prior.denoise(x, t), posterior_mean) < 1e-12


def test_the_network_itself_recentres_unit_range_images(small):
    weights = {key: value.double() for key, value in small["state_dict_f16"].items()}
    centred, unit_range = NCSNpp(SMALL).double(), NCSNpp(NCSNppArchitecture(**{**vars(SMALL), "centered": False})).double()
    centred.load_state_dict(weights)
    unit_range.load_state_dict(weights)
    x, time_cond = (small["inputs"][key].double() for key in ("x", "time_cond"))
    with torch.no_grad():
        assert relative(unit_range((x + 1) / 2, time_cond), centred(x, time_cond)) < 1e-12


def test_the_vjp_is_the_derivative_with_and_without_activation_checkpointing(container):
    priors = [RectifiedFlow(str(container), SMALL, activation_checkpointing=kept).double() for kept in (False, True)]
    generator = torch.Generator().manual_seed(0)
    x, v, direction = (torch.randn(1, 3, 32, 32, generator=generator, dtype=torch.float64) for _ in range(3))
    (n, product), (n_kept, product_kept) = (Problem(p, None, v, x).network_and_vjp(x, 0.3, lambda _: v) for p in priors)
    assert torch.equal(n, n_kept)
    assert relative(product_kept, product) < 1e-12
    t = torch.full((1,), 0.3, dtype=torch.float64)
    with torch.no_grad():
        difference = (priors[0](x + 1e-5 * direction, t) - priors[0](x - 1e-5 * direction, t)) / 2e-5
    assert (product * direction).sum().item() == pytest.approx((v * difference).sum().item(), rel=1e-6)


def test_resampling_keeps_constants_inside_and_is_adjoint_up_to_scale():
    generator = torch.Generator().manual_seed(0)
    x, y = (torch.randn(2, 3, side, side, generator=generator, dtype=torch.float64) for side in (16, 8))
    ones = torch.ones(1, 1, 16, 16)
    assert torch.allclose(downsample(ones)[..., 1:-1, 1:-1], torch.ones(1, 1, 6, 6))
    assert torch.allclose(upsample(ones)[..., 1:-1, 1:-1], torch.ones(1, 1, 30, 30))
    assert (4 * downsample(x) * y).sum().item() == pytest.approx((x * upsample(y)).sum().item())
