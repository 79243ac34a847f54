import pytest
import torch
from PIL import Image

from cclight.operators.kernels import FixedKernel, KernelFile, LineKernel, ShakeKernel


@pytest.mark.parametrize(
    "kernel", [LineKernel(), LineKernel(1.0, 0), LineKernel(7.3, 100), ShakeKernel(), ShakeKernel(4, seed=3)]
)
def test_is_a_square_with_a_centre_that_adds_up_to_one(kernel):
    values = kernel()
    assert values.dtype == torch.float64
    assert values.shape[0] == values.shape[1]
    assert values.shape[0] % 2 == 1
    assert (values >= 0).all()
    assert float(values.sum()) == pytest.approx(1)


def test_a_line_lies_along_its_angle():
    level, upright = LineKernel(9, 0)(), LineKernel(9, 90)()
    assert int((level.sum(1) > 1e-9).sum()) == 1
    torch.testing.assert_close(upright, level.T)
    rising = LineKernel(9, 45)()
    torch.testing.assert_close(rising, rising.flip(0, 1))
    assert float(rising.flip(1).diagonal().sum()) > 0.5 > float(rising.diagonal().sum())


def test_a_shake_is_one_of_many():
    assert torch.equal(ShakeKernel(6, seed=1)(), ShakeKernel(6, seed=1)())
    assert not torch.equal(ShakeKernel(6, seed=1)(), ShakeKernel(6, seed=2)())
    assert ShakeKernel(6)().shape == (13, 13)


def test_a_file_gives_its_brightness(tmp_path):
    picture = Image.new("L", (3, 3))
    picture.putpixel((0, 1), 100)
    picture.putpixel((1, 1), 50)
    picture.save(tmp_path / "kernel.png")
    torch.testing.assert_close(
        KernelFile(str(tmp_path / "kernel.png"))()[1], torch.tensor([2 / 3, 1 / 3, 0], dtype=torch.float64)
    )
    Image.new("L", (4, 4), 1).save(tmp_path / "even.png")
    with pytest.raises(ValueError, match=r"even.png is 4×4: give a square with an odd side"):
        KernelFile(str(tmp_path / "even.png"))
    Image.new("L", (3, 3)).save(tmp_path / "black.png")
    with pytest.raises(ValueError, match=r"black.png has negative values or none but zeros"):
        KernelFile(str(tmp_path / "black.png"))
    with pytest.raises(FileNotFoundError, match=r"none.png"):
        KernelFile(str(tmp_path / "none.png"))
    (tmp_path / "text.png").write_text("no image")
    with pytest.raises(ValueError, match=r"text.png is not a readable image"):
        KernelFile(str(tmp_path / "text.png"))


def test_refuses_settings_out_of_range():
    with pytest.raises(ValueError, match="length > 0"):
        LineKernel(0)
    for kernel in (lambda: LineKernel(1e9), lambda: LineKernel(float("inf")), lambda: ShakeKernel(20_000)):
        with pytest.raises(ValueError, match="at most 1000"):  # memory and time grow with the square
            kernel()
    with pytest.raises(ValueError, match="angle in degrees, got nan"):
        LineKernel(3.0, float("nan"))
    with pytest.raises(ValueError, match="at least 1 pixel"):
        ShakeKernel(0)
    with pytest.raises(ValueError, match="negative values"):
        FixedKernel(-torch.ones(3, 3))
