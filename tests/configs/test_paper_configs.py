"""configs/paper, configs/data and benchmarks/paper_results.yaml: every cell of the paper's tables parses, builds and runs."""

import importlib.util
import json
import re
import sys
from pathlib import Path

import pytest
import torch
import yaml
from PIL import Image

from cclight.cli import main
from cclight.commands.predict import PredictCLI
from cclight.priors.adm import ADM
from cclight.priors.adm_unet import ADMArchitecture, ADMUNet
from cclight.priors.ncsnpp import RectifiedFlow
from cclight.priors.ncsnpp_unet import NCSNpp, NCSNppArchitecture
from tests.conftest import SHARED

ROOT = Path(__file__).resolve().parents[2]
CONFIGS = ROOT / "configs"

spec = importlib.util.spec_from_file_location("benchmarks_paper", ROOT / "benchmarks" / "paper.py")
paper = sys.modules[spec.name] = importlib.util.module_from_spec(spec)
spec.loader.exec_module(paper)
CELLS = paper.cells()

DIFFUSIONS = {"imagenet", "ffhq"}
TINY_ADM = {"image_size": 32, "num_channels": 32, "num_res_blocks": 1, "channel_mult": [1, 2], "attention_resolutions": [16]}
TINY_FLOW = {"image_size": 32, "nf": 32, "ch_mult": [1, 2], "num_res_blocks": 1, "attn_resolutions": [16], "num_scales": 20}
SAMPLERS = {
    "Conjugate": {},
    "PiGDM": {},
    "DPS": {"zeta": 0.1},
    "DDRM": {},
    "DiffPIR": {},
    "REDDiff": {},
    "OTODE": {},
    "PnPFlow": {"samples": 1},
}


# The numbers


def published(text):
    """The tables' numbers in the paper's own text: {(data set, task, sampler, nfe): [LPIPS, KID, FID]}."""
    datasets = iter(["celeba_hq", "imagenet", "afhq_cat", "lsun_bedroom", "ffhq"])
    tasks = {"Inpainting": "inpainting", "Super-Resolution": "sr", "Deblurring": "deblurring"}
    numbers, task = {}, None
    for line in text.splitlines():
        cells = [cell.strip() for cell in line.strip().strip("|").split("|")]
        if not line.startswith("|"):
            continue
        if {"C-GFM", "C-GDM"} & set(cells):
            dataset = next(datasets)
            continue
        if cells[0] in tasks:
            task, *cells = tasks[cells[0]], *cells[1:]
        values = [cell for cell in cells if cell]
        if task is None or not all(re.fullmatch(r"[\d.]+|-", value) for value in values) or len(values) not in (7, 13):
            continue
        nfe, values = int(values[0]), values[1:]
        ours, theirs = ("c_pigdm", "pigdm") if dataset in DIFFUSIONS else ("c_pigfm", "pigfm")
        samplers = [ours, theirs, "dps", "ddrm"] if len(values) == 12 else [ours, theirs]
        for place, sampler in enumerate(samplers):
            row = values[place :: len(samplers)]
            if "-" not in row:
                budget = {"dps": 1000, "ddrm": 20}.get(sampler, nfe)
                numbers[dataset, task, sampler, budget] = tuple(map(float, row))
    return numbers


def test_the_results_are_the_papers():
    folder = SHARED / "paper"
    if not folder.is_dir():
        pytest.skip("needs the paper's text beside the repository (shared/paper)")
    (file,) = folder.glob("*.txt")
    ours = {(cell.dataset, cell.task, cell.sampler, cell.nfe): cell.published for cell in CELLS}
    assert ours == published(file.read_text())


def test_every_configuration_of_the_paper_is_used():
    used = {path for cell in CELLS for path in cell.configs()}
    assert used == set((CONFIGS / "paper").glob("*.yaml"))


def test_no_two_runs_share_a_name():
    assert len({cell.name for cell in CELLS}) == len(CELLS)


# Parsing and instantiating


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory):
    """Small random checkpoints in the published containers, and what to say of them in YAML."""
    folder = tmp_path_factory.mktemp("checkpoints")
    generator = torch.Generator().manual_seed(0)

    def random_state(network):
        return {key: 0.1 * torch.randn(value.shape, generator=generator) for key, value in network.state_dict().items()}

    lists = {key: tuple(value) if isinstance(value, list) else value for key, value in TINY_ADM.items()}
    torch.save(random_state(ADMUNet(ADMArchitecture(**lists))), folder / "adm.pt")
    lists = {key: tuple(value) if isinstance(value, list) else value for key, value in TINY_FLOW.items()}
    flow = NCSNpp(NCSNppArchitecture(**lists))
    averages = [0.1 * torch.randn(p.shape, generator=generator) for p in flow.parameters() if p.requires_grad]
    container = {
        "optimizer": {},
        "model": {f"module.{key}": value for key, value in random_state(flow).items()},
        "ema": {"decay": 0.999, "num_updates": 7, "shadow_params": averages},
        "step": 7,
    }
    torch.save(container, folder / "flow.pth")
    return {
        "ADM": {"checkpoint": str(folder / "adm.pt"), "architecture": TINY_ADM},
        "RectifiedFlow": {"checkpoint": str(folder / "flow.pth"), "architecture": TINY_FLOW},
    }


def written(path, content):
    path.write_text(yaml.safe_dump(content))
    return str(path)


class Instantiated(PredictCLI):
    """`cclight predict` up to the prediction."""

    def go(self):
        Instantiated.last = self


