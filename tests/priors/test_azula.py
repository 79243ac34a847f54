"""cclight/priors/azula.py: azula's own denoisers with tiny random networks; nothing is downloaded."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from cclight import AzulaPrior, Conjugate, OTPath, VPPath
from cclight.operators.pixelwise import AveragePooling
from cclight.priors.checkpoints import CheckpointError
from tests.priors.tiny import seeded

azula = pytest.importorskip("azula", reason="needs the extra cclight[azula]")
denoise, noise_schedules = pytest.importorskip("azula.denoise"), pytest.importorskip("azula.noise")
plugins = {name: pytest.importorskip(f"azula.plugins.{name}") for name in ("adm", "jit", "vdm")}

ADM = {
    "image_size": 16,
    "num_channels": 32,
    "num_res_blocks": 1,
    "channel_mult": (1, 1),
    "attention_resolutions": (8,),
    "num_head_channels": 16,
    "use_scale_shift_norm": True,
    "resblock_updown": True,
}


class Backbone(nn.Module):
    """A convolution that its time modulates."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 3, 3, padding=1, bias=False)
        with torch.no_grad():
            self.conv.weight.copy_(torch.randn(3, 3, 3, 3, generator=torch.Generator().manual_seed(0)) / 3)

    def forward(self, x, t, **_):
        return self.conv(x) * torch.cos(t.reshape(-1, 1, 1, 1))


def jit_denoiser():
    from azula.plugins.jit._src.model import JiT

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        backbone = JiT(
            input_size=16,
            patch_size=4,
            hidden_size=32,
            depth=2,
            num_heads=2,
            num_classes=10,
            bottleneck_dim=8,
            in_context_len=2,
            in_context_start=1,
        )
    return plugins["jit"].JITDenoiser(seeded(backbone), num_classes=10)


def adm_denoiser(**changes):
    denoiser = plugins["adm"].make_model(**{**ADM, "clip_mean": False, **changes})
    seeded(denoiser.backbone)
    return denoiser.eval()


DENOISERS = {
    "Karras": lambda: denoise.KarrasDenoiser(Backbone(), noise_schedules.VPSchedule()),
    "Simple": lambda: denoise.SimpleDenoiser(Backbone(), noise_schedules.VPSchedule()),
    "vdm": lambda: plugins["vdm"].VelocityDenoiser(Backbone(), noise_schedules.VPSchedule()),
    "adm": adm_denoiser,
}


