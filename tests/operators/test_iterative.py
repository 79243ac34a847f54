import pytest
import torch

from cclight.operators.iterative import MotionBlur, RandomProjection
from cclight.operators.kernels import FixedKernel, LineKernel, ShakeKernel


@pytest.mark.parametrize(
    "kernel", [LineKernel(3, 0), ShakeKernel(2), ShakeKernel(9)], ids=["line", "shake", "wider than the image"]
)
def test_motion_blur_is_the_convolution_with_its_kernel(kernel, dense):
    operator = MotionBlur(kernel)
    x = torch.randn(2, 3, 7, 6, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    values = kernel()
    weights = values.flip(0, 1).expand(3, 1, *values.shape)  # conv2d does not flip, a convolution does
    expected = torch.nn.functional.conv2d(x, weights, padding=values.shape[0] // 2, groups=3)
    torch.testing.assert_close(operator(x), expected)
    torch.testing.assert_close(operator.adjoint(x).flatten(1), x.flatten(1) @ dense(operator, (3, 7, 6)))


def test_motion_blur_is_undone(dense):
    values = torch.tensor([[0.0, 0.2, 0.0], [0.0, 1.0, 0.3], [0.0, 0.0, 0.0]])
    operator = MotionBlur(FixedKernel(values), tolerance=1e-10)
    plain = dense(operator, (1, 8, 9))
    y = torch.randn(2, 1, 8, 9, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    torch.testing.assert_close(operator.pinv(y).flatten(1), y.flatten(1) @ torch.linalg.pinv(plain).T, atol=1e-7, rtol=1e-7)


def test_motion_blur_keeps_half_precision():
    x = torch.rand(1, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    for dtype in (torch.float16, torch.bfloat16):
        y = MotionBlur()(x.to(dtype))
        assert y.dtype == dtype
        torch.testing.assert_close(y.float(), MotionBlur()(x), atol=2e-2, rtol=0)


def test_random_projection_agrees_with_its_dense_matrix(dense):
    operator = RandomProjection(20, (3, 4, 5), seed=1)
    operator.tolerance = 1e-10
    plain = dense(operator, (3, 4, 5))
    assert plain.shape == (20, 60)
    assert float(plain.norm(dim=1).mean()) == pytest.approx(1, abs=0.1)
    y = torch.randn(2, 20, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    torch.testing.assert_close(operator.adjoint(y).flatten(1), y @ plain)
    torch.testing.assert_close(operator.pinv(y).flatten(1), y @ torch.linalg.pinv(plain).T, atol=1e-7, rtol=1e-7)
    assert not torch.equal(plain, dense(RandomProjection(20, (3, 4, 5), seed=2), (3, 4, 5)))


def test_random_projection_refuses_what_it_cannot_take():
    with pytest.raises(ValueError, match=r"made for images of 3×32×32, got 3×64×64: set its shape"):
        RandomProjection().check_images((3, 64, 64))
    with pytest.raises(ValueError, match="more than 134217728 entries"):
        RandomProjection(10_000, (3, 256, 256))
    with pytest.raises(ValueError, match="at least one measurement"):
        RandomProjection(0)
