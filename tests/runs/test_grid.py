"""The grid of a run."""

import torch

from cclight.runs.folder import RunFolder
from cclight.runs.grid import grid_of, row_of, write_grid
from cclight.runs.pictures import read_png


def test_a_row_brings_all_to_the_last_ones_size():
    small, grey, large = torch.full((3, 2, 3), -1.0), torch.zeros(1, 4, 6), torch.ones(3, 160, 240)
    row = row_of([small, grey, large])
    assert row.shape == (3, 164, 3 * 244)
    assert (row[:, :160, :240] == 0).all()
    assert (row[:, :160, 244 : 244 + 240] == 128).all()
    assert (row[:, :160, 488 : 488 + 240] == 255).all()


def test_rows_of_different_sizes_share_a_grid(tmp_path):
    run = RunFolder("a", root=str(tmp_path))
    run.open("a: 1")
    paths = [run.write_image("rows", i, "x", row_of([torch.zeros(3, 128, 128 + 40 * i)] * 3)) for i in range(2)]
    run.flush()
    (tmp_path / "grid.png").write_bytes(grid_of(paths, ["a", "b", "c"]))
    assert read_png(tmp_path / "grid.png").shape == (3, 24 + 2 * 132, 3 * 172)
    run.close()


def test_it_shows_the_first_images_in_their_order(tmp_path):
    run = RunFolder("a", root=str(tmp_path))
    run.open("a: 1")
    write_grid(run.path, 2, 1)
    assert not (run.path / "grid.png").exists()
    for index in (12, 3, 100000):
        run.write_image("rows", index, "x", row_of([torch.full((3, 128, 128), index / 100000)] * 3))
    run.flush()
    write_grid(run.path, 2, 1)
    grid = read_png(run.path / "grid.png")
    assert grid.shape == (3, 24 + 2 * 132, 3 * 132)
    assert (grid[:, 24, 0] <= grid[:, 24 + 132, 0]).all()
    run.close()
