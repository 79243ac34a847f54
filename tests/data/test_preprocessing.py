import numpy as np
import pytest
import torch
from PIL import Image

from cclight.data.datamodule import RestorationDataModule
from cclight.data.decoding import Picture
from cclight.data.preprocessing import Preprocessing, centre_crop, cover, to_tensor
from cclight.data.sources import ImageFolder, Photograph
from cclight.operators.pixelwise import AveragePooling


def coordinates(height, width):
    """An image that tells each pixel's place: row in red, column in green."""
    rows, columns = np.meshgrid(np.arange(height), np.arange(width), indexing="ij")
    return Image.fromarray(np.stack([rows, columns, 0 * rows], axis=-1).astype(np.uint8))


def photograph(image):
    return Photograph(image, 3, "x")


def test_to_tensor_maps_0_and_255_to_the_ends():
    pixels = np.array([[[0, 255, 51], [255, 0, 204]]], dtype=np.uint8)
    tensor = to_tensor(Image.fromarray(pixels))
    expected = torch.tensor([[[-1.0, 1.0]], [[1.0, -1.0]], [[-0.6, 0.6]]])
    assert tensor.dtype == torch.float32
    torch.testing.assert_close(tensor, expected)


def test_centre_crop_keeps_the_centre():
    crop = np.array(centre_crop(coordinates(21, 30), (8, 11)))
    assert crop.shape == (8, 11, 3)
    assert tuple(crop[0, 0, :2]) == (6, 9)


@pytest.mark.parametrize(
    ("shape", "size"), [((40, 60), (16, 16)), ((60, 40), (16, 16)), ((37, 53), (16, 24)), ((10, 12), (16, 16))]
)
def test_cover_just_covers_the_size(shape, size):
    image = cover(coordinates(*shape), size)
    assert (image.height == size[0] and image.width >= size[1]) or (image.width == size[1] and image.height >= size[0])
    # The aspect ratio stays, up to a pixel.
    assert abs(image.width / image.height - shape[1] / shape[0]) < 1.5 * max(shape) / min(shape) / min(size)


def test_twice_too_large_is_the_mean_of_blocks():
    pixels = np.random.default_rng(0).integers(0, 256, (32, 32, 3), dtype=np.uint8)
    blocks = pixels.reshape(16, 2, 16, 2, 3).mean(axis=(1, 3))
    np.testing.assert_allclose(
        np.array(cover(Image.fromarray(pixels), (16, 16))), blocks, atol=1
    )  # Pillow rounds after either side


def test_scaling_down_does_not_alias():
    # A pattern far above the new Nyquist frequency must become its mean.
    stripes = np.zeros((30, 30, 3), dtype=np.uint8)
    stripes[:, ::2] = 200
    small = np.array(cover(Image.fromarray(stripes), (16, 16))).astype(float)
    assert np.abs(small[2:-2, 2:-2] - 100).max() < 30


def test_sizes_and_channels():
    image = photograph(coordinates(30, 41))
    assert Preprocessing(size=(16, 16))(image).shape == (3, 16, 16)
    assert Preprocessing(size=(16, 20), resize=False)(image).shape == (3, 16, 20)
    assert Preprocessing()(image).shape == (3, 30, 41)
    assert Preprocessing(multiple=8)(image).shape == (3, 24, 40)
    assert Preprocessing(channels=1)(image).shape == (1, 30, 41)


def test_a_grey_photograph_in_rgb_turns_grey_without_change():
    grey = Image.fromarray(np.arange(256, dtype=np.uint8).reshape(16, 16))
    colour, single = (
        Preprocessing()(photograph(grey.convert("RGB"))),
        Preprocessing(channels=1)(photograph(grey.convert("RGB"))),
    )
    assert torch.equal(colour, single.expand(3, -1, -1))


def test_only_cutting_refuses_what_is_too_small():
    with pytest.raises(ValueError, match=r"x \(number 3\) has 30×41 pixels, fewer than the 32×32.*data.resize"):
        Preprocessing(size=(32, 32), resize=False)(photograph(coordinates(30, 41)))
    with pytest.raises(ValueError, match=r"fewer than the 64×64.*data.multiple"):
        Preprocessing(multiple=64)(photograph(coordinates(30, 41)))


def test_a_measurement_has_no_transparent_pixels(tmp_path):
    pixels = np.full((8, 8, 4), 255, dtype=np.uint8)
    pixels[0, 0, 3] = 0
    Image.fromarray(pixels).save(tmp_path / "layer.png")
    (entry,) = ImageFolder(tmp_path)
    assert Preprocessing()(entry.load()).min() == 1
    with pytest.raises(ValueError, match=r"layer \(number 0\) has transparent pixels, which are no measurement"):
        Preprocessing(opaque=True)(entry.load())
    module = RestorationDataModule(ImageFolder(tmp_path), operator=AveragePooling(2), measurements=True)
    assert module.preprocessing.opaque


def test_enlarging_is_known():
    image = photograph(coordinates(30, 41))
    assert Preprocessing(size=(31, 31)).enlarges(image)
    assert not Preprocessing(size=(30, 41)).enlarges(image)
    assert not Preprocessing().enlarges(image)


def test_pictures_of_16_bits_keep_their_depth_through_resizing():
    """Against the mean of blocks in floats; 8 bits would be off by up to 1/255."""
    levels = np.random.default_rng(0).integers(0, 65536, (32, 32, 3), dtype=np.uint16)
    deep = Photograph(Image.fromarray((levels // 257).astype(np.uint8)), 0, "x", levels)
    blocks = levels.reshape(16, 2, 16, 2, 3).mean(axis=(1, 3)) / 32767.5 - 1
    np.testing.assert_allclose(Preprocessing((16, 16))(deep), blocks.transpose(2, 0, 1), atol=1e-5)
    np.testing.assert_allclose(Preprocessing()(deep), levels.transpose(2, 0, 1) / 32767.5 - 1, atol=1e-6)
    grey = Preprocessing(channels=1)(deep)[0]
    np.testing.assert_allclose(grey, levels @ [0.299, 0.587, 0.114] / 32767.5 - 1, atol=1e-6)


def test_a_deep_grey_picture_gives_one_channel_or_three_equal_ones():
    levels = np.arange(64, dtype=np.uint16).reshape(8, 8, 1) * 1000
    photo = Photograph(Image.new("RGB", (8, 8)), 0, "x", levels)
    assert torch.equal(Preprocessing()(photo), Preprocessing(channels=1)(photo).expand(3, -1, -1))


def test_8_and_16_bits_of_the_same_picture_are_the_same_tensor():
    rows, columns = np.meshgrid(np.arange(30), np.arange(41), indexing="ij")
    pixels = (np.stack([np.sin(rows / 5), np.cos(columns / 4), np.sin(rows / 9 + columns / 3)], -1) * 100 + 128).astype(
        np.uint8
    )
    deep = Photograph(Image.fromarray(pixels), 0, "x", pixels.astype(np.uint16) * 257)
    for preprocessing in (Preprocessing(), Preprocessing((16, 20)), Preprocessing((50, 60)), Preprocessing(channels=1)):
        plain = preprocessing(photograph(Image.fromarray(pixels)))
        torch.testing.assert_close(preprocessing(deep), plain, atol=2.5 / 127.5, rtol=0)  # 8 bits round after each pass
    assert torch.equal(to_tensor(Picture(pixels, False)), to_tensor(Image.fromarray(pixels)))
    torch.testing.assert_close(to_tensor(Picture(pixels.astype(np.uint16) * 257, False)), to_tensor(Image.fromarray(pixels)))
