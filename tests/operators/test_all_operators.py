"""Identities that every operator of a kind must meet, over shapes and dtypes."""

import copy
import pickle

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from cclight.operators.base import LinearOperator, Operator, SpectralOperator
from cclight.operators.circular import CircularBlur
from cclight.operators.compose import Compose, LinearCompose
from cclight.operators.iterative import MotionBlur
from cclight.operators.jpeg import JPEG, quantization_tables
from cclight.operators.jpeg_levels import JPEGLevels
from cclight.operators.kernels import FixedKernel
from cclight.operators.masks import Box, FreeForm, Inpainting, RandomPixels
from cclight.operators.nonlinear import HDR, NonlinearBlur, PhaseRetrieval, Quantization
from cclight.operators.pixelwise import AveragePooling, Colorization, Denoising
from cclight.operators.separable import BicubicDownsampling, GaussianBlur, UniformBlur
from cclight.operators.tomography import Tomography

SPECTRAL: dict[str, SpectralOperator] = {
    "bicubic2": BicubicDownsampling(2),
    "bicubic4": BicubicDownsampling(4),
    "bicubic8": BicubicDownsampling(8),
    "pooling2": AveragePooling(2),
    "pooling4": AveragePooling(4),
    "gaussian": GaussianBlur(),
    "gaussian1": GaussianBlur(1.0, 9),
    "uniform": UniformBlur(),
    "uniform_even": UniformBlur(4),
    "box": Inpainting(Box(5)),
    "random": Inpainting(RandomPixels(0.6)),
    "free_form": Inpainting(FreeForm()),
    "circular": CircularBlur(FixedKernel(torch.tensor([[0.0, 0.1, 0.0], [0.0, 0.7, 0.3], [0.0, 0.2, 0.1]]))),
    "colorization": Colorization(),
    "denoising": Denoising(),
    "jpeg_levels": JPEGLevels(quantization_tables(20), "4:2:0"),
    "jpeg_levels_422": JPEGLevels(quantization_tables(80), "4:2:2"),
}
# Well-conditioned, so that conjugate gradients reach the tolerance of the identities.
ITERATIVE: dict[str, LinearOperator] = {
    "motion": MotionBlur(
        FixedKernel(torch.tensor([[0.0, 0.1, 0.0], [0.0, 1.0, 0.2], [0.0, 0.0, 0.1]])), tolerance=1e-11, max_iterations=50
    ),
    "compose": LinearCompose([GaussianBlur(0.6, 5), AveragePooling(2)], tolerance=1e-11, max_iterations=50),
}
LINEAR: dict[str, LinearOperator] = {**SPECTRAL, **ITERATIVE}
NONLINEAR: dict[str, Operator] = {
    "jpeg": JPEG(20),
    "quantization": Quantization(3),
    "hdr": HDR(),
    "phase_retrieval": PhaseRetrieval(),
    "nonlinear_blur": NonlinearBlur(torch.nn.Tanh()),
    "compose_nonlinear": Compose([AveragePooling(2), HDR()]),
}
ALL: dict[str, Operator] = {**LINEAR, **NONLINEAR}

cases = given(
    height=st.sampled_from([8, 16, 24]),
    width=st.sampled_from([8, 16, 40]),
    batch=st.integers(1, 3),
    dtype=st.sampled_from([torch.float32, torch.float64]),
    seed=st.integers(0, 2**31),
)
tolerance = {torch.float32: 1e-4, torch.float64: 1e-9}


def draw(shape, dtype, seed, device):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(device, dtype)


def assert_near(a, b, dtype):
    assert a.dtype == b.dtype == dtype
    assert a.device == b.device
    assert float((a - b).norm()) <= tolerance[dtype] * max(1.0, float(b.norm()))


@pytest.mark.parametrize("name", LINEAR)
@settings(max_examples=8, deadline=None)
@cases
def test_the_adjoint_passes_the_dot_product_test(name, height, width, batch, dtype, seed, device):
    operator = LINEAR[name]
    x = draw((batch, 3, height, width), dtype, seed, device)
    hx = operator(x)
    y = draw(hx.shape, dtype, seed + 1, device)
    left, right = (hx * y).sum(), (x * operator.adjoint(y)).sum()
    assert abs(float(left - right)) <= tolerance[dtype] * float(x.norm() * y.norm())


@pytest.mark.parametrize("name", LINEAR)
@settings(max_examples=8, deadline=None)
@cases
@pytest.mark.filterwarnings("ignore:.*conjugate gradients stopped")
def test_p_is_the_orthogonal_projector_of_the_pseudoinverse(name, height, width, batch, dtype, seed, device):
    operator = LINEAR[name]
    x = draw((batch, 3, height, width), dtype, seed, device)
    z = draw(x.shape, dtype, seed + 1, device)
    y = draw(operator(x).shape, dtype, seed + 2, device)
    px = operator.project(x)
    assert px.shape == x.shape
    assert_near(operator.project(px), px, dtype)  # P² = P
    assert abs(float((px * z).sum() - (x * operator.project(z)).sum())) <= tolerance[dtype] * float(
        x.norm() * z.norm()
    )  # Pᵀ = P
    assert_near(operator.pinv(operator(x)), px, dtype)  # H⁺ H = P
    assert_near(operator(px), operator(x), dtype)  # H H⁺ H = H
    inverse = operator.pinv(y)
    assert_near(operator.pinv(operator(inverse)), inverse, dtype)  # H⁺ H H⁺ = H⁺
    back = operator(inverse)  # H H⁺ is symmetric
    other = draw(y.shape, dtype, seed + 3, device)
    both = float((back * other).sum()), float((y * operator(operator.pinv(other))).sum())
    assert abs(both[0] - both[1]) <= tolerance[dtype] * float(y.norm() * other.norm())