def noise(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def relative(a, b):
    return float((a - b).abs().max() / b.abs().max())


@pytest.mark.parametrize("name", DENOISERS)
@pytest.mark.parametrize("path", [VPPath(), OTPath()], ids=str)
def test_the_estimate_is_azula_s_own_on_azula_s_own_schedule(name, path):
    """What azula gives on its schedule at a time, we give on ours at the time of equal noise-to-signal ratio."""
    theirs, prior = DENOISERS[name](), AzulaPrior(denoiser=DENOISERS[name](), path=path)
    for time in (0.3, 0.55, 0.9):
        t = torch.full((2,), time)
        alpha, sigma = theirs.schedule(t)
        z = noise(2, 3, 16, 16)
        with torch.no_grad():
            expected = theirs(alpha.view(-1, 1, 1, 1) * z, t).mean
        own = path.time_at_ratio((sigma / alpha).double()).float()
        ours = prior.denoise(path.alpha(own).view(-1, 1, 1, 1) * z, own)
        # vdm's formula wants α² + σ² = 1, which its own schedule misses by 1e-6.
        assert relative(ours, expected) < 2e-4, time


def test_labels_reach_jit_and_its_null_class_stands_for_none(monkeypatch):
    theirs, prior = jit_denoiser(), AzulaPrior(denoiser=jit_denoiser())
    assert (prior.labels, prior.needs_label, prior.image_shape) == (10, False, (3, 16, 16))
    z, rho = noise(2, 3, 16, 16), torch.tensor([0.5, 2.0])
    theirs.schedule = lambda t: (torch.ones_like(t), t)
    monkeypatch.setattr("torch._dynamo.config.disable", True)  # azula's own compilation takes twenty seconds
    for ours, label in ((torch.tensor([3, 7]), torch.tensor([3, 7])), (torch.tensor([3, -1]), torch.tensor([3, 10]))):
        assert relative(prior.estimate(z, rho, ours), theirs(z, rho, label=label).mean.detach()) < 1e-5
    assert relative(prior.estimate(z, rho), theirs(z, rho).mean.detach()) < 1e-5
    constant = AzulaPrior(denoiser=jit_denoiser(), class_label=3)
    assert torch.allclose(constant.estimate(z, rho), prior.estimate(z, rho, torch.tensor([3, 3])))
    assert relative(prior.estimate(z, rho, torch.tensor([3, 3])), prior.estimate(z, rho)) > 1e-2


def test_adm_with_labels_needs_one():
    prior = AzulaPrior(denoiser=adm_denoiser(num_classes=4))
    z, rho = noise(2, 3, 16, 16), torch.tensor([0.5, 2.0])
    with pytest.raises(ValueError, match="needs a label per image"):
        prior.estimate(z, rho)
    assert not torch.allclose(prior.estimate(z, rho, torch.tensor([0, 1])), prior.estimate(z, rho, torch.tensor([2, 1])))
    with pytest.raises(ValueError, match=r"knows the labels 0 \.\.\. 3"):
        AzulaPrior(denoiser=adm_denoiser(num_classes=4), class_label=4)


def test_adm_is_not_clipped_so_that_gradients_pass():
    prior = AzulaPrior(denoiser=adm_denoiser(clip_mean=True))
    x = (30 * noise(1, 3, 16, 16)).requires_grad_()
    estimate = prior.estimate(x, torch.tensor([0.1]))
    assert estimate.abs().max() > 1
    (gradient,) = torch.autograd.grad(estimate.sum(), x)
    assert gradient.ne(0).all()


def test_a_plugin_s_network_loads_from_a_file(tmp_path):
    denoiser = adm_denoiser()
    file = str(tmp_path / "adm.pt")
    torch.save(denoiser.backbone.state_dict(), file)
    prior = AzulaPrior(
        "adm", config={**ADM, "channel_mult": [1, 1], "attention_resolutions": [8]}, checkpoint=str(tmp_path / "adm.pt")
    )
    other = AzulaPrior(denoiser=denoiser)
    z, rho = noise(2, 3, 16, 16), torch.tensor([0.5, 2.0])
    assert torch.equal(prior.estimate(z, rho), other.estimate(z, rho))
    assert prior.image_shape == (3, 16, 16)
    operator = AveragePooling(2)
    y = operator(z.clamp(-1, 1))
    assert Conjugate(2, 2.0).sample(prior, operator, y, z).image.isfinite().all()


@pytest.mark.parametrize(
    ("options", "line"),
    [
        ({}, "a plugin or a denoiser, one of the two"),
        ({"plugin": "edm", "model": "ffhq_64x64"}, "executes source text .* choose the prior EDM"),
        ({"plugin": "sd", "model": "sd_1.5"}, "it denoises latents"),
        ({"plugin": "jitt", "model": "x"}, "no such plugin"),
        ({"plugin": "jit", "model": "jit_b"}, r"azula's plugin jit has jit_0\.1b_16"),
        ({"plugin": "jit"}, "needs a model of the plugin jit"),
        ({"denoiser": nn.Identity()}, "give an azula.denoise.Denoiser"),
        ({"plugin": "adm", "config": {"sides": 3}, "checkpoint": "?"}, "config does not fit azula's plugin adm"),
        ({"plugin": "adm", "config": ADM, "checkpoint": "?"}, "does not fit UNetModel: .* keys missing"),
    ],
)
def test_what_cannot_be_had_is_one_line(options, line, tmp_path):
    torch.save({"weight": torch.zeros(2)}, tmp_path / "other.pt")
    if options.get("checkpoint") == "?":
        options = {**options, "checkpoint": str(tmp_path / "other.pt")}
    with pytest.raises(ValueError, match=line) as error:
        AzulaPrior(**options)
    assert "\n" not in str(error.value)


def test_without_a_network_the_file_is_named(tmp_path, monkeypatch):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    with pytest.raises(CheckpointError, match=r"from https://www\.dropbox.* save it as .*jit_0\.1b_16\.pth"):
        AzulaPrior("jit", "jit_0.1b_16")
