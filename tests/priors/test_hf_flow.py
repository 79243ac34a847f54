"""cclight/priors/hf_flow.py: against diffusers' own scheduler, on small random networks saved here."""

from __future__ import annotations

import json

import pytest
import torch

from cclight import Conjugate, DiffusersFlow
from cclight.operators.pixelwise import AveragePooling
from cclight.paths.gaussian import OTPath
from cclight.paths.parameterization import Epsilon, Sample, Velocity
from cclight.priors.checkpoints import CheckpointError

diffusers = pytest.importorskip("diffusers", reason="needs the extra cclight[diffusers]")
SIDE = 16
UNET = {
    "sample_size": SIDE,
    "layers_per_block": 1,
    "block_out_channels": (16, 32),
    "down_block_types": ("DownBlock2D", "AttnDownBlock2D"),
    "up_block_types": ("AttnUpBlock2D", "UpBlock2D"),
    "norm_num_groups": 8,
    "attention_head_dim": 8,
}
DIT = {
    "num_attention_heads": 2,
    "attention_head_dim": 8,
    "in_channels": 3,
    "out_channels": 6,
    "num_layers": 2,
    "sample_size": SIDE,
    "patch_size": 4,
    "num_embeds_ada_norm": 5,
    "norm_num_groups": 1,
}


def relative(a, b):
    return float((a - b).abs().max() / b.abs().max())


def noise(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def network(kind="UNet2DModel", **changes):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        made = getattr(diffusers, kind)(**{**(UNET if kind == "UNet2DModel" else DIT), **changes})
        for parameter in made.parameters():  # what training begins at zero would say nothing
            if parameter.ndim > 1 and not parameter.abs().sum():
                torch.nn.init.normal_(parameter, std=0.3)
    return made.eval()


@pytest.fixture
def save(tmp_path):
    """A function that saves a pipeline of the given network, and returns its folder."""

    def saved(made, place="unet", scheduler=None, more=(), **scheduler_settings):
        scheduler = scheduler or diffusers.FlowMatchEulerDiscreteScheduler(shift=3.0)
        folder = tmp_path / "pipeline"
        made.save_pretrained(folder / place)
        scheduler.save_pretrained(folder / "scheduler")
        index = {name: ["diffusers", type(part).__name__] for name, part in ((place, made), ("scheduler", scheduler))}
        (folder / "model_index.json").write_text(json.dumps({"_class_name": "MyPipeline", **index, **dict(more)}))
        file = folder / "scheduler" / "scheduler_config.json"
        file.write_text(json.dumps(json.loads(file.read_text()) | scheduler_settings))
        return str(folder)

    return saved


def test_euler_steps_along_the_path_are_those_of_diffusers(save):
    """Each step of their scheduler, shifted times and all, is an Euler step of our velocity."""
    made = network()
    prior = DiffusersFlow(save(made))
    assert (prior.path, prior.parameterization, prior.image_shape) == (OTPath(), Velocity(), (3, SIDE, SIDE))
    scheduler = diffusers.FlowMatchEulerDiscreteScheduler(shift=3.0)
    scheduler.set_timesteps(6)
    x = theirs = noise(2, 3, SIDE, SIDE)
    with torch.no_grad():
        for step, timestep in enumerate(scheduler.timesteps):
            theirs = scheduler.step(made(theirs, timestep).sample, timestep, theirs).prev_sample
            t, after = 1 - scheduler.sigmas[step], 1 - scheduler.sigmas[step + 1]
            x = x + (after - t) * prior(x, t.expand(2))
            assert relative(x, theirs) < 1e-4


@pytest.mark.parametrize(("word", "meaning"), [("sample", Sample), ("epsilon", Epsilon)])
def test_other_predictions(save, word, meaning):
    made = network()
    x, sigma = noise(2, 3, SIDE, SIDE), torch.tensor([0.2, 0.8])
    with torch.no_grad():
        output = made(x, 1000 * sigma).sample
    column = sigma.view(-1, 1, 1, 1)
    expected = output if word == "sample" else (x - column * output) / (1 - column)
    folder = save(made, prediction_type=word)
    for prior in (DiffusersFlow(folder), DiffusersFlow(folder, prediction=word)):
        assert prior.parameterization == meaning()
        assert relative(prior.denoise(x, 1 - sigma), expected) < 1e-5


def test_a_transformer_with_labels_and_without(save):
    made = network("DiTTransformer2DModel")
    prior = DiffusersFlow(save(made, "transformer"))
    assert (prior.labels, prior.needs_label, prior.image_shape) == (5, False, (3, SIDE, SIDE))
    x, sigma = noise(2, 3, SIDE, SIDE), torch.tensor([0.2, 0.8])
    for given, theirs in ((torch.tensor([1, 4]), [1, 4]), (torch.tensor([1, -1]), [1, 5]), (None, [5, 5])):
        with torch.no_grad():
            expected = -made(x, 1000 * sigma, class_labels=torch.tensor(theirs)).sample[:, :3]
        assert relative(prior(x, 1 - sigma, given), expected) < 1e-5
    constant = DiffusersFlow(str(save(made, "transformer")), class_label=4)
    assert torch.equal(constant(x, 1 - sigma), prior(x, 1 - sigma, torch.tensor([4, 4])))
    operator = AveragePooling(2)
    image = Conjugate(2, 2.0).sample(constant, operator, operator(x.clamp(-1, 1)), noise(2, 3, SIDE, SIDE, seed=1)).image
    assert image.isfinite().all()


def test_a_unet_with_labels_needs_one(save):
    prior = DiffusersFlow(save(network(num_class_embeds=3)))
    x, t = noise(2, 3, SIDE, SIDE), torch.tensor([0.2, 0.8])
    with pytest.raises(ValueError, match=r"needs a label per image .* 0 \.\.\. 2"):
        prior(x, t)
    assert not torch.allclose(prior(x, t, torch.tensor([0, 1])), prior(x, t, torch.tensor([2, 1])))


def test_any_size_where_sample_size_is_null(save):
    prior = DiffusersFlow(save(network(sample_size=None)))
    prior.check_images((3, 8, 12))
    with pytest.raises(ValueError, match="divisible by 2"):
        prior.check_images((3, 9, 8))


@pytest.mark.parametrize(
    ("options", "line"),
    [
        ({"scheduler": diffusers.DDPMScheduler()}, "its scheduler is DDPMScheduler of diffusers.*choose DiffusersPrior"),
        ({"more": {"vae": ["diffusers", "AutoencoderKL"]}}, "it also needs vae"),
        ({"more": {"unet": ["my_code", "UNet2DModel"]}}, "it has no unet UNet2DModel"),
        ({"prediction_type": "noise"}, "set prediction to one of velocity, sample, epsilon"),
    ],
    ids=str,
)
def test_other_pipelines_are_refused_in_one_line(save, options, line):
    folder = save(network(), **options)
    with pytest.raises(ValueError, match=line) as error:
        DiffusersFlow(folder)
    assert "\n" not in str(error.value)


def test_weights_of_another_network_are_named(save, tmp_path):
    folder = save(network())
    network(layers_per_block=2).save_pretrained(tmp_path / "other")
    weights = "diffusion_pytorch_model.safetensors"
    (tmp_path / "pipeline" / "unet" / weights).write_bytes((tmp_path / "other" / weights).read_bytes())
    with pytest.raises(CheckpointError, match=r"does not fit UNet2DModel: .* keys unexpected"):
        DiffusersFlow(folder)
