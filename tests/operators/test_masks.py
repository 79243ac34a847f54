import numpy as np
import pytest
import torch
from jsonargparse import ArgumentError, ArgumentParser
from PIL import Image

from cclight import SmallPrior
from cclight.operators.iterative import MotionBlur
from cclight.operators.mask_folder import mask_for
from cclight.operators.masks import Box, FixedMask, FreeForm, Inpainting, MaskFile, RandomPixels, harmonic_fill
from cclight.problem import Problem


@pytest.mark.parametrize("name", ["op__in2_20ff1", "op__inp_20ff1", "op_flow__inp"])
def test_agrees_with_the_papers_code(name, load):
    numbers = load(name)
    x = numbers["x"]
    mask = numbers["mask"] if "mask" in numbers else numbers["Hx"].view(x.shape)[0] != 0
    operator = Inpainting(FixedMask(mask))
    y = operator(x)
    if name == "op__inp_20ff1":  # this one lists the kept pixels
        assert torch.equal(torch.sort(y[y != 0]).values, torch.sort(numbers["Hx"].flatten()).values)
    else:
        assert torch.equal(y.flatten(1), numbers["Hx"])
    if name == "op__in2_20ff1":
        assert torch.equal(operator.pinv(numbers["y_random"].view(x.shape)).flatten(1), numbers["pinv_y_random"])
    assert torch.equal(operator.pinv(y).flatten(1), numbers["pinv_Hx"])
    assert torch.equal(operator.project(x).flatten(1), numbers["pinv_Hx"])


def test_box_is_where_it_was_asked_for():
    kept = Box(2)((3, 6, 8))
    assert kept.shape == (1, 6, 8)
    assert (~kept[0]).nonzero().tolist() == [[2, 3], [2, 4], [3, 3], [3, 4]]
    assert (~Box(1, centre=(0, 7))((3, 6, 8))[0]).nonzero().tolist() == [[0, 7]]
    with pytest.raises(ValueError, match=r"7×7 pixels centred on .* does not fit into images of 6×8"):
        Box(7)((3, 6, 8))
    with pytest.raises(ValueError, match="size >= 1"):
        Box(0)


def test_random_pixels_miss_the_fraction_asked_for():
    kept = RandomPixels(0.7, seed=1)((3, 20, 30))
    assert int((~kept).sum()) == 420
    assert torch.equal(kept, RandomPixels(0.7, seed=1)((3, 20, 30)))
    assert not torch.equal(kept, RandomPixels(0.7, seed=2)((3, 20, 30)))
    with pytest.raises(ValueError, match="between 0 and 1, got 1"):
        RandomPixels(1.0)


