"""cclight/priors/edm.py and edm_unet.py: against the original's outputs, and self-made tiny checkpoints."""

from __future__ import annotations

import gzip
import json
import math
import os
import pickle

import pytest
import torch
from safetensors.torch import save_file

from cclight import DPS, EDM, Conjugate, GaussianMixture, OTPath, Tiled, Velocity, VPPath
from cclight.operators.pixelwise import AveragePooling
from cclight.paths.parameterization import Epsilon
from cclight.priors.adm_unet import ADMArchitecture
from cclight.priors.cards import CARDS
from cclight.priors.checkpoints import CheckpointError
from cclight.priors.edm import Preconditioned
from cclight.priors.edm_architecture import UNetArchitecture, architecture_of_state, is_song
from cclight.priors.edm_unet import DhariwalUNet, SongUNet, UNetBlock
from tests.priors.tiny import edm_state

# A network and a preconditioning, and by how much another correct implementation may differ (the golden folder's README).
CASES = [
    *((name, kind, 1e-5) for name in ("ddpmpp", "ncsnpp", "adm") for kind in ("edm", "ve")),
    ("ddpmpp", "vp", 3e-5),
    ("adm", "vp", 3e-5),
    ("ncsnpp", "vp", 3e-3),
    ("ddpmpp_cond", "edm", 1e-5),
    ("ddpmpp_1ch", "edm", 1e-5),
]


def relative(a, b):
    return float((a - b).abs().max() / b.abs().max())


