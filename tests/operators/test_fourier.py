"""Fourier sampling against dense matrices, for masks with and without symmetry, real images and complex ones."""

import numpy as np
import pytest
import torch

from cclight import CartesianLines, FourierSampling, Inpainting, MaskFile, MultiCoil, RandomPixels
from cclight.operators.check import check_operator
from tests.data.test_arrays import write

SIDES = [(6, 8), (5, 7), (6, 5)]
MASKS = {"lines": CartesianLines(2, 0.2), "scattered": RandomPixels(0.6)}


def draw(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def dense(operator, shape):
    """The real matrix, (2m, n): real and imaginary parts of y below each other."""
    eye = torch.eye(shape[0] * shape[1] * shape[2], dtype=torch.float64).view(-1, *shape)
    y = operator(eye).flatten(1)
    return torch.cat([y.real, y.imag], dim=1).T


def maps(coils=3, height=6, width=8):
    return torch.complex(draw(coils, height, width), draw(coils, height, width, seed=1))


@pytest.mark.parametrize("sides", SIDES)
@pytest.mark.parametrize("mask", MASKS)
@pytest.mark.parametrize("complex_images", [False, True])
def test_it_has_the_singular_values_and_pseudoinverse_of_its_dense_matrix(sides, mask, complex_images):
    shape = (2, *sides)
    operator = FourierSampling(MASKS[mask], complex_images)
    h = dense(operator, shape)
    s = operator.singular_values(shape).expand(shape)
    own = torch.linalg.svdvals(h)
    expected = torch.zeros(s.numel(), dtype=torch.float64)
    expected[: len(own)] = own[: s.numel()]
    torch.testing.assert_close(s.flatten().sort(descending=True).values, expected, atol=1e-12, rtol=0)
    if mask == "scattered" and not complex_images:
        assert {0.0, 0.5, 1.0} == set((s**2).flatten().mul(1e6).round().div(1e6).tolist())
    x, z = draw(2, *shape), draw(2, *shape, seed=1)
    torch.testing.assert_close(operator.from_spectral(s**2 * operator.spectral(x)).flatten(1), x.flatten(1) @ h.T @ h)
    torch.testing.assert_close(operator.spectral(x).norm(), x.norm())
    torch.testing.assert_close(operator.from_spectral(operator.spectral(z)), z)
    y = torch.complex(*draw(2, *operator(x).shape, seed=2))
    flat = torch.cat([y.real.flatten(1), y.imag.flatten(1)], dim=1)
    torch.testing.assert_close(operator.adjoint(y).flatten(1), flat @ h)
    torch.testing.assert_close(operator.pinv(y).flatten(1), flat @ torch.linalg.pinv(h, rtol=1e-10).T)


def test_y_is_what_scanners_give_with_frequency_0_in_the_middle():
    x = draw(1, 1, 6, 8)
    expected = np.fft.fftshift(np.fft.fft2(np.fft.ifftshift(x[0, 0].numpy()), norm="ortho"))
    y = FourierSampling(torch.ones(6, 8))(x)
    torch.testing.assert_close(y[0, 0], torch.from_numpy(expected))
    assert float(y[0, 0, 3, 4].real) == pytest.approx(float(x.sum()) / 48**0.5)


@pytest.mark.parametrize("equispaced", [False, True])
@pytest.mark.parametrize(("acceleration", "centre"), [(4, 0.08), (8, 0.04)])
def test_one_column_in_r_is_measured_and_the_whole_middle(acceleration, centre, equispaced):
    kept = CartesianLines(acceleration, centre, equispaced)((1, 10, 320))
    assert kept.shape == (1, 10, 320)
    assert (kept == kept[:, :1]).all()
    assert int(kept[0, 0].sum()) == 320 // acceleration
    half = round(320 * centre) // 2
    assert kept[0, 0, 160 - half : 160 + half].all()
    assert not torch.equal(kept, CartesianLines(acceleration, centre, equispaced, seed=1)((1, 10, 320)))
    if equispaced:
        steps = kept[0, 0, : 160 - half].nonzero().flatten().diff()
        assert steps.max() - steps.min() <= 1


@pytest.mark.parametrize(("arguments", "words"), [((1.0,), "acceleration > 1"), ((4.0, 0.3), "give one from 0 to 0.25")])
def test_lines_that_cannot_be_are_told(arguments, words):
    with pytest.raises(ValueError, match=words):
        CartesianLines(*arguments)


def test_a_mask_of_another_size_or_images_of_other_channels_are_told(tmp_path):
    np.save(tmp_path / "mask.npy", np.eye(5))
    with pytest.raises(ValueError, match=r"mask.npy is 1×5×5 .* the images are 3×8×8"):
        FourierSampling(MaskFile(str(tmp_path / "mask.npy"))).check_images((3, 8, 8))
    with pytest.raises(ValueError, match=r"2 channels, real and imaginary part, got 3"):
        FourierSampling(complex_images=True).check_images((3, 8, 8))


def test_multi_coil_is_its_dense_matrix():
    operator = MultiCoil(maps(), CartesianLines(2, 0.2), tolerance=1e-12)
    h = dense(operator, (2, 6, 8))
    x = draw(1, 2, 6, 8)
    image = torch.complex(x[:, 0], x[:, 1])
    single = FourierSampling(CartesianLines(2, 0.2), complex_images=True)
    for coil, sensitivity in enumerate(maps()):
        seen = torch.view_as_real(sensitivity * image).permute(0, 3, 1, 2)
        torch.testing.assert_close(operator(x)[:, coil], single(seen)[:, 0])
    y = torch.complex(*draw(2, 1, 3, 6, 8, seed=2))
    flat = torch.cat([y.real.flatten(1), y.imag.flatten(1)], dim=1)
    torch.testing.assert_close(operator.adjoint(y).flatten(1), flat @ h)
    y = operator(x)
    flat = torch.cat([y.real.flatten(1), y.imag.flatten(1)], dim=1)
    expected = flat @ torch.linalg.pinv(h, rtol=1e-10).T
    torch.testing.assert_close(operator.pinv(y).flatten(1), expected, atol=1e-6, rtol=1e-6)


def test_maps_come_from_a_file_and_what_is_none_is_told(tmp_path):
    file = tmp_path / "maps.npy"
    np.save(file, maps().numpy())
    x = draw(1, 2, 6, 8)
    torch.testing.assert_close(MultiCoil(str(file))(x), MultiCoil(maps())(x))
    with pytest.raises(ValueError, match=r"for images of 2×6×8 .*got 3×6×8"):
        MultiCoil(str(file)).check_images((3, 6, 8))
    with pytest.raises(FileNotFoundError, match="no coil maps"):
        MultiCoil(str(tmp_path / "none.npy"))
    for suffix in (".npz", ".mat", ".h5"):
        beside = write(tmp_path / f"coils{suffix}", maps=maps().numpy(), other=np.ones(3))
        torch.testing.assert_close(MultiCoil(str(beside))(x), MultiCoil(maps())(x))
    np.save(file, np.ones((6, 8)))
    with pytest.raises(ValueError, match=r"maps.npy are 6×8: give finite numbers .*\(coils, H, W\)"):
        MultiCoil(str(file))
    np.save(file, np.array([{"a": 1}], dtype=object), allow_pickle=True)
    with pytest.raises(ValueError, match="cannot be read"):
        MultiCoil(str(file))


@pytest.mark.parametrize(
    ("operator", "channels"),
    [(FourierSampling(), 3), (FourierSampling(RandomPixels()), 1), (FourierSampling(complex_images=True), 2), (None, 2)],
)
def test_they_keep_their_promises(operator, channels):
    operator = MultiCoil(maps(4, 32, 32)) if operator is None else operator
    failed = [check for check in check_operator(operator, (channels, 32, 32)) if not check.passed]
    assert not failed


def test_masks_by_the_pictures_name_serve_frequencies_too(tmp_path):
    from cclight import MaskFolder

    np.save(tmp_path / "one.npy", np.eye(8))
    own = FourierSampling(MaskFolder(str(tmp_path))).of("one")
    x = draw(1, 1, 8, 8)
    torch.testing.assert_close(own(x), FourierSampling(torch.eye(8))(x))
    assert isinstance(Inpainting(MaskFolder(str(tmp_path))).of("one"), Inpainting)
