"""The embedded prior: its size, its preconditioning, its file format, and that one set of weights serves every path."""

from __future__ import annotations

import os
from importlib import resources

import numpy as np
import pytest
import torch

from cclight import Epsilon, OTPath, Sample, SmallPrior, Velocity, VPPath
from cclight.priors.small import SIGMA_DATA, SmallUNet, load, preconditioned, save


@pytest.fixture(scope="module")
def prior() -> SmallPrior:
    return SmallPrior(path=OTPath(), parameterization=Velocity())


def images(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def random_network(seed: int = 0) -> SmallUNet:
    """A small network all of whose weights matter: the zeros it starts from are filled in."""
    network = SmallUNet((8, 12), (1, 1))
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.copy_(0.1 * torch.randn(parameter.shape, generator=generator))
    return network


def test_it_is_as_small_as_it_says(prior):
    assert 1e6 < sum(p.numel() for p in prior.parameters()) < 4e6
    assert os.path.getsize(str(resources.files("cclight") / "assets" / "small.safetensors")) < 8e6
    assert (resources.files("cclight") / "assets" / "small.md").is_file()


def test_any_size_that_its_stride_divides(prior):
    for height, width in ((16, 16), (48, 80)):
        x = images(1, 3, height, width)
        assert prior(x, torch.full((1,), 0.5)).shape == x.shape
    with pytest.raises(ValueError, match="divisible by 16, got 40×50"):
        prior.check_images((3, 40, 50))
    with pytest.raises(ValueError, match="3 channels, got 1"):
        prior.check_images((1, 32, 32))


def test_one_image_does_not_look_at_another(prior):
    x, t = images(3, 3, 32, 32), torch.tensor([0.3, 0.6, 0.9])
    together = prior(x, t)
    alone = torch.cat([prior(x[i : i + 1], t[i : i + 1]) for i in range(3)])
    torch.testing.assert_close(together, alone, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("ratio", [0.05, 0.5, 2.0, 20.0])
def test_paths_and_parameterizations_give_one_denoiser_at_equal_noise(ratio):
    clean, noise = images(2, 3, 32, 32).clamp(-1, 1), images(2, 3, 32, 32, seed=1)
    denoised = []
    for path in (VPPath(), OTPath()):
        for parameterization in (Epsilon(), Velocity(), Sample()):
            prior = SmallPrior(path=path, parameterization=parameterization).double()
            t = path.time_at_ratio(torch.full((2,), ratio, dtype=torch.float64))
            time = t.view(-1, 1, 1, 1)
            denoised.append(prior.denoise(path.alpha(time) * clean + path.sigma(time) * noise, t))
    for other in denoised[1:]:
        torch.testing.assert_close(other, denoised[0], rtol=1e-8, atol=1e-8)


def test_pure_noise_is_no_special_case(prior):
    """α = 0 at the start of the OT path."""
    x = images(1, 3, 32, 32)
    estimate = prior.denoise(x, torch.zeros(1))
    assert estimate.isfinite().all()
    torch.testing.assert_close(estimate, prior.denoise(x, torch.full((1,), 1e-4)), rtol=0, atol=0.02)


def test_preconditioning_is_edms():
    network, x, ratio = random_network(), images(1, 3, 8, 8), torch.tensor([0.7])
    total = (0.7**2 + SIGMA_DATA**2) ** 0.5
    expected = (SIGMA_DATA / total) ** 2 * x + 0.7 * SIGMA_DATA / total * network(x / total, ratio.log())
    torch.testing.assert_close(preconditioned(network, x, torch.ones(1), ratio), expected)
    # The same image on a path scaled by α.
    scaled = preconditioned(network, 0.6 * x, torch.tensor([0.6]), 0.6 * ratio)
    torch.testing.assert_close(scaled, expected, rtol=1e-4, atol=1e-5)


def test_it_denoises_photographs(prior, photographs):
    """Closer to the photograph than the noisy image and than a local mean, at a noise level that hides detail."""
    from torch.nn.functional import avg_pool2d

    from cclight import ImageFolder

    pictures = [np.array(p.image) for p in ImageFolder(str(photographs / "dev")).shard(0, 10)]
    clean = torch.stack([torch.from_numpy(p[96:160, 96:160]).permute(2, 0, 1) for p in pictures]) / 127.5 - 1
    noisy = clean + 0.3 * images(*clean.shape)
    t = OTPath().time_at_ratio(torch.full((6,), 0.3))
    error = (prior.denoise(t.view(-1, 1, 1, 1) * noisy, t) - clean).square().mean()
    assert error < (avg_pool2d(noisy, 3, 1, 1) - clean).square().mean() / 2
    assert error < 0.3**2 / 4


def test_saved_networks_come_back(tmp_path):
    network = random_network()
    path = tmp_path / "prior.safetensors"
    save(network, path, "for a test")
    assert [p.name for p in tmp_path.iterdir()] == ["prior.safetensors"]
    restored = load(str(path))
    assert (restored.widths, restored.depths) == ((8, 12), (1, 1))
    for key, value in network.state_dict().items():
        torch.testing.assert_close(restored.state_dict()[key], value.half().float(), rtol=0, atol=0)
    assert SmallPrior(weights=str(path)).stride == 4


def test_missing_and_foreign_weights_are_refused(tmp_path):
    from safetensors.torch import save_file

    with pytest.raises(FileNotFoundError, match=r"No weights at .*nowhere\.safetensors: give a file that `cclight export`"):
        SmallPrior(weights=str(tmp_path / "nowhere.safetensors"))
    broken = tmp_path / "broken.safetensors"
    broken.write_bytes(b"not at all")
    with pytest.raises(ValueError, match=r"broken\.safetensors is no readable safetensors file"):
        SmallPrior(weights=str(broken))
    foreign = tmp_path / "foreign.safetensors"
    save_file({"a": torch.zeros(1)}, foreign)
    with pytest.raises(ValueError, match="is no export of a SmallPrior"):
        SmallPrior(weights=str(foreign))


def test_weights_that_are_not_finite_are_neither_written_nor_loaded(tmp_path):
    from safetensors import safe_open
    from safetensors.torch import save_file

    network, path = random_network(), tmp_path / "prior.safetensors"
    save(network, path)
    with safe_open(path, "pt") as file:
        metadata, state = file.metadata(), {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
    state["stem.weight"][0, 0] = torch.nan
    save_file(state, path, metadata)
    with pytest.raises(ValueError, match=r"not finite in 1 of \d+ weights \(stem\.weight\)"):
        SmallPrior(weights=str(path))
    with torch.no_grad():
        network.stem.weight[0, 0] = 1e5  # finite, and beyond what float16 holds
    with pytest.raises(ValueError, match=r"not finite in 1 of \d+ weights \(stem\.weight\)"):
        save(network, tmp_path / "other.safetensors")
    assert not (tmp_path / "other.safetensors").exists()


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"widths": None}, "does not say which network"),
        ({"widths": "many"}, "does not say which network"),
        ({"depths": "1"}, "describes no network"),
        ({"depths": "1, 100000000"}, "describes no network"),
        ({"widths": "8, 16"}, r"does not fit SmallUNet: \d+ keys of another shape"),
        ({"widths": "100000000, 100000000"}, "does not fit SmallUNet"),
    ],
)
def test_metadata_that_lies_is_refused_at_once(tmp_path, changes, complaint):
    from safetensors import safe_open
    from safetensors.torch import save_file

    path = tmp_path / "prior.safetensors"
    save(random_network(), path)
    with safe_open(path, "pt") as file:
        metadata, state = file.metadata() | changes, {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
    save_file(state, path, {key: value for key, value in metadata.items() if value is not None})
    with pytest.raises(ValueError, match=complaint) as error:
        load(str(path))
    assert "\n" not in str(error.value)


def test_loading_leaves_the_global_generator_alone():
    before = torch.get_rng_state()
    load()
    assert torch.equal(before, torch.get_rng_state())


def test_a_training_checkpoint_is_no_export_and_the_remedy_is_named(tmp_path):
    (tmp_path / "last.ckpt").write_bytes(b"PK")
    with pytest.raises(ValueError, match="`cclight export` makes one of a training's checkpoint"):
        SmallPrior(weights=str(tmp_path / "last.ckpt"))
