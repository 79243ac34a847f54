import numpy as np
import pytest
import torch
from PIL import Image
from scipy.io import savemat

from cclight.operators.iterative import MotionBlur
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
    with pytest.raises(ValueError, match=r"even.png is 4×4: give a square with an odd side.*pad it with zeros to 5×5"):
        KernelFile(str(tmp_path / "even.png"))
    Image.new("L", (3, 3)).save(tmp_path / "black.png")
    with pytest.raises(ValueError, match=r"black.png has negative values or none but zeros"):
        KernelFile(str(tmp_path / "black.png"))
    with pytest.raises(FileNotFoundError, match=r"none.png"):
        KernelFile(str(tmp_path / "none.png"))
    (tmp_path / "text.png").write_text("no image")
    with pytest.raises(ValueError, match=r"text.png cannot be read"):
        KernelFile(str(tmp_path / "text.png"))


def test_a_kernel_keeps_the_depth_of_its_file(tmp_path):
    """What 8 bits would clip or round comes through 16 bits, floats, arrays and Matlab's files."""
    values = np.array([[0, 3, 0], [40000, 60000, 1], [0, 700, 0]])
    expected = torch.from_numpy(values / values.sum())
    Image.fromarray(values.astype(np.uint16)).save(tmp_path / "16.png")
    Image.fromarray(values.astype(np.int32)).save(tmp_path / "32.tif")
    Image.fromarray((values / 7).astype(np.float32)).save(tmp_path / "float.tif")
    np.save(tmp_path / "array.npy", values / 7)
    savemat(tmp_path / "kernel.mat", {"k": values / 7, "sigma": 3.0, "name": "shake"})
    for file in ("16.png", "32.tif", "float.tif", "array.npy", "kernel.mat"):
        torch.testing.assert_close(KernelFile(str(tmp_path / file))(), expected, rtol=1e-6, atol=1e-9, msg=file)


def test_arrays_that_are_no_kernel_are_named(tmp_path):
    np.save(tmp_path / "stack.npy", np.ones((4, 3, 3)))
    np.save(tmp_path / "object.npy", np.array([{"a": 1}]), allow_pickle=True)
    savemat(tmp_path / "two.mat", {"k1": np.ones((3, 3)), "k2": np.ones((5, 5))})
    for file, words in (
        ("stack.npy", "4×3×3, not two-dimensional"),
        ("object.npy", "Python objects"),
        ("two.mat", r"it holds k1 \(3×3\), k2 \(5×5\)"),
    ):
        with pytest.raises(ValueError, match=f"The kernel file .*{file} cannot be read .*{words}"):
            KernelFile(str(tmp_path / file))


def test_tensors_and_arrays_are_kernels():
    values = torch.tensor([[0, 1, 0], [0, 2, 0], [0, 1, 0]])
    x = torch.randn(1, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    expected = MotionBlur(FixedKernel(values))(x)
    for kernel in (values, values.float() / 4, values.numpy()):
        torch.testing.assert_close(MotionBlur(kernel=kernel)(x), expected)
    with pytest.raises(ValueError, match=r"is 3×4: .*zeros to 5×5"):
        MotionBlur(torch.ones(3, 4))
    with pytest.raises(TypeError, match=r"got str 'kernel\.png'"):
        MotionBlur("kernel.png")


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