@pytest.mark.parametrize("missing", [0.1, 0.2, 0.4])
def test_free_form_is_the_same_picture_at_any_size(missing):
    small, large = FreeForm(missing)((3, 64, 64)), FreeForm(missing)((3, 128, 192))
    for kept in (small, large):
        assert abs(float((~kept).float().mean()) - missing) < 0.025
        border = kept.clone()
        border[:, kept.shape[1] // 8 : -(kept.shape[1] // 8), kept.shape[2] // 8 : -(kept.shape[2] // 8)] = True
        assert border.all()
    shrunk = torch.nn.functional.interpolate(large[None].float(), (64, 64), mode="area")[0] > 0.5
    assert (shrunk == small).float().mean() > 0.97
    assert not torch.equal(small, FreeForm(missing, seed=1)((3, 64, 64)))
    with pytest.raises(ValueError, match=r"\(0, 0.4\], got 0.9"):
        FreeForm(0.9)


def test_a_mask_file_keeps_what_is_white(tmp_path):
    picture = Image.new("RGB", (8, 6), "white")
    picture.putpixel((3, 2), (0, 0, 0))
    picture.putpixel((4, 2), (100, 100, 100))
    picture.save(tmp_path / "mask.png")
    mask = MaskFile(str(tmp_path / "mask.png"))
    assert (~mask((3, 6, 8))[0]).nonzero().tolist() == [[2, 3], [2, 4]]
    with pytest.raises(ValueError, match=r"mask.png is 1×6×8 .* the images are 3×8×6"):
        Inpainting(mask).check_images((3, 8, 6))
    (tmp_path / "text.png").write_text("not an image")
    with pytest.raises(ValueError, match=r"text.png cannot be read .*none of .*PNG"):
        MaskFile(str(tmp_path / "text.png"))
    with pytest.raises(FileNotFoundError, match=r"no mask file .*none.png: give a picture"):
        MaskFile(str(tmp_path / "none.png"))


def test_channels_can_have_masks_of_their_own():
    kept = torch.rand(3, 4, 5, generator=torch.Generator().manual_seed(0)) > 0.5
    x = torch.ones(2, 3, 4, 5)
    assert torch.equal(Inpainting(FixedMask(kept))(x), kept.float().expand(2, 3, 4, 5))
    with pytest.raises(ValueError, match="the images are 1×4×5"):
        Inpainting(FixedMask(kept))(torch.ones(1, 1, 4, 5))


@pytest.mark.parametrize("shape", [(2, 12), (1, 4, 3, 5), (2, 2, 3, 2, 2)])
def test_masks_of_signals_and_volumes(shape, tmp_path):
    sides = shape[1:]
    kept = RandomPixels(0.5)(shape)
    assert kept.shape == (1, *sides)
    assert int(kept.sum()) == np.prod(sides) // 2
    assert torch.equal(kept.flatten(), RandomPixels(0.5)((1, 1, int(np.prod(sides)))).flatten())
    gap = Box(2)(shape)
    assert gap.shape == (1, *sides)
    assert int((~gap).sum()) == 2 ** len(sides)
    x = torch.randn(2, *shape, generator=torch.Generator().manual_seed(0))
    np.save(tmp_path / "mask.npy", kept[0].numpy())
    for mask in (kept[0], kept, kept.expand(shape), MaskFile(str(tmp_path / "mask.npy")), RandomPixels(0.5)):
        operator = Inpainting(mask)
        operator.check_images(shape)
        assert torch.equal(operator(x), x * kept)
        assert torch.equal(operator.from_spectral(operator.singular_values(shape).to(x) * operator.spectral(x)), x * kept)
    with pytest.raises(ValueError, match=r"The mask is 1×.* \(channels×sides\), the images are"):
        Inpainting(kept[0]).check_images((*shape[:-1], shape[-1] + 1))
    with pytest.raises(ValueError, match=r"FreeForm draws on pictures.*take the mask Box"):
        Inpainting().check_images(shape)
    with pytest.raises(
        ValueError, match=rf"a number for each of {len(sides)} sides, got \[0\]" if len(sides) > 1 else "does not fit"
    ):
        Box(3, centre=(0,))(shape)


@pytest.mark.parametrize("sides", [(40,), (10, 12), (6, 7, 9)])
def test_the_fill_of_signals_and_volumes_is_close_to_the_solution_of_laplaces_equation(sides):
    """A plane is harmonic in any number of sides; one of its sides alone is the plane of a signal."""
    slopes = torch.meshgrid(*(torch.linspace(-1, 1, side) for side in sides), indexing="ij")
    image = sum(slopes)[None, None]
    kept = Box(3)((1, *sides))[None].float()
    filled = harmonic_fill(image * kept, kept, relaxations=300)
    assert torch.equal(filled * kept, image * kept)
    assert (filled - image).abs().max() < 1e-3


def test_tensors_and_arrays_are_masks():
    kept = torch.rand(4, 5, generator=torch.Generator().manual_seed(0)) > 0.5
    x = torch.ones(2, 3, 4, 5)
    for mask in (kept, kept.float(), kept.to(torch.uint8) * 255, kept.numpy(), kept.numpy()[::-1][::-1], kept[None]):
        assert torch.equal(Inpainting(mask)(x), kept.float().expand(2, 3, 4, 5))
    assert FixedMask(kept).missing == pytest.approx(float((~kept).double().mean()))
    with pytest.raises(ValueError, match=r"1 where it is kept, \(H, W\) or \(C, H, W\): got 4×5 from -1 to 0"):
        Inpainting(kept.float() - 1)
    with pytest.raises(ValueError, match="NaN"):
        Inpainting(torch.full((2, 2), torch.nan))
    with pytest.raises(TypeError, match=r"A mask is a tensor.* got str 'mask\.png'"):
        Inpainting("mask.png")


def test_configurations_know_masks_and_no_tensors():
    """A union with tensors would give a misspelt mask three messages, two of them about tensors."""
    parser = ArgumentParser(exit_on_error=False)
    parser.add_class_arguments(Inpainting, "operator")
    parser.add_class_arguments(MotionBlur, "blur")
    parsed = parser.parse_object({"operator": {"mask": {"class_path": "cclight.Box", "init_args": {"size": 3}}}})
    assert parsed.operator.mask.init_args.size == 3
    for wrong in ({"operator": {"mask": {"class_path": "torch.Tensor"}}}, {"blur": {"kernel": {"class_path": "torch.Tensor"}}}):
        with pytest.raises(ArgumentError, match=r"torch\.Tensor") as caught:
            parser.parse_object(wrong)
        assert "ndarray" not in str(caught.value)


def test_each_picture_finds_its_mask(tmp_path):
    """One mask for all, or a folder with one of each picture's name, of any suffix."""
    array = np.ones((4, 5))
    array[0, :2] = 0
    np.save(tmp_path / "a.npy", array)
    Image.fromarray((1 - array).astype(np.uint8) * 255).save(tmp_path / "b.png")
    assert mask_for("pictures/a.jpg", tmp_path / "b.png").missing == pytest.approx(0.9)
    assert mask_for("pictures/a.jpg", tmp_path).missing == pytest.approx(0.1)
    assert mask_for("pictures/b.tif", tmp_path, invert=True).missing == pytest.approx(0.1)
    with pytest.raises(FileNotFoundError, match=r"no mask for c.jpg in the folder .* called c.png"):
        mask_for("pictures/c.jpg", tmp_path)
    Image.fromarray(array.astype(np.uint8)).save(tmp_path / "b.tif")
    with pytest.raises(ValueError, match=r"b.jpg has several masks in .*: b.png, b.tif"):
        mask_for("b.jpg", tmp_path)
    assert mask_for("b.tif", tmp_path).missing == pytest.approx(0.1)  # the very name decides


def test_without_a_mask_it_takes_images_of_any_size():
    for shape in ((1, 3, 16, 16), (1, 3, 40, 24)):
        assert 0.1 < float((Inpainting()(torch.ones(shape)) == 0).float().mean()) < 0.3


def test_the_fill_is_close_to_the_solution_of_laplaces_equation():
    """Against a long relaxation, on a smooth picture with a hole; the kept pixels are untouched."""
    rows, columns = torch.meshgrid(torch.linspace(-1, 1, 47), torch.linspace(-1, 1, 33), indexing="ij")
    image = torch.stack([rows, columns, rows * columns])[None].double()
    kept = Box(16)((3, 47, 33)).double()
    filled = harmonic_fill(image * kept, kept)
    assert torch.equal(filled * kept, image * kept)
    # Each of the three is harmonic, hence its own continuation; a grey hole is wrong by up to 0.5 here.
    assert (filled - image).abs().max() < 0.05
    assert (harmonic_fill(image * kept, kept, relaxations=300) - image).abs().max() < 1e-3


def test_a_fill_changes_where_samplers_start_and_nothing_else():
    """H, H⁺ and P stay; the start of a sampler is the filled picture; nothing kept gives zeros, not NaN."""
    x = torch.randn(2, 3, 12, 12, generator=torch.Generator().manual_seed(0))
    plain, filled = Inpainting(Box(4)), Inpainting(Box(4), fill=True)
    y = plain(x)
    assert torch.equal(filled(x), y)
    assert torch.equal(filled.pinv(y), plain.pinv(y))
    assert torch.equal(plain.first_guess(y), y)
    problem = Problem(SmallPrior(), filled, y, torch.zeros_like(x))
    alpha = problem.level(0.3).alpha
    assert torch.equal(problem.start(0.3), alpha * filled.first_guess(y))
    assert torch.equal(harmonic_fill(x, torch.zeros(12, 12)), torch.zeros_like(x))
