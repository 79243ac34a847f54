"""Colour profiles: what a picture's numbers look like, and sRGB after it."""

import io
import struct

import imagecodecs
import numpy as np
from PIL import Image, ImageCms

from tests.data.conftest import pillow, read, tiff

BYTES = np.random.default_rng(0).integers(0, 256, (16, 24, 3), dtype=np.uint8)
GREY = np.arange(256, dtype=np.uint8).reshape(16, 16)
# As wide as Display P3, with its white and a gamma of 2.2.
P3 = imagecodecs.cms_profile(
    "rgb", whitepoint=(0.3127, 0.3290), primaries=(0.680, 0.320, 0.265, 0.690, 0.150, 0.060), gamma=2.2
)


def test_a_wide_colour_space_is_converted():
    """Display P3's colours against the matrices that define both spaces (SMPTE EG 432-1, IEC 61966-2-1)."""
    patches = np.array([[[200, 100, 50], [100, 130, 110], [128, 128, 128], [90, 80, 160]]], dtype=np.uint8)
    to_xyz = np.array([[0.486571, 0.265668, 0.198217], [0.228975, 0.691739, 0.079287], [0, 0.045113, 1.043944]])
    to_linear = np.array([[3.240970, -1.537383, -0.498611], [-0.969244, 1.875968, 0.041555], [0.055630, -0.203977, 1.056972]])
    linear = (patches / 255) ** 2.2 @ to_xyz.T @ to_linear.T
    expected = np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * np.clip(linear, 0, None) ** (1 / 2.4) - 0.055) * 255
    got = read(pillow(Image.fromarray(patches), icc_profile=P3)).pixels
    np.testing.assert_allclose(got, expected, atol=1.5)
    assert np.abs(got.astype(int) - patches).max() > 10
    for content in (
        tiff(patches.astype(np.uint16) * 257, photometric="rgb", iccprofile=P3),
        pillow(Image.fromarray(patches), "TIFF", icc_profile=P3),
        pillow(Image.fromarray(patches), "WEBP", lossless=True, icc_profile=P3),
        pillow(Image.fromarray(patches).convert("RGBA"), icc_profile=P3),
    ):
        pixels = read(content).pixels
        np.testing.assert_allclose(pixels / np.iinfo(pixels.dtype).max * 255, expected, atol=1.5)


def test_srgb_profiles_change_no_pixel():
    srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    for profile in (srgb, imagecodecs.cms_profile("srgb")):
        read_back = read(pillow(Image.fromarray(BYTES), icc_profile=profile))
        np.testing.assert_array_equal(read_back.pixels, BYTES)
        np.testing.assert_array_equal(read(pillow(Image.fromarray(GREY), icc_profile=profile)).pixels[..., 0], GREY)
        assert read_back.notes == ()


def test_a_grey_profile_is_converted():
    gamma = imagecodecs.cms_profile("gray", gamma=1.8)
    linear = (GREY / 255) ** 1.8
    expected = np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055) * 255
    read_back = read(pillow(Image.fromarray(GREY), icc_profile=gamma))
    assert read_back.pixels.shape == (16, 16, 1)
    np.testing.assert_allclose(read_back.pixels[..., 0], expected, atol=1.5)


def cmyk_profile():
    """A printer's profile made by hand (ICC.1:2001-04): one table from the corners of CMYK to Lab, linear between them."""
    lab = {"": (96, 1, 4), "c": (58, -30, -45), "m": (50, 70, 0), "y": (90, -5, 85), "k": (18, 0, 0)}
    corners = []
    for corner in np.ndindex(2, 2, 2, 2):
        inks = [lab[name] for name, on in zip("cmyk", corner, strict=True) if on]
        lightness = 96 * np.prod([ink[0] / 96 for ink in inks])
        a, b = (lab[""][i] + sum(ink[i] for ink in inks) / (1 + corner[3]) for i in (1, 2))
        corners += [round(lightness * 2.55), round(a + 128), round(b + 128)]
    identity = bytes(range(256))
    matrix = struct.pack(">9i", *(65536 * int(i in (0, 4, 8)) for i in range(9)))
    lut = (
        b"mft1\0\0\0\0" + bytes([4, 3, 2, 0]) + matrix + identity * 4 + bytes(np.clip(corners, 0, 255).tolist()) + identity * 3
    )
    text = b"desc\0\0\0\0\0\0\0\x05test\0" + bytes(78)
    white = b"XYZ \0\0\0\0" + struct.pack(">3i", 63190, 65536, 54061)
    tags = [(b"desc", text), (b"wtpt", white), (b"A2B0", lut)]
    place, table, body = 128 + 4 + 12 * len(tags), b"", b""
    for name, data in tags:
        table += name + struct.pack(">II", place + len(body), len(data))
        body += data + bytes(-len(data) % 4)
    size = place + len(body)
    head = struct.pack(">I4xI4s4s4s12x4s", size, 0x02400000, b"prtr", b"CMYK", b"Lab ", b"acsp")
    head = head.ljust(64, b"\0") + struct.pack(">I3i", 0, 63190, 65536, 54061)
    return head.ljust(128, b"\0") + struct.pack(">I", len(tags)) + table + body


def test_printed_colours_go_through_their_profile():
    """Against Pillow's own conversion with the same profile; without it, Pillow's inks are plain complements."""
    profile = cmyk_profile()
    inks = Image.fromarray(np.random.default_rng(0).integers(0, 256, (16, 24, 4), dtype=np.uint8), "CMYK")
    source, target = ImageCms.ImageCmsProfile(io.BytesIO(profile)), ImageCms.createProfile("sRGB")
    for content in (pillow(inks, "TIFF", icc_profile=profile), pillow(inks, "JPEG", quality=95, icc_profile=profile)):
        with Image.open(io.BytesIO(content)) as opened:
            expected = np.asarray(ImageCms.profileToProfile(opened, source, target, outputMode="RGB"))
            plain = np.asarray(opened.convert("RGB"))
        pixels = read(content).pixels
        np.testing.assert_allclose(pixels.astype(int), expected, atol=1)
        assert np.abs(pixels.astype(int) - plain).mean() > 10


def test_a_broken_profile_is_said():
    read_back = read(pillow(Image.fromarray(BYTES), icc_profile=b"no profile" * 20))
    np.testing.assert_array_equal(read_back.pixels, BYTES)
    assert "profile cannot be used" in read_back.notes[0]
