import numpy as np
import pytest
import torch
from scipy import ndimage

from cclight.operators.circular import CircularBlur
from cclight.operators.iterative import MotionBlur
from cclight.operators.kernels import FixedKernel, LineKernel

# An even spectrum well above the bound under which singular values go, and not symmetric.
KERNEL = torch.tensor([[0.0, 0.1, 0.0], [0.0, 0.7, 0.3], [0.0, 0.2, 0.1]], dtype=torch.float64)


def test_it_is_the_convolution_around_the_border():
    x = torch.randn(1, 2, 9, 14, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    kernel = (KERNEL / KERNEL.sum()).numpy()
    expected = np.stack([ndimage.convolve(channel.numpy(), kernel, mode="wrap") for channel in x[0]])
    torch.testing.assert_close(CircularBlur(FixedKernel(KERNEL))(x)[0], torch.from_numpy(expected))


def test_far_from_the_border_it_is_motion_blur():
    """As far as singular values under 0.03 do not matter."""
    x = torch.randn(1, 3, 40, 40, generator=torch.Generator().manual_seed(0))
    a, b = CircularBlur(FixedKernel(KERNEL))(x), MotionBlur(FixedKernel(KERNEL))(x)
    torch.testing.assert_close(a[..., 2:-2, 2:-2], b[..., 2:-2, 2:-2], atol=1e-5, rtol=0)


@pytest.mark.parametrize("sides", [(8, 8), (9, 12), (5, 31)])
def test_a_kernel_larger_than_the_image_wraps(sides):
    operator = CircularBlur(LineKernel(15, 30))
    x = torch.ones(1, 1, *sides)
    torch.testing.assert_close(operator(x), x)  # it adds up to one, however often it goes round
    s = operator.singular_values((1, *sides))
    assert ((s == 0) | (s >= 0.03)).all()
    assert s.max() <= 1 + 1e-9
