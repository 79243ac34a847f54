"""cclight/priors/adm.py and adm_unet.py: against the original network's outputs, keys and shapes."""

import json

import pytest
import torch

from cclight.priors.adm import ADM
from cclight.priors.adm_unet import ADMArchitecture, ADMUNet
from cclight.priors.checkpoints import CheckpointError, architecture_of, fill
from cclight.problem import Problem

SMALL = ["imagenet", "ffhq", "plain"]
FULL = {"imagenet256": "adm_imagenet256_uncond", "ffhq256": "adm_ffhq256"}
TINY = ADMArchitecture(image_size=16, num_channels=32, num_res_blocks=1, channel_mult=(1, 2), attention_resolutions=(8,))


def relative(a, b):
    return float((a - b).norm() / b.norm())


def images(side, batch=2, dtype=torch.float32):
    return torch.randn(batch, 3, side, side, generator=torch.Generator().manual_seed(0), dtype=dtype)


def architecture_from(config):
    """Ours from guided-diffusion's `create_model` arguments."""
    names = (
        "image_size num_channels num_res_blocks num_heads num_head_channels use_scale_shift_norm resblock_updown learn_sigma"
    )
    lists = {key: tuple(map(int, config[key].split(","))) for key in ("channel_mult", "attention_resolutions")}
    return ADMArchitecture(**{name: config[name] for name in names.split()}, **lists)


@pytest.fixture(params=SMALL)
def small(request, networks):
    data = torch.load(networks / f"adm_small_{request.param}.pt", weights_only=True)
    keys = json.loads((networks / f"adm_small_{request.param}.keys.json").read_text())["keys"]
    return architecture_from(data["config"]), data, keys


def saved(tmp_path, state, name="weights.pt"):
    torch.save(state, tmp_path / name)
    return str(tmp_path / name)


def test_small_networks_have_the_original_keys_shapes_and_outputs(small):
    architecture, data, keys = small
    network = ADMUNet(architecture)
    assert {key: list(value.shape) for key, value in network.state_dict().items()} == keys
    network.load_state_dict({key: value.float() for key, value in data["state_dict_f16"].items()})
    with torch.no_grad():
        output = network(data["inputs"]["x"], data["inputs"]["t"])
    assert relative(output, data["output"]) < 1e-5


def test_the_prior_gives_epsilon_alone_at_the_trained_step(small, tmp_path):
    architecture, data, _ = small
    prior = ADM(saved(tmp_path, data["state_dict_f16"]), architecture)
    output = prior(data["inputs"]["x"], data["inputs"]["t"] / 999)
    assert output.shape == data["inputs"]["x"].shape
    assert relative(output, data["output"][:, :3]) < 2e-5


@pytest.mark.parametrize("name", FULL)
def test_full_networks_have_the_published_keys_and_shapes(name, networks):
    published = json.loads((networks / f"{FULL[name]}.keys.json").read_text())
    with torch.device("meta"):
        network = ADMUNet(ADMArchitecture(**architecture_of(name, "ADM")))
    assert {key: list(value.shape) for key, value in network.state_dict().items()} == published["keys"]
    assert sum(p.numel() for p in network.parameters()) == published["n_params"]


