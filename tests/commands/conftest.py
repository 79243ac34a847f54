"""Two finished runs on the same four photographs of 48 pixels, made once by the command itself: what the workbench reads."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import yaml

from tests import processes

# MS-SSIM is not defined on 48 pixels: a metric that a finished run could not measure.
_METRICS = ("PSNR", "SSIM", "MSSSIM")


def config(sampler: str, **settings: object) -> dict:
    """A configuration of `cclight predict` on the embedded prior."""
    return {
        "operator": {"class_path": "BicubicDownsampling", "init_args": {"factor": 4}},
        "model": {
            "prior": {"class_path": "SmallPrior"},
            "sampler": {"class_path": sampler, "init_args": settings},
        },
        "data": {"source": {"class_path": "SamplePhotographs"}, "image_size": 48, "limit": 4, "batch_size": 4},
        "trainer": {"accelerator": "cpu"},
        "metrics": {"per_image": [{"class_path": f"cclight.metrics.image.{name}"} for name in _METRICS]},
    }


@pytest.fixture(scope="session")
def runs(tmp_path_factory) -> Path:
    """The folder `runs` with the runs `conjugate` and `pigdm`. Tests that change anything copy it first."""
    folder = tmp_path_factory.mktemp("workbench")
    configs = {
        "conjugate": config("Conjugate", steps=3, guidance=1.0, t_start=0.85, schedule="inverse_variance"),
        "pigdm": config("PiGDM", steps=5),
    }
    for name, content in configs.items():
        (folder / f"{name}.yaml").write_text(yaml.safe_dump(content))
        result = processes.run([sys.executable, "-m", "cclight", "predict", "--config", f"{name}.yaml"], cwd=folder)
        assert result.returncode == 0, result.stderr
    return folder / "runs"


@pytest.fixture(scope="session")
def run(runs) -> Path:
    """A finished run: Conjugate in three steps."""
    return runs / "conjugate"


@pytest.fixture(scope="session")
def other_run(runs) -> Path:
    """Another on the same photographs: PiGDM in five steps."""
    return runs / "pigdm"


def resolved(command: type, arguments: list[str], folder: Path) -> dict:
    """A configuration as `cclight predict` keeps it, without making anything that it names."""
    from lightning.pytorch.cli import LightningCLI

    from cclight.commands.lightning import import_public_names

    class Parsed(command):  # type: ignore[misc,valid-type]
        def before_instantiate_classes(self) -> None:
            pass

        def instantiate_classes(self) -> None:
            pass

    assert issubclass(Parsed, LightningCLI)
    import_public_names()
    cli = Parsed.build([*arguments, f"--run.root={folder}"])
    return yaml.safe_load(cli.parser.dump(cli.config, skip_link_targets=False))
