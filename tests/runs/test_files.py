"""Files that are there whole or not at all, and pictures that are what was written."""

import pytest
import torch

from cclight.runs.files import write_whole
from cclight.runs.pictures import encode_picture, read_png, to_uint8
from tests.runs.conftest import python


def test_rounds_to_the_nearest_level():
    levels = torch.arange(256, dtype=torch.float64) / 127.5 - 1
    off = 0.49 / 127.5
    assert torch.equal(to_uint8(levels + off), torch.arange(256, dtype=torch.uint8))
    assert torch.equal(to_uint8(levels - off), torch.arange(256, dtype=torch.uint8))
    assert to_uint8(torch.tensor([-1.7, 1.7])).tolist() == [0, 255]


@pytest.mark.parametrize("channels", [1, 3])
def test_what_is_read_is_what_was_written(run, channels):
    image = torch.randint(0, 256, (channels, 5, 7), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    assert torch.equal(read_png(run.write_image("clean", 3, "a", image)), image)


def test_other_channels_lie_side_by_side(tmp_path):
    (tmp_path / "two.png").write_bytes(encode_picture(torch.tensor([[[0, 1]], [[2, 3]]], dtype=torch.uint8)))
    assert read_png(tmp_path / "two.png").tolist() == [[[0, 1, 2, 3]]]


def test_replaces_and_leaves_nothing_else(tmp_path):
    write_whole(tmp_path / "a", b"old")
    write_whole(tmp_path / "a", b"new")
    assert [(p.name, p.read_bytes()) for p in tmp_path.iterdir()] == [("a", b"new")]


def test_a_full_disk_keeps_what_is_there(tmp_path):
    # A limit on the size of files fails in the middle of a write, as a full disk does.
    code = """
        import resource, sys
        from pathlib import Path
        from cclight.errors import RunError
        from cclight.runs.files import write_whole
        path = Path(sys.argv[1])
        write_whole(path, b"old")
        resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
        try:
            write_whole(path, bytes(5000))
        except RunError as error:
            print(error)
    """
    out, err = python(code, tmp_path / "a").communicate(timeout=60)
    assert "Could not write" in out, err
    assert "finished images are kept" in out
    assert out.count("\n") == 1
    assert [(p.name, p.read_bytes()) for p in tmp_path.iterdir()] == [("a", b"old")]
