import pytest
import torch

from cclight.callbacks.images import ImageWriter, picture_of_measurement
from cclight.metrics.perceptual import PerceptualMap, heat
from cclight.operators.base import Operator
from cclight.operators.pixelwise import AveragePooling
from cclight.runs.folder import RunFolder
from cclight.runs.pictures import encode_picture, read_png, to_image, to_uint8


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_every_image_has_its_pictures(run_here):
    run, _, _ = run_here()
    expected = [f"0000{index}_photo{index}.png" for index in range(7)]
    for kind in ("restored", "measurement", "clean"):
        assert names(run.path / kind) == expected
    clean = read_png(run.path / "clean" / expected[3])
    measurement = read_png(run.path / "measurement" / expected[3])
    assert clean.shape == (3, 16, 16)
    assert torch.equal(measurement, to_uint8(AveragePooling(2)(clean[None].float() / 127.5 - 1))[0])
    noise = torch.randn(3, 16, 16, generator=torch.Generator().manual_seed(3))
    expected_image = AveragePooling(2).pinv(AveragePooling(2)(clean[None].float() / 127.5 - 1)) + 0.05 * noise
    difference = read_png(run.path / "restored" / expected[3]).int() - to_uint8(expected_image)[0].int()
    assert difference.abs().max() <= 1


def test_the_grid_shows_the_first_images(run_here):
    run, _, _ = run_here()
    # Three rows (grid=3), four columns of 16 pixels enlarged to 128, gaps of 4, a header of 24.
    grid = read_png(run.path / "grid.png")
    assert grid.shape == (3, 24 + 3 * 132, 4 * 132)
    for row in range(3):
        clean = read_png(run.path / "clean" / f"0000{row}_photo{row}.png")
        tile = grid[:, 24 + row * 132 : 24 + row * 132 + 128, 3 * 132 : 3 * 132 + 128]
        assert torch.equal(tile[:, 4::8, 4::8], clean)
    header = grid[:, :24].float().mean(0)
    for column in range(4):
        assert header[:, column * 132 : column * 132 + 128].min() < 50, "a label is missing"


def test_a_nan_gets_no_picture(run_here):
    with pytest.warns(UserWarning, match="left out"):
        run, _, _ = run_here("--nan", "[1, 4]")
    assert names(run.path / "restored") == [f"0000{index}_photo{index}.png" for index in (0, 2, 3, 5, 6)]
    assert names(run.path / "rows") == [f"0000{index}_photo{index}.png" for index in (0, 2, 3)]


def test_maps_show_where_restorations_differ(run_here, some_torch_home, monkeypatch):
    monkeypatch.setenv("TORCH_HOME", str(some_torch_home))
    with pytest.warns(UserWarning, match="left out"):
        run, _, _ = run_here("--maps", "--image-size", "32", "--nan", "[1]", count=3, size=32)
    assert names(run.path / "maps") == ["00000_photo0.png", "00002_photo2.png"]
    maps = PerceptualMap()
    for name in names(run.path / "maps"):
        restored, clean = (to_image(read_png(run.path / kind / name))[None] for kind in ("restored", "clean"))
        saved = read_png(run.path / "maps" / name).int()
        assert saved.shape == (3, 32, 32)
        assert saved.max() > saved.min()
        # The run compared what was not yet rounded to 8 bits.
        assert (saved - to_uint8(heat(maps(restored, clean)[0])).int()).abs().float().mean() < 4


def test_a_finished_run_gets_its_maps_later_and_loses_them_when_overwritten(run_here, some_torch_home, monkeypatch):
    monkeypatch.setenv("TORCH_HOME", str(some_torch_home))
    run, _, restored = run_here("--image-size", "32", count=2, size=32)
    assert restored == [0, 1]
    assert not (run.path / "maps").exists()
    _, _, restored = run_here("--image-size", "32", "--maps", "--resume", count=2, size=32)
    assert restored == []
    assert names(run.path / "maps") == ["00000_photo0.png", "00001_photo1.png"]
    run_here("--image-size", "32", "--overwrite", count=2, size=32)
    assert not (run.path / "maps").exists()


@pytest.mark.parametrize(
    ("options", "weights", "reason"),
    [
        ((), True, "LPIPS needs sides of 32 pixels or more, the images are 16×16"),
        (("--measurements", "--image-size", "32"), True, "the data holds no clean images to compare with"),
        ((), False, "the squeeze weights could not be loaded"),
    ],
)
def test_a_run_goes_on_without_maps_and_says_why(options, weights, reason, run_here, some_torch_home, tmp_path, monkeypatch):
    monkeypatch.setenv("TORCH_HOME", str(some_torch_home if weights else tmp_path / "home"))
    if not weights:
        monkeypatch.setattr("cclight.metrics.perceptual.published", _offline)
    with pytest.warns(UserWarning, match=f"There are no maps of differences: .*{reason}") as said:
        run, _, restored = run_here("--maps", *options)
    assert len([warning for warning in said if "no maps" in str(warning.message)]) == 1
    assert restored == list(range(7))
    assert not (run.path / "maps").exists()


def _offline(url):
    raise OSError("no network")


def test_measurements_alone_make_three_columns(run_here):
    run, _, _ = run_here("--measurements", count=2)
    # 16 pixels were measured, so 32 restored.
    assert read_png(run.path / "restored" / "00000_photo0.png").shape == (3, 32, 32)
    assert read_png(run.path / "grid.png").shape == (3, 24 + 2 * 132, 3 * 132)


class Half(Operator):
    """The upper half of an image, as a list of numbers."""

    def forward(self, x):
        return x[:, :, : x.shape[2] // 2].flatten(1)

    def pinv(self, y):
        half = y.reshape(y.shape[0], 3, 2, 4)
        return torch.cat([half, torch.zeros_like(half)], dim=2)


def test_a_measurement_without_form_is_shown_as_its_pseudoinverse():
    x = torch.rand(2, 3, 4, 4, generator=torch.Generator().manual_seed(0))
    shown = picture_of_measurement(Half()(x), Half())
    assert torch.equal(shown[:, :, :2], x[:, :, :2])
    assert shown[:, :, 2:].abs().max() == 0
    assert picture_of_measurement(x, Half()) is x


def test_a_negative_grid_is_refused(tmp_path):
    with pytest.raises(ValueError, match="grid is a number of images, got -1"):
        ImageWriter(RunFolder("a", root=str(tmp_path)), grid=-1)


def test_png_is_what_encode_picture_says():
    assert encode_picture(torch.zeros(3, 2, 2)).startswith(b"\x89PNG")
