"""What `cclight predict` has imported by the first call of its network: little beyond what Lightning brings."""

import subprocess
import sys

import pytest

PROGRAM = """
import os, sys
import torch, lightning
before = set(sys.modules)
from cclight import cli
from cclight.priors.small import SmallPrior

def forward(self, x_t, t):
    new = {name.partition(".")[0] for name in set(sys.modules) - before} - set(sys.stdlib_module_names)
    print("imported:", *sorted(name for name in new if not name.startswith("_")), flush=True)
    os._exit(0)

SmallPrior.forward = forward
sys.argv = ["cclight", "predict", "--config", "sr.yaml", "--metrics.per_image", "[PSNR, SSIM]"]
cli.main()
"""
# To decode, HEIF where it is installed, to read the command line, to show progress, to load weights, to write the run folder.
NEEDED = {
    "PIL", "attr", "attrs", "cclight", "docstring_parser", "filelock", "imagecodecs", "jsonargparse", "lightning", "numpy",
    "pillow_heif", "rich", "safetensors", "torch", "torchmetrics", "typeshed_client", "yaml",
}  # fmt: skip


@pytest.mark.slow
def test_nothing_is_imported_in_vain_before_the_first_call(tmp_path):
    ended = subprocess.run([sys.executable, "-c", PROGRAM], cwd=tmp_path, capture_output=True, text=True, timeout=180)
    (line,) = [line for line in ended.stdout.splitlines() if line.startswith("imported:")] or [ended.stderr]
    assert "cclight" in line
    assert set(line.split()[1:]) <= NEEDED
