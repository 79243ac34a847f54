"""cclight/priors/hf_diffusers.py: against diffusers' own schedulers, on small random pipelines saved here."""

import json
from pathlib import Path

import pytest
import torch

from cclight.operators.pixelwise import AveragePooling
from cclight.paths.discrete import DiscretePath
from cclight.paths.parameterization import Epsilon, Sample
from cclight.priors.checkpoints import CheckpointError
from cclight.priors.hf_diffusers import AngularVelocity, DiffusersPrior
from cclight.samplers.conjugate import Conjugate
from cclight.samplers.ddrm import DDRM
from cclight.samplers.diffpir import DiffPIR
from cclight.samplers.dps import DPS
from cclight.samplers.otode import OTODE
from cclight.samplers.pigdm import PiGDM
from cclight.samplers.pnpflow import PnPFlow
from cclight.samplers.reddiff import REDDiff

diffusers = pytest.importorskip("diffusers", reason="needs the extra cclight[diffusers]")
SIDE = 16


def unet(seed=0, **changes):
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return diffusers.UNet2DModel(
            **{
                "sample_size": SIDE,
                "layers_per_block": 1,
                "block_out_channels": (16, 32),
                "down_block_types": ("DownBlock2D", "AttnDownBlock2D"),
                "up_block_types": ("AttnUpBlock2D", "UpBlock2D"),
                "norm_num_groups": 8,
                "attention_head_dim": 8,
            }
            | changes
        )


@pytest.fixture
def save(tmp_path):
    def saved(scheduler=None, **changes):
        pipeline = diffusers.DDPMPipeline(unet(**changes), scheduler or diffusers.DDPMScheduler())
        pipeline.save_pretrained(tmp_path / "pipeline")
        return str(tmp_path / "pipeline")

    return saved


def images(batch=2, channels=3):
    return torch.randn(batch, channels, SIDE, SIDE, generator=torch.Generator().manual_seed(1))


SCHEDULES = [
    {"beta_schedule": "linear"},
    {"beta_schedule": "squaredcos_cap_v2"},
    {"beta_schedule": "scaled_linear", "num_train_timesteps": 250},
]


