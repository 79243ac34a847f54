"""Where the numbers and photographs beside the repository lie, and what every test may lean on."""

import signal
import subprocess
from pathlib import Path

import pytest
import torch

# The tensors here are small: threads would wait for each other longer than they compute, most of all on busy cores.
torch.set_num_threads(1)

# A shell ignores interrupts for what it starts in the background, and the programs that the tests interrupt would inherit that.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

SHARED = Path(__file__).resolve().parents[2] / "shared"
SMALL = Path(__file__).resolve().parent / "golden"


@pytest.fixture(scope="session", params=["cpu", *(["cuda"] if torch.cuda.is_available() else [])])
def device(request) -> torch.device:
    """The processor, and CUDA too where there is one. Generators of randomness stay on the processor."""
    return torch.device(request.param)


def _folder(name: str) -> Path:
    folder = SHARED / name
    if not folder.is_dir():
        pytest.skip(f"needs the folder {name} beside the repository (shared/{name}), which is not part of it")
    return folder


@pytest.fixture(scope="session")
def golden() -> Path:
    """Numbers computed with the paper's own code and the original networks; the small set of tests/golden in a bare clone."""
    folder = SHARED / "golden"
    return folder if folder.is_dir() else SMALL


def held(path: Path) -> Path:
    """The path of golden numbers; the test is skipped where the small set stands in and leaves them out."""
    if path.is_relative_to(SMALL) and not path.exists():
        pytest.skip(f"needs {path.relative_to(SMALL)} of the larger set beside the repository (shared/golden)")
    return path


@pytest.fixture(scope="session")
def photographs() -> Path:
    """Photographs, 256×256: folders train and dev."""
    return _folder("data/photographs")


@pytest.fixture(scope="session")
def some_torch_home(tmp_path_factory) -> Path:
    """A TORCH_HOME with seeded weights in the place of SqueezeNet's: LPIPS that needs no network, of values nobody knows."""
    from torchvision.models import squeezenet1_1

    home = tmp_path_factory.mktemp("torch_home")
    (home / "hub" / "checkpoints").mkdir(parents=True)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        torch.save(squeezenet1_1(weights=None).state_dict(), home / "hub" / "checkpoints" / "squeezenet1_1-b8a52dc0.pth")
    return home


@pytest.fixture
def small_disk(tmp_path):
    """A folder that is a disk of its own, of 1 MB; `mount -o remount,size=...` enlarges it. Needs root."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", disk], capture_output=True, check=False)
    if mount.returncode != 0:
        pytest.skip("needs root and mount, to make a disk small enough to fill")
    yield disk
    subprocess.run(["umount", "--lazy", disk], check=True)
