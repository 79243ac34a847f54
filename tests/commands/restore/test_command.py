"""`cclight restore`: a person's one picture, as the command itself is called."""

import signal
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors import safe_open
from safetensors.torch import save_file
from skimage import data

from cclight.commands.restore.command import parser
from cclight.commands.restore.model import read_model
from cclight.commands.restore.outputs import find_jobs
from cclight.commands.restore.restorer import PictureRestorer
from cclight.commands.restore.tasks import measure
from cclight.data.decoding import read_picture
from cclight.runs.pictures import encode_picture
from tests import processes

WEIGHTS = Path(__file__).parents[2] / "assets" / "tiny.safetensors"


@pytest.fixture
def pictures(tmp_path) -> Path:
    """A folder with a small coloured PNG of an odd size, a grey one, a JPEG and a mask."""
    rng = np.random.default_rng(0)
    colour = Image.fromarray(rng.integers(0, 256, (5, 6, 3), dtype=np.uint8)).resize((19, 13), Image.Resampling.BICUBIC)
    colour.save(tmp_path / "small.png")
    colour.convert("L").save(tmp_path / "grey.png")
    colour.resize((40, 24)).save(tmp_path / "photo.jpg", quality=23)
    mask = np.full((13, 19), 255, dtype=np.uint8)
    mask[4:9, 5:12] = 0
    Image.fromarray(mask).save(tmp_path / "mask.png")
    return tmp_path


def restore(folder, *arguments):
    command = [sys.executable, "-m", "cclight", "restore", *arguments, "--prior", str(WEIGHTS), "--steps", "2"]
    return processes.run(command, cwd=folder)


def test_a_picture_becomes_four_times_larger_beside_itself(pictures):
    result = restore(pictures, "small.png", "--task", "sr")
    assert result.returncode == 0, result.stderr
    assert Image.open(pictures / "small_sr.png").size == (76, 52)
    (line,) = result.stdout.splitlines()
    assert "small.png 19×13 -> small_sr.png 76×52: ConjugateMoments, 2 network calls" in line
    before = (pictures / "small_sr.png").read_bytes()
    again = restore(pictures, "small.png", "--task", "sr")
    assert again.returncode == 0  # what is done is no error
    assert "small_sr.png is there already" in again.stdout
    assert (pictures / "small_sr.png").read_bytes() == before
    assert restore(pictures, "small.png", "--task", "sr", "--overwrite").returncode == 0
    assert (pictures / "small_sr.png").read_bytes() == before  # the same seed, the same picture


def test_several_samples_with_their_mean_and_spread(pictures):
    assert restore(pictures, "grey.png", "--task", "sr", "--output", "one.png").returncode == 0
    result = restore(pictures, "grey.png", "--task", "sr", "--samples", "3")
    assert result.returncode == 0, result.stderr
    assert "3 samples with their mean and standard deviation" in result.stdout
    assert "cclight restore: the 3 samples differ by less than they are wrong" in result.stderr
    made = ["", "_1", "_2", "_mean", "_std"]
    assert sorted(path.name for path in pictures.glob("grey_sr*")) == sorted(f"grey_sr{name}.png" for name in made)
    samples = np.stack([np.asarray(Image.open(pictures / f"grey_sr{name}.png"), np.float64) for name in made[:3]])
    assert np.array_equal(samples[0], np.asarray(Image.open(pictures / "one.png")))
    assert len({one.tobytes() for one in samples}) == 3
    mean = np.asarray(Image.open(pictures / "grey_sr_mean.png"))
    assert np.abs(mean - samples.mean(0)).max() <= 1.01  # each was rounded
    # The next call for the whole folder takes none of them for a picture.
    again = restore(pictures, ".", "--task", "sr")
    assert "left out, as results of earlier calls: grey_sr.png and 4 more" in again.stderr


def test_a_persons_own_file_is_not_replaced_by_a_sample(pictures):
    (pictures / "grey_sr_1.png").write_bytes(b"mine")
    result = restore(pictures, "grey.png", "--task", "sr", "--samples", "2")
    assert result.returncode == 1
    assert "grey_sr_1.png is there already: --overwrite replaces it" in result.stderr
    assert (pictures / "grey_sr_1.png").read_bytes() == b"mine"
    assert not (pictures / "grey_sr.png").exists()