@pytest.mark.parametrize("schedule", SCHEDULES, ids=str)
@pytest.mark.parametrize(
    ("prediction", "meaning"), [("epsilon", Epsilon), ("v_prediction", AngularVelocity), ("sample", Sample)]
)
def test_the_denoised_estimate_is_that_of_diffusers_at_every_training_step(save, prediction, meaning, schedule):
    scheduler = diffusers.DDIMScheduler(prediction_type=prediction, clip_sample=False, **schedule)
    prior = DiffusersPrior(save(scheduler))
    assert prior.parameterization == meaning()
    assert prior.image_shape == (3, SIDE, SIDE)
    x, steps = images(), scheduler.config.num_train_timesteps
    scheduler.set_timesteps(steps)
    network = unet()
    for index in (0, 1, steps // 3, steps // 2, int(0.9 * steps)):
        with torch.no_grad():
            output = network(x, torch.tensor(index)).sample
            ours = prior.denoise(x, torch.full((2,), (index + 1) / steps))
        theirs = scheduler.step(output, index, x).pred_original_sample
        assert float((ours - theirs).norm() / theirs.norm()) < 1e-4


def test_the_path_is_the_schedulers_table(save):
    prior = DiffusersPrior(save(diffusers.DDPMScheduler(beta_schedule="squaredcos_cap_v2")))
    assert isinstance(prior.path, DiscretePath)
    t = torch.arange(1, 1001, dtype=torch.float64) / 1000
    assert torch.allclose(
        (prior.path.alpha(t) ** 2).float(), diffusers.DDPMScheduler(beta_schedule="squaredcos_cap_v2").alphas_cumprod, rtol=1e-4
    )


@pytest.mark.parametrize(
    "sampler",
    [
        Conjugate(steps=3, guidance=2.0),
        Conjugate(steps=3, guidance=2.0, order=2, timesteps="logsnr"),
        PiGDM(steps=3),
        DPS(steps=3),
        DDRM(steps=3),
        DiffPIR(steps=3),
        REDDiff(steps=3),
        OTODE(steps=3),
        PnPFlow(steps=3, samples=1),
    ],
    ids=lambda sampler: type(sampler).__name__,
)
@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction", "sample"])
def test_every_sampler_runs_on_every_prediction(save, sampler, prediction):
    prior = DiffusersPrior(save(diffusers.DDPMScheduler(prediction_type=prediction)))
    operator, noise = AveragePooling(factor=4), images()
    y = operator(images().clamp(-1, 1))
    image = sampler.sample(prior, operator, y, noise).image
    assert image.shape == noise.shape
    assert image.isfinite().all()


def test_grey_images_and_learned_variances(save):
    prior = DiffusersPrior(save(in_channels=1, out_channels=2))
    assert (prior.channels, prior.image_shape) == (1, (1, SIDE, SIDE))
    prior.check_images((1, SIDE, SIDE))
    x, t = images(channels=1), torch.tensor([0.3, 0.6])
    with torch.no_grad():
        assert torch.equal(prior(x, t), unet(in_channels=1, out_channels=2)(x, 1000 * t - 1).sample[:, :1])


def test_it_is_frozen(save):
    prior = DiffusersPrior(save())
    assert not any(p.requires_grad for p in prior.parameters())
    assert not any(module.training for module in prior.network.modules())


def test_a_pipeline_that_cannot_be_run_is_refused(save, tmp_path):
    with pytest.raises(
        CheckpointError, match=r"nowhere is no diffusers pipeline .*give owner/repository of the hub, or a folder"
    ) as error:
        DiffusersPrior(str(tmp_path / "nowhere"))
    assert "\n" not in str(error.value)
    with pytest.raises(CheckpointError, match="its network is class-conditional"):
        DiffusersPrior(save(num_class_embeds=10))
    with pytest.raises(CheckpointError, match="ScoreSdeVeScheduler has no table of noise rates"):
        DiffusersPrior(save(diffusers.ScoreSdeVeScheduler()))


def test_a_network_of_no_given_size_takes_any_that_its_levels_halve(save):
    prior = DiffusersPrior(save(sample_size=None))
    assert (prior.image_shape, prior.stride) == (None, 2)
    prior.check_images((3, 14, 22))
    assert prior(torch.zeros(1, 3, 14, 22), torch.tensor([0.5])).shape == (1, 3, 14, 22)
    with pytest.raises(ValueError, match="divisible by 2, got 15×22"):
        prior.check_images((3, 15, 22))


def edit(file, **changes):
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))


CODE = """
from pathlib import Path
Path({witness!r}).touch()
from diffusers import DDPMPipeline as Mine, UNet2DModel, DDPMScheduler
class Mine(Mine): pass
class MyUNet(UNet2DModel): pass
class MyScheduler(DDPMScheduler): pass
"""


@pytest.mark.parametrize(
    ("planted", "entry", "refusal"),
    [
        ("pipeline.py", {"_class_name": ["pipeline", "Mine"]}, None),
        ("unet/mine.py", {"unet": ["mine", "MyUNet"]}, "its network is MyUNet of mine, not a UNet2DModel of diffusers"),
        ("scheduler/mine.py", {"scheduler": ["mine", "MyScheduler"]}, "its scheduler is MyScheduler of mine, not one of diff"),
    ],
)
def test_python_files_of_a_pipeline_do_not_run(save, tmp_path, planted, entry, refusal):
    folder, witness = Path(save()), tmp_path / "executed"
    (folder / planted).write_text(CODE.format(witness=str(witness)))
    edit(folder / "model_index.json", **entry)
    edit(folder / "unet" / "config.json", auto_map={"AutoModel": "mine.MyUNet"})
    if refusal is None:
        DiffusersPrior(str(folder))
    else:
        with pytest.raises(CheckpointError, match=refusal):
            DiffusersPrior(str(folder))
    assert not witness.exists()


