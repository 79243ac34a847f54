import pytest
import torch

from cclight.operators.pixelwise import AveragePooling
from cclight.operators.separable import (
    SMALLEST_SINGULAR_VALUE,
    BicubicDownsampling,
    GaussianBlur,
    SeparableOperator,
    UniformBlur,
)


@pytest.mark.parametrize(
    ("name", "operator"),
    [
        ("op__bicubic4", BicubicDownsampling(4)),
        ("op_flow__sr4", BicubicDownsampling(4)),
        ("op__deblur_gauss_fix", GaussianBlur(3.0, 61)),
        # The paper's code cuts its windows of 61 and 9 to 60 and 8 taps; only the second cut can be seen.
        ("op__deblur_gauss_fix", GaussianBlur(3.0, 60)),
        ("op__deblur_gauss1_fix", GaussianBlur(1.0, 8)),
    ],
)
def test_agrees_with_the_papers_code(name, operator, load, distance):
    numbers = load(name)
    x = numbers["x"]
    y = operator(x)
    assert distance(y, numbers["Hx"]) < 1e-5
    assert distance(operator.pinv(y), numbers["pinv_Hx"]) < 1e-5
    assert distance(operator.project(x), numbers["pinv_Hx"]) < 1e-5
    if "Ht_Hx" in numbers:
        assert distance(operator.adjoint(y), numbers["Ht_Hx"]) < 1e-5
        theirs = numbers["singulars"].sort(descending=True).values
        ours = operator.singular_values((3, 16, 16)).expand(3, 16, 16).flatten().sort(descending=True).values
        assert distance(ours[: len(theirs)], theirs) < 1e-5
        assert not ours[len(theirs) :].any()


def test_pseudoinverse_of_any_measurement_agrees_with_the_papers_code(load, distance):
    # Only where no singular value is zero: the paper's code passes the others through.
    numbers = load("op__bicubic4")
    y = numbers["y_random"].view(-1, 3, 4, 4)
    assert distance(BicubicDownsampling(4).pinv(y), numbers["pinv_y_random"]) < 1e-5


@pytest.mark.parametrize(
    ("operator", "shape"),
    [
        (BicubicDownsampling(2), (1, 8, 12)),
        (BicubicDownsampling(4), (2, 12, 8)),
        (BicubicDownsampling(8), (1, 8, 16)),
        (BicubicDownsampling(3), (1, 9, 6)),
        (GaussianBlur(1.0, 9), (1, 10, 7)),
        (GaussianBlur(3.0, 61), (1, 12, 16)),
        (UniformBlur(3), (2, 9, 8)),
        (UniformBlur(4), (1, 6, 11)),
        (AveragePooling(4), (1, 8, 12)),
    ],
    ids=str,
)
def test_agrees_with_its_dense_matrix(operator, shape, dense):
    matrix = dense(operator, shape)
    plain = torch.kron(*(_thresholded(operator.matrix(side)) for side in shape[1:]))
    plain = torch.block_diag(*[plain] * shape[0])
    torch.testing.assert_close(matrix, plain)

    inverse = torch.linalg.pinv(plain, atol=1e-6)
    x = torch.randn(2, *shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    y = torch.randn(operator(x).shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    torch.testing.assert_close(operator.adjoint(y).flatten(1), y.flatten(1) @ plain)
    torch.testing.assert_close(operator.pinv(y).flatten(1), y.flatten(1) @ inverse.T)
    torch.testing.assert_close(operator.project(x).flatten(1), x.flatten(1) @ (inverse @ plain).T)

    ours = operator.singular_values(shape).expand(shape).flatten().sort(descending=True).values
    theirs = torch.linalg.svdvals(plain)
    torch.testing.assert_close(ours[: len(theirs)], theirs, atol=1e-12, rtol=1e-7)


def _thresholded(matrix):
    u, s, vh = torch.linalg.svd(matrix, full_matrices=False)
    return u @ torch.diag(torch.where(s < SMALLEST_SINGULAR_VALUE, 0.0, s)) @ vh


def test_flat_images_stay_flat_under_downsampling():
    flat = torch.full((1, 3, 16, 24), 0.7)
    for factor in (2, 4, 8):
        torch.testing.assert_close(BicubicDownsampling(factor)(flat), torch.full((1, 3, 16 // factor, 24 // factor), 0.7))


def test_odd_windows_are_centred():
    point = torch.zeros(1, 1, 21, 21)
    point[..., 10, 10] = 1
    wide = UniformBlur(9).matrix(21)
    assert wide[10].nonzero().flatten().tolist() == list(range(6, 15))
    blurred = GaussianBlur(1.0, 9)(point)
    torch.testing.assert_close(blurred, blurred.flip(-1))
    torch.testing.assert_close(blurred, blurred.flip(-2))


def test_works_inside_and_after_inference_mode():
    operator = BicubicDownsampling(4)
    with torch.inference_mode():
        operator(torch.ones(1, 3, 16, 16))
    x = torch.ones(1, 3, 16, 16, requires_grad=True)
    operator(x).sum().backward()
    assert x.grad is not None


def test_half_precision_gives_half_precision():
    for dtype in (torch.float16, torch.bfloat16):
        assert BicubicDownsampling(4)(torch.ones(1, 3, 16, 16, dtype=dtype)).dtype == dtype


def test_a_subclass_needs_only_its_matrix():
    class EverySecond(SeparableOperator):
        def matrix(self, length):
            return torch.eye(length, dtype=torch.float64)[::2]

    x = torch.arange(16.0).view(1, 1, 4, 4)
    operator = EverySecond(2)
    assert torch.equal(operator(x), x[..., ::2, ::2])
    assert torch.allclose(operator.pinv(operator(x))[..., ::2, ::2], x[..., ::2, ::2])


def test_refuses_what_it_cannot_take():
    with pytest.raises(ValueError, match="divisible by its factor 4, got 16×18"):
        BicubicDownsampling(4).check_images((3, 16, 18))
    with pytest.raises(ValueError, match="divisible by its factor 4"):
        BicubicDownsampling(4)(torch.zeros(1, 3, 18, 16))
    with pytest.raises(ValueError, match="factor >= 2, got 1"):
        BicubicDownsampling(1)
    with pytest.raises(ValueError, match="sigma=0"):
        GaussianBlur(sigma=0.0)
    with pytest.raises(ValueError, match="finite standard deviation > 0, got sigma=inf"):
        GaussianBlur(sigma=float("inf"))
    with pytest.raises(ValueError, match="width=0"):
        UniformBlur(width=0)
