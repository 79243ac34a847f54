"""A run that nobody named is called as its configuration, and by what differs where that name is another run's."""

from __future__ import annotations

import copy

import pytest
import yaml

from cclight.runs.folder import RunFolder
from cclight.runs.naming import run_name

CONFIG = {
    "operator": {"class_path": "cclight.BicubicDownsampling", "init_args": {"factor": 4}},
    "noise_std": 0.0,
    "model": {
        "prior": {"class_path": "cclight.SmallPrior", "init_args": {"weights": None}},
        "sampler": {"class_path": "cclight.Conjugate", "init_args": {"steps": 5, "guidance": 2.8}},
        "noise_std": 0.0,
    },
    "data": {"source": {"class_path": "cclight.SamplePhotographs"}, "measurements": False, "batch_size": 4, "noise_std": 0.0},
    "metrics": {"per_image": None},
    "trainer": {"precision": None, "devices": "auto"},
}


def changed(**settings):
    """CONFIG with values set by their dotted keys."""
    config = copy.deepcopy(CONFIG)
    for key, value in settings.items():
        *parts, last = key.split("__")
        place = config
        for part in parts:
            place = place[part]
        place[last] = value
    return yaml.safe_dump(config)


@pytest.fixture
def taken(tmp_path, monkeypatch):
    """runs/sr holds a result of CONFIG."""
    monkeypatch.chdir(tmp_path)
    leave(RunFolder("sr"), changed())


def leave(folder, config):
    folder.open(config)
    folder.append([{"index": 0, "name": "a", "failed": "for want of a picture"}])
    folder.close()


def test_a_free_name_and_the_runs_own_are_the_configurations(tmp_path, monkeypatch, taken):
    assert run_name("sr", "elsewhere", changed(noise_std=0.5)) == "sr"
    assert run_name("sr", "runs", changed()) == "sr"
    assert run_name("sr", "runs", changed(data__batch_size=1, trainer__devices=2)) == "sr"  # which no result depends on


@pytest.mark.parametrize(
    ("settings", "name"),
    [
        ({"operator__init_args__factor": 8}, "sr-factor8"),
        ({"operator__init_args__factor": 8, "model__sampler__init_args__steps": 10}, "sr-factor8-steps10"),
        ({"model__sampler": {"class_path": "cclight.PiGDM", "init_args": {"steps": 20, "lam": 0.0}}}, "sr-PiGDM"),
        ({"noise_std": 0.05, "model__noise_std": 0.05, "data__noise_std": 0.05}, "sr-noise_std0.05"),
        ({"data__measurements": True}, "sr-measurements"),
        ({"model__prior__init_args__weights": "../my weights/mine.safetensors"}, "sr-mine"),
        ({"trainer__precision": "bf16-mixed"}, "sr-precision-bf16-mixed"),
        ({"metrics__per_image": [{"class_path": "cclight.PSNR"}]}, "sr-per_image"),
    ],
)
def test_another_configuration_is_called_by_what_differs(settings, name, taken):
    assert run_name("sr", "runs", changed(**settings)) == name


def test_more_samples_go_on_where_fewer_are_and_fewer_go_elsewhere(taken):
    more = {"samples": 4, "data__samples": 4}
    assert run_name("sr", "runs", changed(**more)) == "sr"
    leave(RunFolder("sr-factor8"), changed(operator__init_args__factor=8, **more))
    for count, name in ((6, "sr-factor8"), (2, "sr-factor8-2")):
        others = changed(operator__init_args__factor=8, samples=count, data__samples=count)
        assert run_name("sr", "runs", others) == name


def test_the_same_command_finds_its_own_folder_and_another_of_the_same_name_is_numbered(taken):
    one, other = (changed(model__prior__init_args__weights=f"{folder}/mine.safetensors") for folder in ("a", "b"))
    leave(RunFolder("sr-mine"), one)
    assert run_name("sr", "runs", one) == "sr-mine"
    assert run_name("sr", "runs", other) == "sr-mine-2"


def test_a_try_that_left_nothing_holds_no_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs" / "sr" / "records").mkdir(parents=True)
    (tmp_path / "runs" / "sr" / "config.yaml").write_text(changed())
    assert run_name("sr", "runs", changed(noise_std=0.5)) == "sr"
