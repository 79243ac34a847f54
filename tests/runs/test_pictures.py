import io

import imagecodecs
import numpy as np
import pytest
import tifffile
import torch
from PIL import Image

from cclight.data.decoding import read_picture
from cclight.data.preprocessing import to_tensor
from cclight.runs.pictures import encode_picture, read_png, to_image, to_uint8

IMAGE = torch.rand(3, 8, 10, generator=torch.Generator().manual_seed(0)) * 2 - 1
ALPHA = np.linspace(0, 1, 80, dtype=np.float32).reshape(8, 10)


@pytest.mark.parametrize("suffix", [".png", ".tif", ".tiff", ".webp"])
@pytest.mark.parametrize("channels", [1, 3])
def test_what_is_written_is_read_back(suffix, channels, tmp_path):
    (tmp_path / f"a{suffix}").write_bytes(encode_picture(IMAGE[:channels], suffix))
    read = read_picture(tmp_path / f"a{suffix}")
    levels = torch.from_numpy(read.pixels).permute(2, 0, 1)
    assert torch.equal(levels, to_uint8(IMAGE[:channels]).expand(levels.shape[0], -1, -1))
    assert read.grey == (channels == 1)
    assert read.alpha is None


@pytest.mark.parametrize("suffix", [".png", ".tif"])
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("alpha", [None, ALPHA])
def test_16_bits_are_written_and_read_back(suffix, channels, alpha, tmp_path):
    """Within half a level of 16 bits, and every level comes back as itself."""
    (tmp_path / f"a{suffix}").write_bytes(encode_picture(IMAGE[:channels], suffix, depth=16, alpha=alpha))
    read = read_picture(tmp_path / f"a{suffix}")
    assert read.pixels.shape == (8, 10, channels)
    torch.testing.assert_close(to_tensor(read), IMAGE[:channels], atol=0.51 / 32767.5, rtol=0)
    if alpha is None:
        assert read.alpha is None
        assert read_png(tmp_path / f"a{suffix}").dtype == torch.uint16
    else:
        np.testing.assert_allclose(read.alpha, alpha, atol=0.51 / 65535)


def test_every_level_of_16_bits_survives(tmp_path):
    levels = torch.arange(65536, dtype=torch.int32).to(torch.uint16).reshape(1, 256, 256)
    (tmp_path / "a.png").write_bytes(encode_picture(to_image(levels), depth=16))
    assert torch.equal(read_png(tmp_path / "a.png").int(), levels.int())
    assert torch.equal(to_uint8(levels).int(), (levels.double() / 257).round().int())


def test_other_programs_read_the_same():
    """Files of 16 bits, read by libraries that wrote none of them, and alpha in 8 bits."""
    deep = encode_picture(IMAGE, ".tif", depth=16)
    levels = ((IMAGE + 1) * 32767.5).round().to(torch.int32).permute(1, 2, 0).numpy()
    np.testing.assert_array_equal(tifffile.imread(io.BytesIO(deep)), levels)
    with Image.open(io.BytesIO(encode_picture(IMAGE, depth=16))) as opened:
        np.testing.assert_allclose(np.asarray(opened), levels / 257, atol=1)
    with Image.open(io.BytesIO(encode_picture(IMAGE, alpha=ALPHA))) as opened:
        assert opened.mode == "RGBA"
        np.testing.assert_allclose(np.asarray(opened)[..., 3], ALPHA * 255, atol=0.51)


@pytest.mark.parametrize(("suffix", "depth"), [(".png", 8), (".png", 16), (".tif", 8), (".tif", 16), (".jpg", 8), (".webp", 8)])
def test_a_colour_profile_is_named_in_the_file(suffix, depth):
    profile = imagecodecs.cms_profile(
        "rgb", whitepoint=(0.3127, 0.329), primaries=(0.68, 0.32, 0.265, 0.69, 0.15, 0.06), gamma=2.2
    )
    content = encode_picture(IMAGE, suffix, depth=depth, icc=profile)
    icc = tifffile.TiffFile(io.BytesIO(content)).pages[0].tags[34675].value if (suffix, depth) == (".tif", 16) else None
    if icc is None:
        with Image.open(io.BytesIO(content)) as opened:
            icc = opened.info["icc_profile"]
    assert icc == profile


def test_jpeg_keeps_colours_close(tmp_path):
    smooth = torch.nn.functional.interpolate(IMAGE[None], size=(64, 80), mode="bicubic").clamp(-1, 1)[0]
    (tmp_path / "a.JPG").write_bytes(encode_picture(smooth, ".JPG"))
    read = read_picture(tmp_path / "a.JPG")
    assert read.jpeg.subsampling == "4:4:4"
    assert (to_tensor(read) - smooth).abs().mean() < 0.02


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"suffix": ".bmp"}, r"written as \.jpeg, \.jpg, \.png.*, not as \.bmp"),
        ({"suffix": ""}, "without a suffix"),
        ({"suffix": ".jpg", "depth": 16}, r"JPEG holds 8 bits a channel, not 16: write \.png or \.tif"),
        ({"suffix": ".webp", "depth": 16}, "WEBP holds 8 bits"),
        ({"suffix": ".jpg", "alpha": ALPHA}, "JPEG holds no transparency"),
    ],
)
def test_what_a_format_cannot_hold_is_refused(options, words):
    with pytest.raises(ValueError, match=words):
        encode_picture(IMAGE, **options)


def test_rounds_to_the_nearest_level():
    levels = torch.arange(256, dtype=torch.float64) / 127.5 - 1
    off = 0.49 / 127.5
    assert torch.equal(to_uint8(levels + off), torch.arange(256, dtype=torch.uint8))
    assert torch.equal(to_uint8(levels - off), torch.arange(256, dtype=torch.uint8))
    assert to_uint8(torch.tensor([-1.7, 1.7])).tolist() == [0, 255]


@pytest.mark.parametrize("channels", [1, 3])
def test_what_is_read_is_what_was_written(run, channels):
    image = torch.randint(0, 256, (channels, 5, 7), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    path = run.write_image("clean", 3, "a", image)
    run.flush()
    assert torch.equal(read_png(path), image)


def test_other_channels_lie_side_by_side(tmp_path):
    (tmp_path / "two.png").write_bytes(encode_picture(torch.tensor([[[0, 1]], [[2, 3]]], dtype=torch.uint8)))
    assert read_png(tmp_path / "two.png").tolist() == [[[0, 1, 2, 3]]]
