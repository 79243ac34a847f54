"""Where the numbers and photographs beside the repository lie, and what every test may lean on."""

from pathlib import Path

import pytest
import torch

# The tensors here are small: threads would wait for each other longer than they compute, most of all on busy cores.
torch.set_num_threads(1)

SHARED = Path(__file__).resolve().parents[2] / "shared"


def _folder(name: str) -> Path:
    folder = SHARED / name
    if not folder.is_dir():
        pytest.skip(f"needs the folder {name} beside the repository (shared/{name}), which is not part of it")
    return folder


@pytest.fixture(scope="session")
def golden() -> Path:
    """Numbers computed with the paper's own code and the original networks."""
    return _folder("golden")


@pytest.fixture(scope="session")
def photographs() -> Path:
    """Photographs, 256×256: folders train and dev."""
    return _folder("data/photographs")
