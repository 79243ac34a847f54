import pytest
import torch

from cclight.operators.base import LinearOperator, SpectralOperator


class Shift(LinearOperator):
    """Half of the image plus half of its neighbour, from forward alone."""

    def forward(self, x):
        return (x + x.roll(1, -1)) / 2


class EveryThird(LinearOperator):
    def image_shape(self, measurement_shape):
        return 1, 1, measurement_shape[0] * 3

    def forward(self, x):
        return x.flatten(1)[:, ::3]


class Axes(SpectralOperator):
    """A diagonal operator with no more than a spectral one must give."""

    def __init__(self):
        super().__init__()
        self.scale = torch.tensor([2.0, 0.5, 0.0], dtype=torch.float64).view(3, 1, 1)

    def forward(self, x):
        return x * self.scale.to(x)

    def spectral(self, x):
        return x.flip(-1)

    def from_spectral(self, z):
        return z.flip(-1)

    def singular_values(self, image_shape):
        return self.scale


def draw(*shape, seed=0, dtype=torch.float64):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def test_forward_alone_is_enough(dense):
    operator = Shift()
    operator.tolerance = 1e-12
    plain = dense(operator, (1, 2, 7))
    x, y = draw(3, 1, 2, 7), draw(3, 1, 2, 7, seed=1)
    torch.testing.assert_close(operator.adjoint(y).flatten(1), y.flatten(1) @ plain)
    torch.testing.assert_close(operator.pinv(y).flatten(1), y.flatten(1) @ torch.linalg.pinv(plain).T, atol=1e-8, rtol=1e-8)
    torch.testing.assert_close(operator.project(x), x, atol=1e-8, rtol=1e-8)


@pytest.mark.parametrize("context", [torch.no_grad, torch.inference_mode, torch.enable_grad])
def test_works_whatever_the_gradient_mode(context):
    with context():
        y = draw(2, 4)
        back = EveryThird().pinv(y)
    assert back.shape == (2, 1, 1, 12)
    assert not back.requires_grad
    torch.testing.assert_close(back.flatten(1)[:, ::3], y)


def test_the_adjoint_is_differentiable():
    y = draw(2, 4).requires_grad_()
    w = draw(2, 1, 1, 12, seed=1)
    (gradient,) = torch.autograd.grad((EveryThird().adjoint(y) * w).sum(), y)
    torch.testing.assert_close(gradient, EveryThird()(w))


def test_complex_measurements():
    class Fourier(LinearOperator):
        def forward(self, x):
            return torch.fft.fft2(x, norm="ortho")[..., ::2]

        def image_shape(self, measurement_shape):
            return *measurement_shape[:-1], 2 * measurement_shape[-1]

    operator = Fourier()
    operator.tolerance = 1e-10
    x = draw(2, 1, 4, 8)
    p = operator.project(x)
    assert p.dtype == torch.float64
    torch.testing.assert_close(operator(p), operator(x))
    torch.testing.assert_close(operator.project(p), p)
    y = torch.complex(draw(2, 1, 4, 4), draw(2, 1, 4, 4, seed=1))
    torch.testing.assert_close((operator(x).conj() * y).sum().real, (x * operator.adjoint(y)).sum())


def test_says_so_when_it_does_not_converge():
    operator = Shift()
    operator.max_iterations = 1
    with pytest.warns(UserWarning, match=r"Shift: conjugate gradients stopped after 1 iterations .* raise max_iterations"):
        operator.pinv(draw(1, 1, 2, 7))


def test_says_so_when_it_cannot_know_the_images_shape():
    class Halves(Shift):
        def forward(self, x):
            return x[..., ::2]

    with pytest.raises(
        ValueError, match=r"Halves turns images \(1, 1, 2, 4\) into \(1, 1, 2, 2\).* give it a method image_shape"
    ):
        Halves().pinv(draw(1, 1, 2, 4))


def test_a_spectral_operator_has_its_pseudoinverse_and_projector_from_its_spectrum():
    x, y = draw(2, 3, 4, 5), draw(2, 3, 4, 5, seed=1)
    operator = Axes()
    torch.testing.assert_close(operator.pinv(y), y * torch.tensor([0.5, 2.0, 0.0], dtype=torch.float64).view(3, 1, 1))
    torch.testing.assert_close(operator.project(x), x * torch.tensor([1.0, 1.0, 0.0], dtype=torch.float64).view(3, 1, 1))