class Malice:
    def __init__(self, witness):
        self.witness = witness

    def __reduce__(self):
        return Path.touch, (self.witness,)


def test_a_bin_file_is_read_and_never_run(save, tmp_path):
    folder, witness = Path(save()), tmp_path / "executed"
    weights = folder / "unet" / "diffusion_pytorch_model.safetensors"
    before = DiffusersPrior(str(folder))
    weights.unlink()
    torch.save(before.network.state_dict(), weights.with_suffix(".bin"))
    x, t = images(), torch.tensor([0.3, 0.6])
    assert torch.equal(DiffusersPrior(str(folder))(x, t), before(x, t))
    torch.save(before.network.state_dict() | {"extra": Malice(witness)}, weights.with_suffix(".bin"))
    with pytest.raises(CheckpointError, match="holds Python objects"):
        DiffusersPrior(str(folder))
    assert not witness.exists()


def test_an_old_repository_keeps_all_in_one_folder_under_old_names(save, tmp_path):
    from safetensors.torch import load_file, save_file

    folder, old = Path(save()), tmp_path / "old"
    old.mkdir()
    state = load_file(folder / "unet" / "diffusion_pytorch_model.safetensors")
    names = {".to_q.": ".query.", ".to_k.": ".key.", ".to_v.": ".value.", ".to_out.0.": ".proj_attn."}
    renamed = {}
    for key, value in state.items():
        for new, former in names.items():
            key = key.replace(new, former)
        renamed[key] = value
    assert renamed.keys() != state.keys()
    save_file(renamed, old / "diffusion_pytorch_model.safetensors")
    for file in ("model_index.json", "unet/config.json", "scheduler/scheduler_config.json"):
        (old / Path(file).name).write_bytes((folder / file).read_bytes())
    x, t = images(), torch.tensor([0.3, 0.6])
    assert torch.equal(DiffusersPrior(str(old))(x, t), DiffusersPrior(str(folder))(x, t))


@pytest.mark.parametrize(
    ("file", "content", "complaint"),
    [
        ("model_index.json", "no json", "holds no JSON"),
        ("model_index.json", "[]", "holds a list, not settings"),
        ("model_index.json", "{}", "its network is missing"),
        ("unet/config.json", '{"block_out_channels": "wide"}', "its settings make no network"),
        ("scheduler/scheduler_config.json", '{"num_train_timesteps": "many"}', "its settings make no network and scheduler"),
        ("unet/diffusion_pytorch_model.safetensors", "half", "is truncated or no checkpoint"),
    ],
)
def test_damaged_pipelines_get_one_line(save, file, content, complaint):
    folder = Path(save())
    (folder / file).write_text(content)
    with pytest.raises(CheckpointError, match=complaint) as error:
        DiffusersPrior(str(folder))
    assert "\n" not in str(error.value)


def test_missing_weights_are_not_made_up(save):
    """diffusers itself fills what a file lacks with random numbers."""
    from safetensors.torch import load_file, save_file

    file = Path(save()) / "unet" / "diffusion_pytorch_model.safetensors"
    state = load_file(file)
    del state["conv_in.weight"]
    save_file(state, file)
    with pytest.raises(CheckpointError, match=r"does not fit UNet2DModel: 1 keys missing \(conv_in\.weight\)"):
        DiffusersPrior(str(file.parents[1]))
    file.unlink()
    with pytest.raises(CheckpointError, match="it has no unet/diffusion_pytorch_model"):
        DiffusersPrior(str(file.parents[1]))


def test_without_diffusers_the_error_says_what_to_install(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "diffusers", None)
    with pytest.raises(ImportError, match=r"needs the package diffusers: pip install 'cclight\[diffusers\]'"):
        DiffusersPrior("anything")
