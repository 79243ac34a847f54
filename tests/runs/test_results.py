"""A run read back: what it left is there, and what is no finished run is told apart."""

from __future__ import annotations

import shutil

import pytest
from PIL import Image

from cclight.errors import UsageError
from cclight.runs.results import Run


def test_a_run_is_read_as_it_was_written(finished_run):
    read = Run.read(finished_run)
    assert read.name == "conjugate"
    assert read.class_name("model.sampler") == "Conjugate"
    assert read.part("operator")["init_args"]["factor"] == 4
    assert read.part("model.nothing") == {}
    assert read.metrics["psnr"]["direction"] == "higher"
    assert list(read.records) == [0, 1, 2, 3]
    values = read.values("psnr")
    assert read.mean("psnr") == pytest.approx(sum(values.values()) / 4)
    assert "unavailable" in read.metrics["ms_ssim"]
    assert read.mean("ms_ssim") is None
    assert read.values("ms_ssim") == {}
    assert read.mean("nfe") == 3


def test_a_picture_is_found_unless_it_was_not_saved(finished_run, tmp_path):
    picture = Run.read(finished_run).picture("restored", 1)
    assert picture is not None
    assert Image.open(picture).size == (48, 48)
    copy = tmp_path / "copy"
    shutil.copytree(finished_run, copy)
    shutil.rmtree(copy / "clean")
    assert Run.read(copy).picture("clean", 1) is None


def test_what_is_no_finished_run_is_told_with_the_remedy(finished_run, tmp_path):
    with pytest.raises(UsageError, match="is no run folder: give one that"):
        Run.read(tmp_path)
    copy = tmp_path / "copy"
    shutil.copytree(finished_run, copy)
    (copy / "metrics.json").unlink()
    with pytest.raises(UsageError, match="unfinished run: run its `cclight predict` again"):
        Run.read(copy)