@pytest.mark.parametrize("name", LINEAR)
@pytest.mark.parametrize("damping", [1e-3, 0.16])
def test_the_damped_inverse_is_that_of_the_dense_matrix(name, damping, device):
    operator = LINEAR[name]
    eye = torch.eye(192, dtype=torch.float64, device=device).view(192, 3, 8, 8)
    h = operator(eye).flatten(1).T
    y = draw((2, *operator(eye[:1]).shape[1:]), torch.float64, 0, device)
    expected = torch.linalg.solve(h.T @ h + damping * eye.flatten(1), h.T @ y.flatten(1).T).T
    assert_near(operator.damped_inverse(y, damping).flatten(1), expected, torch.float64)


@pytest.mark.parametrize("name", LINEAR)
def test_the_damped_inverse_lifts_no_rounding_error_where_there_is_hardly_any_noise(name, device):
    """16 bits a channel are noise of 9e-6: rounding in the null space, divided by its square, was an image of 24,000."""
    operator = LINEAR[name]
    y = operator(draw((1, 3, 8, 8), torch.float32, 0, device))
    assert (operator.damped_inverse(y, 4e-12) - operator.pinv(y)).abs().max() < 0.05


@pytest.mark.parametrize("name", SPECTRAL)
@settings(max_examples=8, deadline=None)
@cases
def test_the_spectrum_is_the_singular_value_decomposition(name, height, width, batch, dtype, seed, device):
    operator = SPECTRAL[name]
    x = draw((batch, 3, height, width), dtype, seed, device)
    z = operator.spectral(x)
    assert z.shape == x.shape
    assert_near(operator.from_spectral(z), x, dtype)  # V Vᵀ = I
    assert_near(z.norm(), x.norm(), dtype)  # and Vᵀ keeps lengths
    assert_near(operator.spectral(operator.from_spectral(x)), x, dtype)  # Vᵀ V = I
    s = operator.singular_values(x.shape[1:])
    assert s.dtype == torch.float64
    assert s.dim() == 3
    assert (s >= 0).all()
    s = s.to(z)
    assert_near(operator.from_spectral(s**2 * z), operator.adjoint(operator(x)), dtype)  # Hᵀ H = V S² Vᵀ
    assert_near(operator.from_spectral((s > 0) * z), operator.project(x), dtype)  # P = V [s > 0] Vᵀ


@pytest.mark.parametrize("name", ALL)
def test_each_image_is_taken_by_itself_and_comes_back_in_shape(name, device):
    operator = ALL[name]
    x = draw((3, 3, 16, 24), torch.float32, 0, device).clamp(-1, 1)
    operator.check_images((3, 16, 24))
    y = operator(x)
    assert operator.pinv(y).shape == operator.project(x).shape == x.shape
    assert_near(operator(x[1:2]), y[1:2], torch.float32)
    assert_near(operator.project(x[1:2]), operator.project(x)[1:2], torch.float32)
    assert_near(operator.pinv(y), operator.project(x), torch.float32)


ROWS_AND_COLUMNS = {name: one for name, one in ALL.items() if one.least_sides}
FLAT = ("colorization", "jpeg", "jpeg_levels", "jpeg_levels_422")  # of pictures alone


@pytest.mark.parametrize("name", [*ROWS_AND_COLUMNS, "tomography"])
def test_what_looks_at_rows_and_columns_takes_volumes_slice_by_slice_and_no_signals(name, device):
    operator = ROWS_AND_COLUMNS.get(name) or Tomography(8, 6, tolerance=1e-12)
    x = draw((2, 3, 4, 8, 8), torch.float64, 0, device).clamp(-1, 1)
    operator.check_images((3, 4, 8, 8))
    slices = [operator(x[:, :, place]) for place in range(4)]
    y = operator(x)
    assert_near(y, torch.stack(slices, 2), torch.float64)
    assert_near(operator.pinv(y), torch.stack([operator.pinv(one) for one in slices], 2), torch.float64)
    if isinstance(operator, LinearOperator):
        assert tuple(operator.image_shape(tuple(y.shape[1:]))) == (3, 4, 8, 8)
        assert_near(operator.adjoint(y), torch.stack([operator.adjoint(one) for one in slices], 2), torch.float64)
    if isinstance(operator, SpectralOperator):
        s = operator.singular_values((3, 4, 8, 8)).to(x)
        assert_near(operator.from_spectral(s**2 * operator.spectral(x)), operator.adjoint(y), torch.float64)
    with pytest.raises(ValueError, match=rf"{type(operator).__name__} looks at rows and columns.* shape \(3, 16\)"):
        operator.check_images((3, 16))


@pytest.mark.parametrize("name", FLAT)
def test_operators_of_pictures_refuse_volumes(name):
    with pytest.raises(ValueError, match=r"got .*\(3, 4, 8, 8\)"):
        ALL[name].check_images((3, 4, 8, 8))


@pytest.mark.parametrize("name", ALL)
def test_its_gradient_reaches_the_image(name, device):
    x = draw((1, 3, 16, 16), torch.float32, 0, device).clamp(-0.3, 0.3).requires_grad_()
    y = ALL[name](x)
    (gradient,) = torch.autograd.grad(y.square().sum(), x)
    assert torch.isfinite(gradient).all()
    assert gradient.abs().sum() > 0


@pytest.mark.parametrize("name", ALL)
def test_copies_and_pickles_compute_the_same(name, device):
    operator = ALL[name]
    x = draw((1, 3, 16, 24), torch.float32, 0, device)
    y = operator(x)
    assert torch.equal(copy.deepcopy(operator)(x), y)
    assert torch.equal(pickle.loads(pickle.dumps(operator))(x), y)
    assert not operator.state_dict()