@pytest.mark.slow
@pytest.mark.parametrize("name", FULL)
def test_full_networks_agree_with_the_original(name, networks, recipe_weights):
    probe = json.loads((networks / f"{FULL[name]}.probe.json").read_text())
    with torch.device("meta"):
        network = ADMUNet(ADMArchitecture(**architecture_of(name, "ADM")))
    fill(network, recipe_weights(network), name)
    x = torch.randn(1, 3, 64, 64, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        output = network(x, torch.tensor([500.0]))
    assert relative(output[0, 0, :8, :8], torch.tensor(probe["patch_ch0_8x8"])) < 1e-5
    assert output.mean().item() == pytest.approx(probe["mean"], rel=1e-5)
    assert output.std().item() == pytest.approx(probe["std"], rel=1e-5)


def test_discretize_decides_which_index_the_network_sees(tmp_path, recipe_weights):
    checkpoint = saved(tmp_path, recipe_weights(ADMUNet(TINY)))
    fractional, floor = ADM(checkpoint, TINY), ADM(checkpoint, TINY, discretize="floor")
    x, t = images(16), torch.tensor([0.5, 0.9])
    with torch.no_grad():
        assert torch.equal(fractional(x, t), fractional.network(x, 999 * t)[:, :3])
        assert torch.equal(floor(x, t), floor.network(x, torch.tensor([499.0, 899.0]))[:, :3])
        assert relative(floor(x, t), fractional(x, t)) > 1e-4
    with pytest.raises(ValueError, match=r"nearest.*choose fractional or floor"):
        ADM(checkpoint, TINY, discretize="nearest")


def test_the_attention_orders_differ_by_a_permutation_of_the_weights(recipe_weights):
    old_way, new_way = TINY, ADMArchitecture(**{**vars(TINY), "use_new_attention_order": True, "num_head_channels": 16})
    old_way = ADMArchitecture(**{**vars(TINY), "num_head_channels": 16})
    old, new = ADMUNet(old_way), ADMUNet(new_way)
    state = recipe_weights(old)
    old.load_state_dict(state)
    # (heads, 3, channels per head) rows become (3, heads, channels per head) rows.
    for key in [key for key in state if ".qkv." in key]:
        state[key] = state[key].unflatten(0, (-1, 3, 16)).transpose(0, 1).flatten(0, 2)
    new.load_state_dict(state)
    x, index = images(16), torch.tensor([3.0, 700.0])
    with torch.no_grad():
        assert relative(new(x, index), old(x, index)) < 1e-6


def test_a_class_adds_its_row_to_the_time_embedding(tmp_path, recipe_weights):
    conditional = ADMArchitecture(**{**vars(TINY), "class_cond": True, "num_classes": 5})
    state = recipe_weights(ADMUNet(conditional))
    prior = ADM(saved(tmp_path, state), conditional, class_label=3)
    row = state.pop("label_emb.weight")[3]
    state["time_embed.2.bias"] = state["time_embed.2.bias"].float() + row
    plain = ADM(saved(tmp_path, state, "plain.pt"), TINY)
    x, t = images(16), torch.tensor([0.2, 0.7])
    with torch.no_grad():
        assert relative(prior(x, t), plain(x, t)) < 1e-6


@pytest.mark.parametrize("label", [-1, 5])
def test_a_conditional_network_wants_one_of_its_classes(label):
    conditional = ADMArchitecture(**{**vars(TINY), "class_cond": True, "num_classes": 5})
    with pytest.raises(ValueError, match=r"ADM knows the labels 0 \.\.\. 4, got"):
        ADM("nowhere.pt", conditional, class_label=label)


def test_each_image_is_restored_towards_its_own_label(tmp_path, recipe_weights):
    conditional = ADMArchitecture(**{**vars(TINY), "class_cond": True, "num_classes": 5})
    file = saved(tmp_path, recipe_weights(ADMUNet(conditional)))
    prior, three, four = (ADM(file, conditional, class_label=label) for label in (None, 3, 4))
    x, t = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0)), torch.full((2,), 0.3)
    each = prior(x, t, torch.tensor([3, 4]))
    assert torch.allclose(each, torch.stack([three(x, t)[0], four(x, t)[1]]), atol=1e-5)
    assert torch.allclose(three(x, t, torch.tensor([4, 4])), four(x, t), atol=1e-5)
    with pytest.raises(ValueError, match=r"needs a label per image and got none: set class_label to one of 0 \.\.\. 4"):
        prior(x, t)
    for label in (None, torch.tensor([3, -1])):
        with pytest.raises(ValueError, match=r"0 \.\.\. 4"):
            prior.check_label(label)


def test_an_unconditional_network_takes_no_class():
    with pytest.raises(ValueError, match=r"class_label is 3, but nowhere.pt is not class-conditional: leave class_label out"):
        ADM("nowhere.pt", TINY, class_label=3)


def test_the_vjp_is_the_derivative_with_and_without_activation_checkpointing(tmp_path, recipe_weights):
    checkpoint = saved(tmp_path, recipe_weights(ADMUNet(TINY)))
    priors = [ADM(checkpoint, TINY, activation_checkpointing=kept).double() for kept in (False, True)]
    x, v, direction = (images(16, dtype=torch.float64).roll(k, 0) for k in range(3))
    (n, product), (n_kept, product_kept) = (Problem(p, None, v, x).network_and_vjp(x, 0.3, lambda _: v) for p in priors)
    assert torch.equal(n, n_kept)
    assert relative(product_kept, product) < 1e-12
    t = torch.full((2,), 0.3, dtype=torch.float64)
    with torch.no_grad():
        difference = (priors[0](x + 1e-5 * direction, t) - priors[0](x - 1e-5 * direction, t)) / 2e-5
    assert (product * direction).sum().item() == pytest.approx((v * difference).sum().item(), rel=1e-6)


def test_building_freezes_the_weights_and_draws_no_random_number(tmp_path, recipe_weights):
    checkpoint = saved(tmp_path, recipe_weights(ADMUNet(TINY)))
    before = torch.get_rng_state()
    prior = ADM(checkpoint, TINY)
    assert torch.equal(torch.get_rng_state(), before)
    assert not any(p.requires_grad for p in prior.parameters())
    assert not any(module.training for module in prior.network.modules())
    assert all(p.dtype == torch.float32 and p.device.type == "cpu" for p in prior.parameters())


def test_images_of_another_size_are_refused(tmp_path, recipe_weights):
    prior = ADM(saved(tmp_path, recipe_weights(ADMUNet(TINY))), TINY)
    prior.check_images((3, 16, 16))
    with pytest.raises(ValueError, match=r"3×16×16.*got 3×32×32: set data\.image_size to 16"):
        prior.check_images((3, 32, 32))


def test_a_checkpoint_of_another_architecture_is_refused_with_its_first_keys(tmp_path, recipe_weights):
    checkpoint = saved(tmp_path, recipe_weights(ADMUNet(TINY)))
    deeper = ADMArchitecture(**{**vars(TINY), "num_res_blocks": 2})
    with pytest.raises(CheckpointError, match=r"does not fit ADMUNet: \d+ keys missing \(input_blocks.*Set the architecture"):
        ADM(checkpoint, deeper)


def test_another_priors_checkpoint_is_refused_by_name():
    with pytest.raises(CheckpointError, match="celeba_hq is a checkpoint of RectifiedFlow, not of ADM: set class_path"):
        ADM("celeba_hq")