@pytest.mark.parametrize("kind", [KeyboardInterrupt, ValueError])
def test_a_picture_stopped_between_its_samples_leaves_nothing_and_is_done_by_the_same_command(pictures, monkeypatch, kind):
    options = parser().parse_args(
        [str(pictures / "grey.png"), "--task", "sr", "--samples", "3", "--steps", "1", "--prior", str(WEIGHTS)]
    )
    restorer = PictureRestorer(options, read_model(options))
    whole = restorer._restore

    def stopped(*arguments):
        if arguments[-1] == 2:
            assert (pictures / "out_1.png").exists()
            raise kind("stopped")
        return whole(*arguments)

    monkeypatch.setattr(restorer, "_restore", stopped)
    with pytest.raises(kind):
        restorer(pictures / "grey.png", pictures / "out.png")
    assert not list(pictures.glob("out*"))
    monkeypatch.undo()
    restorer(pictures / "grey.png", pictures / "out.png")
    assert len(list(pictures.glob("out*"))) == 5


def test_a_configuration_may_ask_for_samples(pictures):
    (pictures / "many.yaml").write_text("samples: 2\n")
    assert restore(pictures, "grey.png", "--task", "sr", "--config", "many.yaml").returncode == 0
    assert (pictures / "grey_sr_1.png").exists()
    once = restore(pictures, "grey.png", "--task", "sr", "--config", "many.yaml", "--samples", "1", "--output", "once.png")
    assert once.returncode == 0
    assert not (pictures / "once_1.png").exists()


def test_the_other_tasks(pictures):
    """Each leaves a picture of the input's size; what a mask keeps stays as it is; a grey picture gets channels."""
    for arguments in (
        ["small.png", "--task", "deblur", "--sigma", "1", "--noise_std", "0.05"],
        ["photo.jpg", "--task", "jpeg"],
    ):
        result = restore(pictures, *arguments)
        assert result.returncode == 0, result.stderr
    result = restore(pictures, "small.png", "--task", "inpaint", "--mask", "mask.png")
    assert result.returncode == 0, result.stderr
    restored, given = (np.asarray(Image.open(pictures / name)).astype(int) for name in ("small_inpaint.png", "small.png"))
    kept = np.asarray(Image.open(pictures / "mask.png")) == 255
    assert np.abs(restored - given)[kept].max() == 0
    result = restore(pictures, "grey.png", "--task", "colorize")
    assert result.returncode == 0, result.stderr
    assert Image.open(pictures / "grey_colorize.png").mode == "RGB"
    assert Image.open(pictures / "photo_jpeg.png").size == (40, 24)


def test_tiles_give_nearly_the_same_picture(pictures):
    """In parts of 64 pixels: what the tiny prior sees across their borders is all that is missing."""
    for name, tile in (("whole.png", []), ("tiled.png", ["--tile", "64"])):
        result = restore(pictures, "photo.jpg", "--task", "sr", "--output", name, *tile)
        assert result.returncode == 0, result.stderr
    whole, tiled = (np.asarray(Image.open(pictures / name)).astype(int) for name in ("whole.png", "tiled.png"))
    assert whole.shape == tiled.shape == (96, 160, 3)
    assert 0 < np.abs(whole - tiled).mean() < 4


def test_a_folder_goes_on_past_what_cannot_be_read(pictures):
    folder = pictures / "album"
    folder.mkdir()
    (folder / "broken.png").write_bytes((pictures / "small.png").read_bytes()[:60])
    (pictures / "small.png").rename(folder / "small.png")
    result = restore(pictures, "album", "--task", "sr", "--output", "out")
    assert result.returncode == 1
    assert [path.name for path in (pictures / "out").iterdir()] == ["small_sr.png"]
    assert "broken.png" in result.stderr


