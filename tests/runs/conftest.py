"""A run folder, what fills it, and who may not write into it."""

import os
import subprocess
import sys
import tempfile
import textwrap
from pathlib import Path

import pytest
import torch

from cclight.runs.folder import RunFolder
from tests.commands.conftest import run as finished_run
from tests.commands.conftest import runs

__all__ = ["finished_run", "runs"]

CONFIG = "model: {steps: 5}\nmetrics: {}\ntrainer: {devices: 1, precision: 32-true}\ndata: {batch_size: 4, seed: 0}\n"


@pytest.fixture
def run(tmp_path):
    run = RunFolder("sr", root=str(tmp_path))
    run.open(CONFIG)
    yield run
    run.close()


def reopened(run, config=CONFIG, **options):
    run.close()
    other = RunFolder(run.path.name, root=str(run.path.parent), **options)
    other.open(config)
    return other


def python(code, *arguments):
    """Another process that runs the code with sys.argv[1:] = arguments."""
    return subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(code), *map(str, arguments)], stdout=-1, stderr=-1, text=True
    )


def finish(run, *indices):
    for index in indices:
        run.write_image("restored", index, f"photo{index}", torch.zeros(3, 4, 4))
    run.append({"index": index, "name": f"photo{index}", "psnr": 20.0 + index} for index in indices)
    run.flush()


@pytest.fixture
def plain_users_folder():
    """An empty folder and a user who is not root, for the length of a test: root may write everywhere."""
    root = os.geteuid() == 0
    with tempfile.TemporaryDirectory() as folder:
        if root:
            os.chown(folder, 65534, 65534)
            os.seteuid(65534)
        try:
            yield Path(folder)
        finally:
            if root:
                os.seteuid(0)
