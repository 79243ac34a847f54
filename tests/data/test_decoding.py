"""Pictures as people have them. The files are written by other programs' libraries, with values that were chosen here."""

import io
import struct
import zlib
from pathlib import Path

import imagecodecs
import numpy as np
import pytest
import torch
from PIL import EpsImagePlugin, Image, ImageOps

import cclight
from cclight.data.decoding import UnreadableImage, over_white, read_picture
from cclight.data.pixels import _unknown
from cclight.data.preprocessing import Preprocessing, to_tensor
from cclight.data.sources import ImageFolder
from cclight.operators.kernels import KernelFile
from cclight.operators.masks import MaskFile
from cclight.runs.pictures import read_png
from tests.data.conftest import picture, pillow, read, tiff

LEVELS = np.random.default_rng(0).integers(0, 65536, (16, 24, 3), dtype=np.uint16)
BYTES = (LEVELS // 257).astype(np.uint8)
GREY = np.arange(256, dtype=np.uint8).reshape(16, 16)


# Eight bits: as before


@pytest.mark.parametrize("suffix", ["png", "jpg"])
def test_plain_pictures_give_the_tensor_that_pillow_gives(suffix, tmp_path):
    picture(3).save(tmp_path / f"a.{suffix}")
    with Image.open(tmp_path / f"a.{suffix}") as opened:
        expected = torch.from_numpy(np.array(opened)).permute(2, 0, 1).float().div(127.5).sub(1)
    (photograph,) = ImageFolder(tmp_path).shard()
    assert photograph.pixels is None
    assert photograph.notes == ()
    assert torch.equal(Preprocessing()(photograph), expected)
    assert torch.equal(to_tensor(read_picture(tmp_path / f"a.{suffix}")), expected)


def test_any_kind_of_pixel_becomes_rgb(tmp_path):
    Image.fromarray(GREY).save(tmp_path / "a_grey.png")
    Image.fromarray(GREY.astype(np.uint16) * 257).save(tmp_path / "b_16_bits.png")
    Image.fromarray(GREY).convert("RGBA").save(tmp_path / "c_alpha.png")
    Image.fromarray(GREY).convert("P").save(tmp_path / "d_palette.png")
    Image.fromarray(GREY).convert("LA").save(tmp_path / "e_la.png")
    for photograph in ImageFolder(tmp_path).shard():
        assert photograph.image.mode == "RGB"
        np.testing.assert_array_equal(
            np.array(photograph.image), np.repeat(GREY[..., None], 3, axis=-1), err_msg=photograph.name
        )
    Image.new("CMYK", (8, 8)).save(tmp_path / "f_cmyk.jpg")
    *_, cmyk = ImageFolder(tmp_path).shard()
    assert np.array(cmyk.image).min() >= 254


@pytest.mark.parametrize("orientation", range(1, 9))
def test_pictures_are_turned_upright(orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    for content in (
        pillow(Image.fromarray(BYTES), "WEBP", lossless=True, exif=exif),
        pillow(Image.fromarray(BYTES), "TIFF", exif=exif),
        pillow(Image.fromarray(BYTES), "JPEG", exif=exif),
        pillow(Image.fromarray(BYTES), "PNG", exif=exif),
    ):
        with Image.open(io.BytesIO(content)) as opened:
            np.testing.assert_array_equal(read(content).pixels, np.asarray(ImageOps.exif_transpose(opened)))
    deep = read(tiff(LEVELS, photometric="rgb", extratags=[(274, "H", 1, orientation, True)])).pixels
    np.testing.assert_array_equal(deep // 257, read(pillow(Image.fromarray(BYTES), exif=exif)).pixels)


@pytest.mark.parametrize("subsampling", ["4:4:4", "4:2:2", "4:2:0", "grey"])
def test_jpeg_files_tell_how_they_were_compressed(subsampling):
    exif = Image.Exif()
    exif[0x0112] = 6
    image = picture(0).convert("L") if subsampling == "grey" else picture(0)
    options = {} if subsampling == "grey" else {"subsampling": subsampling}
    content = pillow(image, "JPEG", quality=40, exif=exif, **options)
    jpeg = read(content).jpeg
    assert (jpeg.subsampling, jpeg.orientation) == (subsampling, 6)
    with Image.open(io.BytesIO(content)) as opened:
        assert jpeg.quantization == opened.quantization
    assert jpeg.quantization[0][:3] == [20, 14, 13]  # of quality 40: 125 % of annex K's 16, 11, 10, row by row
    assert read(pillow(image)).jpeg is None


def test_grey_is_known_even_where_it_is_stored_as_rgb():
    grey = Image.fromarray(GREY)
    for image in (grey, grey.convert("RGB"), grey.convert("P"), grey.convert("RGBA"), Image.fromarray(GREY.astype(np.uint16))):
        assert read(pillow(image)).grey
    assert read(pillow(grey.convert("RGB"), "JPEG")).grey
    assert not read(pillow(picture(0))).grey


# Depth


DEEP = {
    "png": imagecodecs.png_encode(LEVELS),
    "tiff": tiff(LEVELS, photometric="rgb"),
    "tiff, big-endian": tiff(LEVELS, photometric="rgb", byteorder=">"),
    "tiff, lzw": tiff(LEVELS, photometric="rgb", compression="lzw", predictor=True),
    "tiff, deflate in tiles": tiff(LEVELS, photometric="rgb", compression="zlib", tile=(16, 16)),
    "tiff, planes": tiff(LEVELS.transpose(2, 0, 1), photometric="rgb", planarconfig="separate"),
    "tiff, floats": tiff((LEVELS / 65535).astype(np.float32), photometric="rgb"),
    "tiff, doubles": tiff(LEVELS / 65535, photometric="rgb"),
    "ppm": b"P6\n# a remark\n24 16\n65535\n" + LEVELS.astype(">u2").tobytes(),
    "jpeg 2000": imagecodecs.jpeg2k_encode(LEVELS, level=0, reversible=True),
}


@pytest.mark.parametrize("kind", DEEP)
def test_16_bits_of_colour_are_kept(kind):
    read_back = read(DEEP[kind])
    np.testing.assert_array_equal(read_back.pixels, LEVELS)
    assert (read_back.depth, read_back.notes, read_back.grey) == (16, (), False)


@pytest.mark.parametrize(
    ("content", "white", "notes"),
    [
        (pillow(Image.fromarray(LEVELS[..., 0])), 65535, 0),
        (tiff(LEVELS[..., 0]), 65535, 0),
        (tiff(65535 - LEVELS[..., 0], photometric="miniswhite"), 65535, 0),
        (tiff(LEVELS[..., 0] // 16), 4095, 1),
        (tiff(LEVELS[..., 0] // 16, extratags=[(281, "H", 1, 4095, True)]), 4095, 0),
        (tiff(LEVELS[..., 0] // 16, bitspersample=12, compression="none"), 4095, 0),
        (tiff(LEVELS[..., 0] // 257), 255, 1),
        (pillow(Image.fromarray(LEVELS[..., 0].astype(np.int32) // 257), "TIFF"), 255, 1),
        (pillow(Image.fromarray(LEVELS[..., 0].astype(np.int32) // 16), "TIFF"), 4095, 1),
        (pillow(Image.fromarray(LEVELS[..., 0].astype(np.int32)), "TIFF"), 65535, 1),
        (tiff(LEVELS[..., 0].astype(np.uint32) * 65537), 2**32 - 1, 1),
        (b"P5\n24 16\n65535\n" + LEVELS[..., 0].astype(">u2").tobytes(), 65535, 0),
        (b"P5\n24 16\n4095\n" + (LEVELS[..., 0] // 16).astype(">u2").tobytes(), 4095, 0),
    ],
)
def test_grey_of_any_depth_is_as_bright_as_it_was(content, white, notes):
    """Each is the same picture, rounded to its depth; where white had to be guessed, a note says how."""
    read_back = read(content)
    np.testing.assert_allclose(read_back.pixels[..., 0] / 65535, LEVELS[..., 0] / 65535, atol=1.01 / white)
    assert len(read_back.notes) == notes
    assert all(f"0 to {white}" in note for note in read_back.notes)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (tiff(BYTES.astype(np.float32), photometric="rgb"), "floats reach from 0 to 25"),
        (tiff(np.full((4, 4), np.nan, np.float32)), "floats reach from nan to nan"),
        (tiff(BYTES[..., 0].astype(np.int16) - 100), "integers reach from -"),
        (tiff(np.zeros((5, 16, 16), np.uint16), volumetric=True, tile=(1, 16, 16)), "volume"),
    ],
)
def test_numbers_without_a_white_are_refused(content, words):
    with pytest.raises(UnreadableImage, match=words):
        read(content)


# Transparency


def test_transparency_is_kept_beside_the_colours():
    opacity = np.linspace(0, 1, 24)[None].repeat(16, 0)
    rgba8 = np.dstack([BYTES, np.rint(opacity * 255).astype(np.uint8)])
    rgba16 = np.dstack([LEVELS, np.rint(opacity * 65535).astype(np.uint16)])
    multiplied = np.dstack([np.rint(LEVELS * opacity[..., None]).astype(np.uint16), rgba16[..., 3]])
    for content, expected in (
        (pillow(Image.fromarray(rgba8)), BYTES),
        (imagecodecs.png_encode(rgba16), LEVELS),
        (tiff(rgba16, photometric="rgb", extrasamples=["unassalpha"]), LEVELS),
        (tiff(multiplied, photometric="rgb", extrasamples=["assocalpha"]), LEVELS),
    ):
        read_back = read(content)
        np.testing.assert_allclose(read_back.alpha, opacity, atol=0.51 / 255)
        half = read_back.alpha > 0.5  # multiplied colours lose their digits where little is left of them
        np.testing.assert_allclose(read_back.pixels[half].astype(int), expected[half], atol=2)
    grey = read(pillow(Image.fromarray(rgba8).convert("LA")))
    assert grey.pixels.shape == (16, 24, 1)
    np.testing.assert_allclose(grey.alpha, opacity, atol=0.51 / 255)
    assert read(pillow(Image.fromarray(BYTES).convert("RGBA"))).alpha is None


def test_one_transparent_colour_is_transparency():
    palette = Image.fromarray(GREY).convert("P")
    for content in (
        pillow(palette, transparency=bytes(range(256))),
        pillow(palette, transparency=7),
        pillow(palette, "GIF", transparency=7),
        pillow(Image.fromarray(GREY), transparency=7),
        pillow(Image.fromarray(GREY).convert("RGB"), transparency=(7, 7, 7)),
    ):
        read_back = read(content)
        assert read_back.alpha.min() == 0
        assert read_back.alpha[0, 7] < 0.03
    laid = over_white(read_back)
    assert laid.alpha is None
    assert laid.pixels[0, 7].tolist() == [255] * 3
    np.testing.assert_array_equal(np.delete(laid.pixels[..., 0].ravel(), 7), np.delete(GREY.ravel(), 7))


# Frames, broken files, attacks


def test_the_first_of_several_frames_is_taken_and_said():
    first, second = picture(1), picture(2)
    for format in ("GIF", "TIFF", "PNG", "WEBP"):
        read_back = read(pillow(first, format, save_all=True, append_images=[second]))
        assert read_back.notes == ("the first of its 2 frames is taken",)
    assert read(tiff(np.stack([LEVELS, LEVELS]), photometric="rgb")).notes == ("the first of its 2 frames is taken",)
    assert read(pillow(first, "MPO", save_all=True, append_images=[second])).notes == ()  # phones add previews and depth
    assert read(pillow(first, "MPO", save_all=True, append_images=[second])).jpeg.subsampling == "4:2:0"


def test_errors_are_one_line_and_name_the_place(tmp_path, recwarn):
    whole = pillow(picture(0))
    for content, words in (
        (whole[:-200], "OSError: .*"),
        (imagecodecs.png_encode(LEVELS)[:-200], "PngError: .*"),
        (tiff(LEVELS, photometric="rgb")[:-200], ".*bytes.*"),
        (DEEP["ppm"][:-200], ".*buffer.*"),
        (b"", "the file is empty"),
        (b"<html>", "it is none of .*PNG.*, whatever its name says"),
    ):
        (tmp_path / "x.png").write_bytes(content)
        with pytest.raises(UnreadableImage, match=rf"^\S*x\.png cannot be read as an image \({words}\)$"):
            read_picture(tmp_path / "x.png")
    with pytest.raises(UnreadableImage, match=r"none\.png cannot be read .*No such file"):
        read_picture(tmp_path / "none.png")
    with pytest.raises(UnreadableImage, match=r"no regular file"):
        read_picture(tmp_path)
    assert not recwarn.list


def test_heif_without_its_plug_in_names_it():
    assert "pip install 'cclight[heif]'" in _unknown(b"\0\0\0\x18ftypheic")
    assert "newer Pillow" in _unknown(b"\0\0\0\x18ftypavif")


def test_heif_is_read_with_its_plug_in(tmp_path):
    pytest.importorskip("pillow_heif").register_heif_opener()
    picture(0).convert("L").convert("RGB").save(tmp_path / "a.heic", quality=95)
    np.testing.assert_allclose(read_picture(tmp_path / "a.heic").pixels, picture(0).convert("L").convert("RGB"), atol=25)


def chunk(name, data):
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


@pytest.mark.parametrize("depth", [8, 16])
def test_a_bomb_is_one_clear_line(depth, recwarn):
    head = chunk(b"IHDR", struct.pack(">IIBBBBB", 60000, 60000, depth, 2, 0, 0, 0))
    bomb = b"\x89PNG\r\n\x1a\n" + head + chunk(b"IDAT", zlib.compress(bytes(1000))) + chunk(b"IEND", b"")
    with pytest.raises(UnreadableImage, match=r"it has more than 178,956,970 pixels: cut it or scale it down first\)$"):
        read(bomb)
    assert not recwarn.list


def test_postscript_named_png_starts_no_program(tmp_path, monkeypatch):
    """A stand-in for Ghostscript leaves a trace when it is started."""
    trace, program = tmp_path / "started", tmp_path / "gs"
    program.write_text(f"#!/bin/sh\ntouch {trace}\n")
    program.chmod(0o755)
    monkeypatch.setattr(EpsImagePlugin, "gs_binary", str(program))
    postscript = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 20 20\n%%EndComments\nshowpage\n%%EOF\n"
    (tmp_path / "a.png").write_bytes(postscript)
    for reader in (read_picture, read_png, MaskFile, KernelFile):
        with pytest.raises(ValueError, match=r"a\.png cannot be read .*none of .*PNG"):
            reader(str(tmp_path / "a.png"))
    assert not trace.exists()
    with pytest.raises(OSError), Image.open(tmp_path / "a.png") as opened:  # noqa: PT011 - without the list, it is started
        opened.load()
    assert trace.exists()


def test_pictures_are_opened_with_a_list_of_formats():
    """Image.open without one starts other programs."""
    room = Path(cclight.__file__).parent
    lines = [line for path in room.rglob("*.py") for line in path.read_text(encoding="utf-8").splitlines()]
    calls = [line for line in lines if "Image.open(" in line]
    assert calls
    assert all("formats=" in call for call in calls)