def test_results_are_no_pictures_to_restore(pictures):
    album = pictures / "album"
    album.mkdir()
    for name in ("small.png", "photo.jpg"):
        (pictures / name).rename(album / name)
    first = restore(pictures, "album", "--task", "sr")
    assert first.returncode == 0, first.stderr
    names = {path.name for path in album.iterdir()}
    assert names == {"small.png", "photo.jpg", "small_sr.png", "photo_sr.png"}
    again = restore(pictures, "album", "--task", "sr")
    assert again.returncode == 0, again.stderr
    assert "left out, as results of earlier calls: photo_sr.png and 1 more" in again.stderr
    assert again.stdout.count("is there already") == 2
    other = restore(pictures, "album", "--task", "deblur", "--sigma", "1", "--noise_std", "0.1")  # nor those of another task
    assert other.returncode == 0, other.stderr
    assert {path.name for path in album.iterdir()} - names == {"small_deblur.png", "photo_deblur.png"}
    alone = restore(pictures, "album/small_sr.png", "--task", "sr", "--factor", "2", "--output", "named.png")
    assert alone.returncode == 0, alone.stderr


def test_pictures_of_one_stem_keep_apart(pictures):
    album = pictures / "album"
    album.mkdir()
    for name in ("a.png", "A.jpg", "b.png"):
        Image.open(pictures / "small.png").save(album / name)
    result = restore(pictures, "album", "--task", "sr", "--factor", "2")
    assert result.returncode == 0, result.stderr
    made = {path.name for path in album.iterdir()} - {"a.png", "A.jpg", "b.png"}
    assert made == {"a_png_sr.png", "A_jpg_sr.png", "b_sr.png"}
    again = restore(pictures, "album", "--task", "sr", "--factor", "2")
    assert again.returncode == 0, again.stderr
    assert "as results of earlier calls" in again.stderr
    assert again.stdout.count("is there already") == 3


def test_pictures_of_one_name_in_two_folders_keep_apart(tmp_path):
    paths = [tmp_path / folder / name for folder in "xy" for name in ("a.png", "a.jpg")] + [tmp_path / "x" / "b.png"]
    for path in paths:
        path.parent.mkdir(exist_ok=True)
        path.touch()
    out = tmp_path / "out"
    together = find_jobs(paths, "sr", out, False)
    assert [target.name for _, target in together] == [
        *(f"{folder}_a_{ending}_sr.png" for folder in "xy" for ending in ("png", "jpg")),
        "b_sr.png",
    ]
    apart = find_jobs(paths, "sr", None, False)
    assert [target.relative_to(tmp_path).as_posix() for _, target in apart] == [
        *(f"{folder}/a_{ending}_sr.png" for folder in "xy" for ending in ("png", "jpg")),
        "x/b_sr.png",
    ]


@pytest.mark.parametrize("output", ["out.jpg", "out.TIF", "out.webp"])
def test_other_formats(pictures, output):
    result = restore(pictures, "small.png", "--task", "sr", "--output", output)
    assert result.returncode == 0, result.stderr
    assert Image.open(pictures / output).size == (76, 52)


def test_a_folder_may_have_a_dot_in_its_name(pictures):
    (pictures / "out.png").mkdir()
    for folder in ("out.png", "new.v2"):
        result = restore(pictures, "small.png", "--task", "sr", "--output", folder)
        assert result.returncode == 0, result.stderr
        assert (pictures / folder / "small_sr.png").is_file()