def noise(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.fixture(scope="module")
def karras(golden):
    return golden / "karras"


@pytest.fixture
def tiny(tmp_path):
    """A function that saves a tiny checkpoint and returns its path."""

    def save(name="tiny.pt", wrap=lambda state: state, **changes):
        torch.save(wrap(edm_state(**changes)), tmp_path / name)
        return str(tmp_path / name)

    return save


@pytest.mark.parametrize(("name", "kind", "bound"), CASES)
def test_the_denoiser_and_its_derivative_are_the_original_s(karras, name, kind, bound):
    numbers = torch.load(karras / "edm" / f"{name}.io.pt", weights_only=True)
    prior, labels = EDM(str(karras / "edm" / f"{name}.weights.pt"), kind), numbers.get("class_labels")
    for row, sigma in enumerate(numbers["sigmas"]):
        x = numbers["x"][row].clone().requires_grad_()
        estimate = prior.network(x, sigma.expand(2), labels)
        assert relative(estimate.detach(), numbers[kind]["D"][row]) < bound
        if "vjp" in numbers[kind]:
            (vjp,) = torch.autograd.grad(estimate, x, numbers["v"])
            assert relative(vjp, numbers[kind]["vjp"][row]) < bound
    with torch.no_grad():
        mixed = prior.network(numbers["x_mixed"], numbers["sigma_mixed"], labels)
    assert relative(mixed, numbers[kind]["D_mixed"]) < bound


def test_a_label_per_image_is_the_original_s_one_hot_row(karras):
    numbers = torch.load(karras / "edm" / "ddpmpp_cond.io.pt", weights_only=True)
    file = str(karras / "edm" / "ddpmpp_cond.weights.pt")
    prior, always_three = EDM(file), EDM(file, class_label=3)
    assert prior.labels == 10
    for row, sigma in enumerate(numbers["sigmas"]):
        z, rho = numbers["x"][row], sigma.expand(2)
        expected, without = numbers["edm"]["D"][row], numbers["edm"]["D_nolabel"][row]
        assert relative(prior.estimate(z, rho, torch.tensor([3, 7])), expected) < 1e-5
        assert relative(prior.estimate(z, rho), without) < 1e-5
        assert relative(prior.estimate(z, rho, torch.tensor([-1, 7])), torch.stack([without[0], expected[1]])) < 1e-5
        assert relative(always_three.estimate(z, rho)[:1], expected[:1]) < 1e-5
        assert relative(always_three.estimate(z, rho, torch.tensor([7, 7]))[1:], expected[1:]) < 1e-5


def test_inversebench_s_adm_is_the_original(karras):
    numbers = torch.load(karras / "inversebench" / "adm_vp.io.pt", weights_only=True)
    architecture = ADMArchitecture(16, 32, 1, (1, 1), (8,), num_head_channels=16)
    prior = EDM(str(karras / "inversebench" / "adm_vp.weights.pt"), architecture=architecture)
    assert prior.network.preconditioning == "vp"
    for row, sigma in enumerate(numbers["sigmas"]):
        x = numbers["x"][row].clone().requires_grad_()
        estimate = prior.network(x, sigma.expand(2))
        (vjp,) = torch.autograd.grad(estimate, x, numbers["v"])
        assert relative(estimate.detach(), numbers["D"][row]) < 2e-5
        assert relative(vjp, numbers["vjp"][row]) < 2e-5


def test_a_block_of_four_heads_is_the_original_s(karras, monkeypatch):
    numbers = torch.load(karras / "edm" / "unetblock_4heads.pt", weights_only=True)
    block = UNetBlock(16, 32, 24, heads=4, song=False)
    block.load_state_dict({key: value.float() for key, value in numbers["state_dict"].items()})
    x, emb = (numbers[key].clone().requires_grad_() for key in ("x", "emb"))
    y = block(x, emb)
    vjp_x, vjp_emb = torch.autograd.grad(y, (x, emb), numbers["v"])
    for ours, theirs in ((y.detach(), "y"), (vjp_x, "vjp_x"), (vjp_emb, "vjp_emb")):
        assert relative(ours, numbers[theirs]) < 1e-5


def published(karras):
    return sorted(
        file
        for folder in ("edm", "inversebench")
        for file in (karras / folder / "fullsize_keys").glob("*.gz")
        if "keys" in json.loads(gzip.decompress(file.read_bytes()))
    )


def test_published_networks_have_their_keys_and_shapes(karras):
    files = published(karras)
    assert len(files) >= 8
    for file in files:
        content = json.loads(gzip.decompress(file.read_bytes()))
        state = {key: torch.empty(shape, device="meta") for key, shape in content["keys"].items()}
        if "model.input_blocks.0.0.weight" in state:
            continue
        state = {key.removeprefix("model."): value for key, value in state.items()}
        architecture = architecture_of_state(state)
        with torch.device("meta"):
            network = (SongUNet if is_song(state) else DhariwalUNet)(architecture)
        assert {key: list(value.shape) for key, value in network.state_dict().items()} == {
            key: list(value.shape) for key, value in state.items()
        }, file.name
        assert sum(p.numel() for p in network.parameters()) == content["num_params"]
        made_with = content["constructor"]
        for key in ("img_resolution", "img_channels", "label_dim", "model_channels", "num_blocks"):
            assert getattr(architecture, key) == made_with.get(key, getattr(architecture, key))


def test_the_named_adm_has_its_published_keys(karras):
    content = json.loads(gzip.decompress((karras / "inversebench" / "fullsize_keys" / "ffhq256.json.gz").read_bytes()))
    known = dict(CARDS["ffhq256_inversebench"].architecture)
    assert known.pop("preconditioning") == "vp"
    from cclight.priors.adm_unet import ADMUNet

    with torch.device("meta"):
        network = Preconditioned(ADMUNet(ADMArchitecture(**known)), "vp")
    assert {key: list(value.shape) for key, value in network.state_dict().items()} == content["keys"]


def test_the_architecture_is_read_off_the_state_dict():
    for changes in (
        {},
        {"fourier": True, "residual": True, "taps": 4, "augment_dim": 9, "channel_mult_noise": 2},
        {"img_channels": 2, "img_resolution": 24, "label_dim": 5, "num_blocks": 2, "channel_mult": (1, 1, 2)},
    ):
        state = {key.removeprefix("model."): value for key, value in edm_state(**changes).items()}
        made = vars(SongUNet(UNetArchitecture(**{**vars(architecture_of_state(state)), **changes})).architecture)
        assert vars(architecture_of_state(state)) == made
        assert is_song(state)
    state = {key.removeprefix("model."): value for key, value in edm_state(song=False, channel_mult=(1, 8)).items()}
    assert not is_song(state)
    assert architecture_of_state(state).attn_resolutions == (8,)


WRAPPED = {
    "ema": lambda state: {"ema": state, "net": {key: 0 * value for key, value in state.items()}, "optimizer": {"lr": 1.0}},
    "net": lambda state: {"net": state},
    "bare": lambda state: state,
    "no prefix": lambda state: {"ema": {key.removeprefix("model."): value for key, value in state.items()}},
    "half": lambda state: {key: value.half().float() for key, value in state.items()},
}


@pytest.mark.parametrize("wrap", WRAPPED)
def test_every_published_layout_loads(tiny, wrap):
    x, rho = noise(2, 3, 16, 16), torch.tensor([0.1, 3.0])
    network = Preconditioned(SongUNet(UNetArchitecture(**architecture_vars())), "edm").eval()
    network.load_state_dict(edm_state())
    bound = 1e-2 if wrap == "half" else 1e-6
    assert relative(EDM(tiny(wrap=WRAPPED[wrap])).estimate(x, rho), network(x, rho).detach()) < bound


def architecture_vars():
    from tests.priors.tiny import TINY

    return vars(TINY)


def test_safetensors_load(tmp_path, tiny):
    save_file(edm_state(), tmp_path / "tiny.safetensors")
    x, rho = noise(2, 3, 16, 16), torch.tensor([0.1, 3.0])
    assert torch.equal(EDM(str(tmp_path / "tiny.safetensors")).estimate(x, rho), EDM(tiny()).estimate(x, rho))


@pytest.mark.parametrize("song", [True, False])
def test_it_serves_every_path(tiny, song):
    """x̂_0 on a path is D at the path's noise level: the same estimate on VP and OT of the same z."""
    file = tiny(song=song)
    vp, ot = EDM(file), EDM(file, path=OTPath())
    assert (vp.path, vp.parameterization) == (VPPath(), Epsilon())
    assert (ot.path, ot.parameterization) == (OTPath(), Velocity())
    z = noise(3, 3, 16, 16)
    ratio = torch.tensor([0.05, 0.7, 6.0])
    estimate = vp.estimate(z, ratio)
    for prior in (vp, ot):
        t = prior.path.time_at_ratio(ratio)
        alpha = prior.path.alpha(t).view(-1, 1, 1, 1)
        assert relative(prior.denoise(alpha * z, t), estimate) < 1e-4


def test_pure_noise_and_clean_images_are_shown_at_the_ends_of_the_range(tiny):
    prior = EDM(tiny(), path=OTPath())
    x = noise(2, 3, 16, 16)
    assert relative(prior.denoise(x, torch.zeros(2)), prior.estimate(80 * x, torch.full((2,), 80.0))) < 1e-5
    clean = prior.denoise(x, torch.ones(2))
    assert relative(clean, x) < 1e-2


def test_a_data_range_is_the_same_network_on_other_units(tiny):
    file = tiny()
    ours, wide = EDM(file), EDM(file, data_range=(-1.0, 3.0))
    z, rho = noise(2, 3, 16, 16), torch.tensor([0.3, 2.0])
    assert relative(wide.estimate(z, rho), (ours.estimate(1 + 2 * z, 2 * rho) - 1) / 2) < 1e-6
    assert (wide.rho_min, wide.rho_max) == (0.001, 40.0)


def test_c_noise_of_vp_is_the_time_of_its_path():
    coefficients = Preconditioned(torch.nn.Identity(), "vp").coefficients(torch.tensor([0.3, 4.0], dtype=torch.float64))
    t = coefficients[3] / 999
    b = 0.1 * t + 19.9 * t**2 / 2
    assert torch.allclose(torch.expm1(b).sqrt(), torch.tensor([0.3, 4.0], dtype=torch.float64))
    assert torch.allclose(coefficients[2], torch.exp(-b / 2))


@pytest.mark.parametrize("path", [VPPath(), OTPath()], ids=str)
def test_a_sampler_restores_through_it(tiny, path):
    """A network that puts out zeros leaves D = c_skip z: the exact denoiser of Gaussian images of deviation ½."""

    def silent(state):
        return {key: 0 * value if "_aux_conv" in key else value for key, value in state.items()}

    prior = EDM(tiny(wrap=silent, img_channels=1, label_dim=4), class_label=2, path=path)
    exact = GaussianMixture(torch.zeros(1, 1, 16, 16), torch.tensor([0.25]), path=path, parameterization=prior.parameterization)
    operator = AveragePooling(2)
    y, start = operator(noise(2, 1, 16, 16) / 2), noise(2, 1, 16, 16, seed=1)
    for sampler in (Conjugate(4, 3.0), DPS(4)):
        ours, theirs = (sampler.sample(p, operator, y, start).image for p in (prior, exact))
        assert relative(ours, theirs) < 1e-3


def refused(*arguments, **options):
    with pytest.raises((CheckpointError, ValueError)) as error:
        EDM(*arguments, **options)
    assert "\n" not in str(error.value)
    return str(error.value)


def test_what_does_not_fit_is_named(tiny, tmp_path):
    def without(state):
        state.pop("model.enc.16x16_block0.conv1.bias")
        return state | {"model.something": torch.zeros(2)}

    line = refused(tiny(wrap=without))
    assert "1 keys missing (model.enc.16x16_block0.conv1.bias)" in line
    assert "1 keys unexpected (model.something)" in line
    assert "holds no SongUNet, DhariwalUNet or ADM U-Net" in refused(tiny(wrap=lambda state: {"weight": torch.zeros(2)}))
    assert "set architecture" in refused(tiny(wrap=lambda state: {"model.input_blocks.0.0.weight": torch.zeros(8, 3, 3, 3)}))
    (tmp_path / "cut.pt").write_bytes((tmp_path / "tiny.pt").read_bytes()[:100])
    assert "truncated" in refused(str(tmp_path / "cut.pt"))
    assert "class_path to ADM" in refused("imagenet256")


def test_shapes_that_make_no_network_are_refused(tmp_path):
    """Keys of a checkpoint with another shape: one line, whatever it breaks."""
    whole = edm_state(channel_mult=(1, 2), label_dim=3, augment_dim=4, fourier=True, residual=True, taps=4)
    first = [key for key in whole if "_conv" in key or "map_" in key or "main" in key]
    for key in [*first, *list(whole)[::17]]:
        for shape in ((0,), (33, 3, 3, 3)):
            torch.save({**whole, key: torch.zeros(shape)}, tmp_path / "odd.pt")
            with pytest.raises(CheckpointError) as error:
                EDM(str(tmp_path / "odd.pt"))
            assert "\n" not in str(error.value)


def test_a_planted_pickle_is_not_executed(tmp_path):
    class Planted:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "executed"),)

    for name, wrapped in (("a.pt", Planted()), ("b.pt", {"ema": Planted()}), ("c.pkl", {"ema": Planted()})):
        torch.save(wrapped, tmp_path / name)
        refused(str(tmp_path / name))
        (tmp_path / name).write_bytes(pickle.dumps(wrapped))
        refused(str(tmp_path / name))
        assert not (tmp_path / "executed").exists()


def test_tiles_make_larger_images_of_it(tiny):
    prior = EDM(tiny())
    with pytest.raises(ValueError, match="wrap the prior in Tiled for larger ones"):
        prior.check_images((3, 24, 32))
    tiled = Tiled(prior)
    tiled.check_images((3, 24, 32))
    operator = AveragePooling(2)
    y = operator(noise(1, 3, 24, 32).clamp(-1, 1))
    assert Conjugate(2, 2.0).sample(tiled, operator, y, noise(1, 3, 24, 32, seed=1)).image.isfinite().all()


def test_values_out_of_range_are_refused(tiny):
    labelled = tiny("labelled.pt", label_dim=4)
    assert "takes no labels" in refused(tiny(), class_label=0)
    assert "knows the labels 0 ... 3" in refused(labelled, class_label=4)
    assert "lower value first" in refused(labelled, data_range=(1.0, 0.0))
    assert "choose one of edm, vp, ve" in refused(labelled, preconditioning="karras")
    with pytest.raises(ValueError, match=r"takes images of 3×16×16 .* set data.image_size to 16"):
        EDM(labelled).check_images((3, 32, 32))
    assert math.isclose(EDM(labelled).rho_max, 80)
