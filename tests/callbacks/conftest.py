import pytest
import torch
from PIL import Image

from tests.callbacks.predict_script import arguments, predict


@pytest.fixture
def photographs_of(tmp_path):
    """Make a folder of so many small pictures."""

    def make(count, size=16):
        folder = tmp_path / f"photographs{count}"
        folder.mkdir(exist_ok=True)
        g = torch.Generator().manual_seed(0)
        for index in range(count):
            coarse = torch.randint(0, 256, (1, 3, 4, 4), generator=g).float()
            pixels = torch.nn.functional.interpolate(coarse, size=(size, size), mode="bilinear")[0].byte()
            # Renamed into place: another process may be reading the one that lies there.
            Image.fromarray(pixels.permute(1, 2, 0).numpy()).save(folder / ".new.png")
            (folder / ".new.png").replace(folder / f"photo{index}.png")
        return folder

    return make


@pytest.fixture
def run_here(tmp_path, photographs_of):
    """Predict in this process; returns the run folder, the metrics callback and the indices restored."""

    def run(*options, count=7, root="runs", size=16):
        return predict(arguments([str(photographs_of(count, size)), str(tmp_path / root), *map(str, options)]))

    return run