def test_depth_transparency_and_grey_stay(pictures):
    colour = np.asarray(Image.open(pictures / "small.png"))
    (pictures / "deep.png").write_bytes(encode_picture(torch.from_numpy(colour.astype(np.uint16) * 257).permute(2, 0, 1)))
    alpha = np.linspace(0, 255, 13 * 19).reshape(13, 19).astype(np.uint8)
    Image.fromarray(np.dstack([colour, alpha])).save(pictures / "clear.png")
    Image.fromarray(np.repeat(colour[..., :1], 3, axis=2)).save(pictures / "greyrgb.png")
    names = ["deep", "clear", "greyrgb"]
    result = restore(pictures, *(f"{name}.png" for name in names), "--task", "sr", "--factor", "2", "--output", "out")
    assert result.returncode == 0, result.stderr
    deep, clear, grey = (read_picture(pictures / "out" / f"{name}_sr.png") for name in names)
    assert deep.depth == 16
    assert len(np.unique(deep.pixels)) > 256
    assert clear.alpha is not None
    assert np.abs(clear.alpha[::2, ::2] - alpha / 255).max() < 0.1
    assert grey.pixels.shape[2] == 1
    for name, output, words in (("deep", "flat.jpg", "16 bits a channel became 8"), ("clear", "flat2.jpg", "transparent")):
        result = restore(pictures, f"{name}.png", "--task", "sr", "--output", output)
        assert words in result.stdout + result.stderr


def test_the_grid_of_a_turned_jpeg_is_the_files(pictures):
    """The result is upright, and what was measured is a fixed point of the file's own compression."""
    exif = Image.Exif()
    exif[0x112] = 6
    levels = data.chelsea()[60:107, 150:201]
    for subsampling in ("4:2:2", "4:4:4", "4:2:0"):
        Image.fromarray(levels).save(pictures / "turned.jpg", quality=30, subsampling=subsampling, exif=exif)
        picture = read_picture(pictures / "turned.jpg")
        assert picture.pixels.shape == (51, 47, 3)
        measured = measure(picture, pictures / "turned.jpg", parser().parse_args(["turned.jpg", "--task", "jpeg"]))
        operator = measured.operator(slice(None), slice(None))
        assert operator.subsampling == subsampling
        assert (operator(measured.y) - measured.y).square().mean().sqrt() < 0.015
        turned = measured.y.transpose(2, 3).flip(3)
        assert (operator(turned) - turned).square().mean().sqrt() > 0.02
    result = restore(pictures, "turned.jpg", "--task", "jpeg")
    assert result.returncode == 0, result.stderr
    upright = np.asarray(Image.open(pictures / "turned_jpeg.png")).astype(float)
    assert upright.shape == (51, 47, 3)
    assert np.abs(upright - picture.pixels).mean() < 20


def test_masks_of_a_folder_their_share_and_their_reverse(pictures):
    (pictures / "masks").mkdir()
    (pictures / "mask.png").rename(pictures / "masks" / "small.png")
    result = restore(pictures, "small.png", "--task", "inpaint", "--mask", "masks")
    assert result.returncode == 0, result.stderr
    assert "14 % of it missing" in result.stdout
    result = restore(pictures, "small.png", "--task", "inpaint", "--mask", "masks", "--invert-mask", "--overwrite")
    assert result.returncode == 0, result.stderr
    assert "86 % of it missing; if the mask means the reverse, leave --invert-mask out" in result.stdout
    result = restore(pictures, "grey.png", "--task", "inpaint", "--mask", "masks")
    assert result.returncode == 1
    assert "no mask for grey.png" in result.stderr
    result = restore(pictures, "photo.jpg", "--task", "inpaint", "--mask", "masks/small.png")
    assert "is 19×13 and the picture 40×24" in result.stderr


def test_a_kernel_from_a_file(pictures):
    kernel = np.zeros((5, 5), dtype=np.uint8)
    kernel[2, 1:4] = 255
    Image.fromarray(kernel).save(pictures / "kernel.png")
    result = restore(pictures, "photo.jpg", "--task", "deblur", "--kernel", "kernel.png", "--noise_std", "0.05")
    assert result.returncode == 0, result.stderr
    assert Image.open(pictures / "photo_deblur.png").size == (40, 24)


def test_a_sharp_picture_is_not_deblurred_into_a_maze(pictures):
    Image.fromarray(data.astronaut()[60:156, 150:230]).save(pictures / "sharp.png")
    result = restore(pictures, "sharp.png", "--task", "deblur", "--sigma", "3")
    assert result.returncode == 1
    assert "more detail than such a blur lets through" in result.stderr
    assert not (pictures / "sharp_deblur.png").exists()
    assert restore(pictures, "sharp.png", "--task", "deblur", "--sigma", "3", "--noise_std", "0.1").returncode == 0


