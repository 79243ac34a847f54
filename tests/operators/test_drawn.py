"""Masks as people draw them. The hole is always the same rectangle, however it was drawn."""

import numpy as np
import pytest
import tifffile
from PIL import Image

from cclight.operators.masks import MaskFile

HEIGHT, WIDTH = 20, 30
HOLE = np.zeros((HEIGHT, WIDTH), dtype=bool)
HOLE[4:9, 10:22] = True
PHOTOGRAPH = np.random.default_rng(0).integers(0, 256, (HEIGHT, WIDTH, 3), dtype=np.uint8)


def layered(colour, alpha):
    """RGBA pixels."""
    colour = np.broadcast_to(np.asarray(colour, dtype=np.uint8), (HEIGHT, WIDTH, 3))
    return np.dstack([colour, np.where(alpha, 255, 0).astype(np.uint8)])


def painted(hole, rest):
    return np.where(HOLE[..., None], np.array(hole, dtype=np.uint8), np.array(rest, dtype=np.uint8))


def soft():
    """A brush with a soft edge."""
    ramp = np.where(HOLE, 0.0, 255.0)
    ramp[9, 10:22], ramp[3, 10:22] = 200, 140
    return ramp.astype(np.uint8)


DRAWN = {
    "white and black": np.where(HOLE, 0, 255).astype(np.uint8),
    "1 and 0": np.where(HOLE, 0, 1).astype(np.uint8),
    "one bit": ~HOLE,
    "16 bits": np.where(HOLE, 0, 65535).astype(np.uint16),
    "16 bits, 1 and 0": np.where(HOLE, 0, 1).astype(np.uint16),
    "12 bits": np.where(HOLE, 0, 4095).astype(np.uint16),
    "soft edges": soft(),
    "a red hole on white": painted((255, 0, 0), (255, 255, 255)),
    "kept in blue on black": painted((0, 0, 0), (0, 0, 255)),
    "kept in white strokes on a transparent layer": layered(255, ~HOLE),
    "an opaque white part of a white layer": np.dstack([np.full((HEIGHT, WIDTH, 3), 255, np.uint8), np.where(HOLE, 0, 255)]),
    "a hole in black strokes on a transparent layer": layered(0, HOLE),
    "a hole in red strokes on a transparent layer": layered((255, 0, 0), HOLE),
    "a hole erased from a photograph": layered(PHOTOGRAPH, ~HOLE),
    "black and white with a transparent rim": np.dstack(
        [np.where(HOLE, 0, 255)] * 3 + [np.where(np.arange(HEIGHT)[:, None] < 2, 0, np.full((HEIGHT, WIDTH), 255))]
    ),
}


@pytest.mark.parametrize("name", DRAWN)
def test_a_mask_is_read_as_it_was_drawn(name, tmp_path):
    pixels = DRAWN[name]
    pixels = pixels.astype(np.uint8) if pixels.dtype == int else pixels
    Image.fromarray(pixels).save(tmp_path / "mask.png")
    expected = HOLE.copy()
    if "rim" in name:
        expected[:2] = True
    mask = MaskFile(str(tmp_path / "mask.png"))
    np.testing.assert_array_equal(~mask.kept.numpy(), expected)
    assert mask.missing == pytest.approx(expected.mean())
    np.testing.assert_array_equal(MaskFile(str(tmp_path / "mask.png"), invert=True).kept.numpy(), expected)


@pytest.mark.parametrize("values", [(0, 1), (0, 255), (-1, 1), (0.25, 0.75)])
def test_floats_and_arrays_are_read_in_their_own_range(values, tmp_path):
    floats = np.where(HOLE, *values).astype(np.float32)
    tifffile.imwrite(tmp_path / "mask.tif", floats)
    np.save(tmp_path / "mask.npy", floats)
    np.save(tmp_path / "bool.npy", ~HOLE[None])
    for file in ("mask.tif", "mask.npy", "bool.npy"):
        np.testing.assert_array_equal(~MaskFile(str(tmp_path / file)).kept.numpy(), HOLE, err_msg=file)


def test_a_mask_from_a_phone_is_turned_upright(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6  # stored turned by 90°
    Image.fromarray(np.rot90(DRAWN["white and black"])).save(tmp_path / "mask.png", exif=exif)
    np.testing.assert_array_equal(~MaskFile(str(tmp_path / "mask.png")).kept.numpy(), HOLE)


def test_compressed_masks_keep_their_shape(tmp_path):
    Image.fromarray(DRAWN["white and black"]).save(tmp_path / "mask.jpg", quality=60)
    assert (MaskFile(str(tmp_path / "mask.jpg")).kept.numpy() == HOLE).mean() < 0.01


@pytest.mark.parametrize(
    ("pixels", "words"),
    [
        (np.full((4, 5), 255, np.uint8), "leaves nothing to fill in"),
        (np.full((4, 5), 1, np.uint8), "leaves nothing to fill in"),
        (np.zeros((4, 5), np.uint8), "keeps no pixel"),
        (np.zeros((4, 5, 4), np.uint8), "keeps no pixel"),
        (PHOTOGRAPH, "is neither black nor white in .*% of it"),
        (250 + (PHOTOGRAPH[..., 0] % 6), "is neither black nor white"),
    ],
    ids=["white", "all 1", "black", "transparent", "a photograph", "almost white"],
)
def test_what_is_no_mask_is_refused(pixels, words, tmp_path):
    Image.fromarray(pixels).save(tmp_path / "mask.png")
    with pytest.raises(ValueError, match=f"^The mask .*mask.png {words}") as caught:
        MaskFile(str(tmp_path / "mask.png"))
    assert "\n" not in str(caught.value)


def test_pickles_and_text_are_refused(tmp_path):
    np.save(tmp_path / "pickle.npy", np.array([{}]), allow_pickle=True)
    (tmp_path / "words.npy").write_text("no array")
    for file in ("pickle.npy", "words.npy"):
        with pytest.raises(ValueError, match=f"The mask file .*{file} cannot be read"):
            MaskFile(str(tmp_path / file))