@pytest.mark.slow
@pytest.mark.parametrize("cell", CELLS, ids=lambda cell: cell.name)
def test_every_cell_parses_and_instantiates(cell, checkpoints, tmp_path):
    prior = ADM if cell.dataset in DIFFUSIONS else RectifiedFlow
    tiny = written(tmp_path / "tiny.yaml", {"model": {"prior": {"init_args": checkpoints[prior.__name__]}}})
    configs = [f"--config={path}" for path in [*cell.configs(), tiny]]
    Instantiated.launch([*configs, f"--run.name={cell.name}", f"--run.root={tmp_path}", "--trainer.accelerator=cpu"])
    cli = Instantiated.last
    assert isinstance(cli.model.prior, prior)
    sampler = cli.model.sampler
    assert getattr(sampler, "steps", None) == cell.nfe or sampler.pigdm.steps == cell.nfe
    assert type(sampler).__name__ == {"pigdm": "PiGDM", "pigfm": "OTODE", "dps": "DPS", "ddrm": "DDRM"}.get(
        cell.sampler, "Conjugate"
    )
    operator = {"sr": "BicubicDownsampling", "inpainting": "Inpainting", "deblurring": "GaussianBlur"}[cell.task]
    assert type(cli.model.operator).__name__ == type(cli.datamodule.operator).__name__ == operator
    assert cli.datamodule.preprocessing.size == (256, 256)
    assert cli.datamodule.limit == (1000 if cell.dataset == "ffhq" else None)


def test_the_task_changes_nothing_of_the_sampler_but_where_it_begins(checkpoints, tmp_path):
    (cell,) = (c for c in CELLS if c.name == "celeba_hq-inpainting-c_pigfm-5")
    tiny = written(tmp_path / "tiny.yaml", {"model": {"prior": {"init_args": checkpoints["RectifiedFlow"]}}})
    Instantiated.launch([*(f"--config={path}" for path in [*cell.configs(), tiny]), f"--run.root={tmp_path}"])
    sampler = Instantiated.last.model.sampler
    assert (sampler.t_start, sampler.guidance, sampler.steps) == (0.2, 20.0, 5)


# Running


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    """A folder of two small photographs."""
    folder = tmp_path_factory.mktemp("pictures")
    for number in range(2):
        pixels = torch.randint(256, (8, 8, 3), generator=torch.Generator().manual_seed(number), dtype=torch.uint8)
        Image.fromarray(pixels.numpy()).resize((40, 36), Image.Resampling.BICUBIC).save(folder / f"{number}.png")
    return folder


@pytest.mark.parametrize("sampler", SAMPLERS)
@pytest.mark.parametrize("prior", ["ADM", "RectifiedFlow"])
def test_every_sampler_runs_from_yaml_on_a_checkpoint_in_the_published_container(
    prior, sampler, checkpoints, pictures, tmp_path
):
    config = {
        "operator": {"class_path": "BicubicDownsampling", "init_args": {"factor": 4}},
        "model": {
            "prior": {"class_path": prior, "init_args": checkpoints[prior]},
            "sampler": {"class_path": sampler, "init_args": {"steps": 2, **SAMPLERS[sampler]}},
        },
        "data": {"source": {"class_path": "ImageFolder", "init_args": {"path": str(pictures)}}, "image_size": 32},
        "metrics": {"per_image": [{"class_path": "cclight.metrics.image.PSNR"}]},
        "trainer": {"accelerator": "cpu", "enable_progress_bar": False},
        "run": {"name": "run", "root": str(tmp_path)},
    }
    assert main(["predict", "--config", written(tmp_path / "run.yaml", config)]) == 0
    restored = sorted((tmp_path / "run" / "restored").glob("*.png"))
    assert [Image.open(file).size for file in restored] == [(32, 32)] * 2
    metrics = json.loads((tmp_path / "run" / "metrics.json").read_text())
    assert "psnr" in json.dumps(metrics)


# Data sets


def local_copy(name, folder):
    """A small data set in the format that the configuration of that name expects to find, and what to change in it."""
    images = [Image.new("RGB", (300, 280), (40 * n, 0, 0)) for n in range(4)]
    if name in ("afhq_cat", "lsun_bedroom"):
        for n, image in enumerate(images):
            image.save(folder / f"{n}.png")
        return {"path": str(folder)}, 4
    from datasets import Dataset, Features
    from datasets import Image as ImageFeature

    split = {"ffhq": "train"}.get(name, "validation")
    rows = Dataset.from_dict({"image": images}, features=Features({"image": ImageFeature()}))
    rows.to_parquet(folder / f"{split}-00000-of-00001.parquet")
    return {"path": str(folder)}, 4


@pytest.mark.parametrize("streaming", [False, True])
@pytest.mark.parametrize("file", sorted((CONFIGS / "data").glob("*.yaml")), ids=lambda file: file.stem)
def test_every_data_set_reads_a_local_copy(file, streaming, tmp_path):
    (tmp_path / "copy").mkdir()
    change, count = local_copy(file.stem, tmp_path / "copy")
    change["streaming"] = streaming
    source = {"init_args": change}
    if file.stem == "imagenet":
        (tmp_path / "rows.txt").write_text("1\n3\n")
        source, count = {"init_args": {"source": source, "indices": str(tmp_path / "rows.txt")}}, 2
    changed = written(tmp_path / "changed.yaml", {"data": {"source": source}})
    arguments = [f"--config={CONFIGS / 'sr.yaml'}", f"--data={file}", f"--config={changed}", f"--run.root={tmp_path}"]
    Instantiated.launch(arguments)
    datamodule = Instantiated.last.datamodule
    photographs = list(datamodule.source.shard(limit=datamodule.limit))
    assert [photograph.index for photograph in photographs] == list(range(count))
    assert all(datamodule.preprocessing(photograph).shape == (3, 256, 256) for photograph in photographs)