def test_a_result_too_large_to_be_read_again_is_refused_at_once(pictures):
    Image.new("L", (4000, 3000)).save(pictures / "huge.png")
    result = restore(pictures, "huge.png", "--task", "sr")
    assert result.returncode == 1
    assert "would become 16000×12000" in result.stderr


def test_a_configuration_in_the_current_folder_is_not_taken(pictures):
    (pictures / "sr.yaml").write_text("model: {sampler: {class_path: DPS, init_args: {steps: 2}}}")
    result = restore(pictures, "small.png", "--task", "sr")
    assert "ConjugateMoments, 2 network calls" in result.stdout


def test_weights_full_of_nan_are_named(pictures):
    with safe_open(WEIGHTS, "pt") as file:
        state = {key: torch.full_like(file.get_tensor(key), torch.nan) for key in file.keys()}  # noqa: SIM118
        save_file(state, pictures / "nan.safetensors", file.metadata())
    command = [sys.executable, "-m", "cclight", "restore", "small.png", "--task", "sr", "--prior", "nan.safetensors"]
    result = processes.run(command, cwd=pictures)
    assert result.returncode == 1
    assert "nan.safetensors holds values that are not finite" in result.stderr
    assert "Traceback" not in result.stderr


def test_ctrl_c(pictures):
    Image.fromarray(data.astronaut()[:400, :400]).save(pictures / "large.png")
    command = [sys.executable, "-m", "cclight", "restore", "large.png", "--task", "sr", "--prior", str(WEIGHTS)]
    process = processes.start(command, cwd=pictures)
    time.sleep(4)  # in the middle of it, or while it imports
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate()
    assert process.returncode in (130, -signal.SIGINT)
    assert "Traceback" not in errors
    assert "about" in errors  # a large picture's time is told before the work
    assert "stopped; 0 restored, 1 left" in errors
    assert not list(pictures.glob("*large_sr*"))


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["missing.png", "--task", "sr"], "there is no picture missing.png"),
        (["small.png", "--task", "jpeg"], "--quality"),
        (["small.png", "--task", "inpaint"], "--mask"),
        (["small.png", "--task", "sr", "--sigma", "2"], "sigma"),
        (["small.png", "--task", "sr", "--invert-mask"], "--invert-mask belongs to --task inpaint"),
        (["small.png", "--task", "sr", "--factor", "0"], "--factor is a number from 2 to 16, got 0"),
        (["small.png", "--task", "deblur", "--sigma", "1000"], "--sigma is a number from 0.1 to 100, got 1000"),
        (["small.png", "--task", "deblur", "--sigma", "inf"], "got inf"),
        (["small.png", "--task", "deblur", "--sigma", "nan"], "got nan"),
        (["small.png", "--task", "deblur", "--sigma", "10"], "give a smaller --sigma"),
        (["small.png", "--task", "deblur", "--noise_std", "-1"], "--noise_std is a number of 0 or more, got -1"),
        (["small.png", "--task", "deblur", "--kernel", "no.png"], "there is no file no.png"),
        (["small.png", "--task", "deblur", "--kernel", "mask.png"], "mask.png"),
        (["small.png", "--task", "inpaint", "--mask", "no.png"], "there is no file no.png"),
        (["small.png", "--task", "sr", "--output", "out.gif"], "--output writes .jpeg"),
        (["small.png", "--task", "sr", "--output", "big.xyz"], ".webp, not .xyz: got big.xyz (for a folder of that name, make"),
        (["small.png", "grey.png", "--task", "sr", "--output", "out.png"], "is one file for 2 pictures"),
        (["small.png", "--task", "sr", "--output", "small.png", "--overwrite"], "would replace the picture small.png"),
        (["small.png", "--task", "sr", "--output", "mask.png/out"], "takes no files"),
    ],
)
def test_a_mistake_is_one_line(pictures, arguments, words):
    result = restore(pictures, *arguments)
    assert result.returncode != 0
    assert words in result.stderr
    assert "Traceback" not in result.stderr
