"""configs/priors: each restores with a tiny checkpoint in the place of the published one."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from PIL import Image

from cclight.commands.predict import PredictCLI
from cclight.configs import packaged_configs
from tests.priors.pipelines import flow_pipeline, stable_diffusion
from tests.priors.tiny import edm_state, pnpflow_state, seeded

PRIORS = sorted(path.stem for path in (packaged_configs() / "priors").glob("*.yaml"))


def edm(folder):
    torch.save(edm_state(), folder / "tiny.pt")
    return ["--model.prior.init_args.checkpoint", str(folder / "tiny.pt")]


def pnpflow(folder):
    torch.save(pnpflow_state(), folder / "tiny.pt")
    return ["--model.prior.init_args.checkpoint", str(folder / "tiny.pt")]


def azula(folder):
    adm = pytest.importorskip("azula.plugins.adm", reason="needs the extra cclight[azula]")
    config = {"image_size": 16, "num_channels": 32, "num_res_blocks": 1, "channel_mult": [1, 1], "attention_resolutions": [8]}
    torch.save(seeded(adm.make_model(**config).backbone).state_dict(), folder / "tiny.pt")
    given = {"plugin": "adm", "model": None, "config": config, "checkpoint": str(folder / "tiny.pt")}
    return [word for key, value in given.items() for word in (f"--model.prior.init_args.{key}", json.dumps(value).strip('"'))]


def deepinv(folder):
    models = pytest.importorskip("deepinv.models", reason="needs the extra cclight[deepinv]")
    size = {"nc": [8, 8, 8, 8], "nb": 1}
    torch.save(seeded(models.DRUNet(**size, pretrained=None)).state_dict(), folder / "tiny.pth")
    arguments = {**size, "pretrained": str(folder / "tiny.pth")}
    denoiser = {"class_path": "deepinv.models.DRUNet", "init_args": arguments}
    return ["--model.prior.init_args.denoiser", json.dumps(denoiser), "--data.image_size", "16"]


def diffusers_flow(folder):
    diffusers = pytest.importorskip("diffusers", reason="needs the extra cclight[diffusers]")
    layers = {"down_block_types": ("DownBlock2D",), "up_block_types": ("UpBlock2D",), "block_out_channels": (8,)}
    network = diffusers.UNet2DModel(sample_size=16, layers_per_block=1, norm_num_groups=4, **layers)
    network.save_pretrained(folder / "flow" / "unet")
    diffusers.FlowMatchEulerDiscreteScheduler().save_pretrained(folder / "flow" / "scheduler")
    kinds = {"unet": "UNet2DModel", "scheduler": "FlowMatchEulerDiscreteScheduler"}
    index = {name: ["diffusers", kind] for name, kind in kinds.items()}
    (folder / "flow" / "model_index.json").write_text(json.dumps(index))
    return ["--model.prior.init_args.repo", str(folder / "flow")]


def guided(folder):
    torch.save(edm_state(label_dim=10), folder / "tiny.pt")
    within = {"class_path": "EDM", "init_args": {"checkpoint": str(folder / "tiny.pt")}}
    return ["--model.prior.init_args.prior", json.dumps(within), "--model.prior.init_args.class_label", "3"]


def latent(folder):
    repo, embeds, *_ = stable_diffusion(folder / "sd")
    prior = {"class_path": "StableDiffusion", "init_args": {"repo": repo, "prompt_embeds": embeds}}
    autoencoder = {"class_path": "DiffusersAutoencoder", "init_args": {"repo": repo}}
    within = "--model.prior.init_args"
    return [f"{within}.prior", json.dumps(prior), f"{within}.autoencoder", json.dumps(autoencoder)]


def flow_latent(kind):
    def tiny(folder):
        repo, embeds, *_ = flow_pipeline(folder / kind, kind)
        prior = {"class_path": kind.title(), "init_args": {"repo": repo, "prompt_embeds": embeds}}
        autoencoder = {"class_path": "DiffusersAutoencoder", "init_args": {"repo": repo}}
        within = "--model.prior.init_args"
        return [f"{within}.prior", json.dumps(prior), f"{within}.autoencoder", json.dumps(autoencoder)]

    return tiny


TINY = {
    "latent": latent,
    "flux": flow_latent("flux"),
    "sana": flow_latent("sana"),
    "guided": guided,
    "diffusers_flow": diffusers_flow,
    "edm": edm,
    "pnpflow": pnpflow,
    "azula": azula,
    "deepinv": deepinv,
}


def test_every_configuration_is_tried():
    assert set(PRIORS) == set(TINY)


@pytest.mark.parametrize("name", PRIORS)
def test_each_restores_with_a_tiny_checkpoint(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "photographs").mkdir()
    picture = np.random.default_rng(0).integers(0, 256, (16, 16, 3), dtype=np.uint8)
    Image.fromarray(picture).save(tmp_path / "photographs" / "one.png")
    arguments = [
        "--config",
        str(packaged_configs() / "sr.yaml"),
        "--config",
        str(packaged_configs() / "priors" / f"{name}.yaml"),
    ]
    arguments += [
        "--data.source",
        "ImageFolder",
        "--data.source.path",
        str(tmp_path / "photographs"),
        "--data.image_size",
        "16",
    ]
    arguments += ["--metrics.per_image", "[PSNR]", "--trainer.accelerator", "cpu", "--run.name", name]
    PredictCLI.launch([*arguments, *TINY[name](tmp_path)])
    results = json.loads((tmp_path / "runs" / name / "metrics.json").read_text())
    assert not results["failed"]
    assert results["metrics"]["nfe"]["mean"] == {"guided": 10, "latent": 8, "flux": 8, "sana": 8}.get(name, 5)
