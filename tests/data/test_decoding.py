import numpy as np
import pytest
from PIL import Image

from cclight.data.decoding import UnreadableImage, decode
from cclight.data.sources import ImageFolder
from tests.data.conftest import picture


def test_any_kind_of_pixel_becomes_rgb(tmp_path):
    grey = np.arange(256, dtype=np.uint8).reshape(16, 16)
    Image.fromarray(grey).save(tmp_path / "a_grey.png")
    Image.fromarray(grey.astype(np.uint16) * 257).save(tmp_path / "b_16_bits.png")
    Image.fromarray(grey).convert("RGBA").save(tmp_path / "c_alpha.png")
    palette = Image.fromarray(grey).convert("P")
    palette.save(tmp_path / "d_palette.png", transparency=bytes(range(256)))
    for photograph in ImageFolder(tmp_path).shard():
        assert photograph.image.mode == "RGB"
        np.testing.assert_array_equal(
            np.array(photograph.image), np.repeat(grey[..., None], 3, axis=-1), err_msg=photograph.name
        )
    Image.new("CMYK", (8, 8)).save(tmp_path / "e_cmyk.jpg")
    *_, cmyk = ImageFolder(tmp_path).shard()
    assert np.array(cmyk.image).min() >= 254


def test_photographs_are_turned_upright(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6  # turned by 90°
    picture(0, height=8, width=12).save(tmp_path / "phone.jpg", exif=exif)
    (photograph,) = ImageFolder(tmp_path).shard()
    assert photograph.image.size == (8, 12)


def test_files_are_closed_and_errors_are_one_line(tmp_path, recwarn):
    path = tmp_path / "x.png"
    picture(0).save(path)
    path.write_bytes(path.read_bytes()[:-200])
    with pytest.raises(UnreadableImage, match=r"^the place cannot be read as an image \(OSError: .*\)$"):
        decode("the place", lambda: Image.open(path))
    assert not recwarn.list
