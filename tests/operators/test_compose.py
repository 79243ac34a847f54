import copy
import pickle

import pytest
import torch

from cclight.operators.base import LinearOperator, Operator
from cclight.operators.compose import Compose, LinearCompose
from cclight.operators.iterative import RandomProjection
from cclight.operators.jpeg import JPEG
from cclight.operators.masks import Inpainting
from cclight.operators.nonlinear import HDR
from cclight.operators.own import OwnMask
from cclight.operators.pixelwise import AveragePooling, Colorization
from cclight.operators.separable import BicubicDownsampling, GaussianBlur


def test_is_linear_where_all_its_operators_are():
    linear = Compose([GaussianBlur(1.0, 9), BicubicDownsampling(2)])
    assert type(linear) is LinearCompose
    assert isinstance(linear, Compose)
    assert isinstance(linear, LinearOperator)
    assert type(Compose([BicubicDownsampling(2), JPEG()])) is Compose
    with pytest.raises(TypeError, match="JPEG is none: use Compose"):
        LinearCompose([BicubicDownsampling(2), JPEG()])
    for kind in (Compose, LinearCompose):
        with pytest.raises(ValueError, match="at least one operator"):
            kind([])


@pytest.mark.parametrize(
    ("operators", "shape"),
    [
        ([GaussianBlur(1.0, 9), BicubicDownsampling(2)], (1, 8, 12)),
        ([AveragePooling(2), Colorization()], (3, 6, 4)),
        ([BicubicDownsampling(2), RandomProjection(7, (1, 3, 4))], (1, 6, 8)),
    ],
    ids=["blur and shrink", "shrink and grey", "shrink and project"],
)
def test_the_linear_chain_is_the_product_of_the_matrices(operators, shape, dense):
    operator = LinearCompose(operators, tolerance=1e-11, max_iterations=1000)
    first = dense(operators[0], shape)
    middle = operators[0](torch.zeros(1, *shape)).shape[1:]
    plain = dense(operators[1], tuple(middle)) @ first
    torch.testing.assert_close(dense(operator, shape), plain)
    y = torch.randn(operator(torch.zeros(2, *shape)).shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    assert operator.image_shape(tuple(y.shape[1:])) == shape
    torch.testing.assert_close(operator.adjoint(y).flatten(1), y.flatten(1) @ plain)
    inverse = torch.linalg.pinv(plain, rtol=1e-9)
    torch.testing.assert_close(operator.pinv(y).flatten(1), y.flatten(1) @ inverse.T, atol=1e-6, rtol=1e-6)


def test_a_nonlinear_chain_decodes_backward():
    x = torch.rand(1, 3, 16, 16, generator=torch.Generator().manual_seed(0)) * 2 - 1
    pooling, hdr = AveragePooling(2), HDR()
    operator = Compose([pooling, hdr])
    assert torch.equal(operator(x), hdr(pooling(x)))
    assert torch.equal(operator.project(x), pooling.pinv(hdr.pinv(hdr(pooling(x)))))


def test_each_operator_sees_what_the_one_before_it_measured():
    with pytest.raises(ValueError, match="Colorization takes images of 3 channels, got 1"):
        Compose([Colorization(), Colorization()]).check_images((3, 8, 8))
    with pytest.raises(ValueError, match="factor 4, got 2×2"):
        Compose([AveragePooling(4), BicubicDownsampling(4)]).check_images((3, 8, 8))


@pytest.mark.parametrize("last", [AveragePooling(2), HDR()], ids=["linear", "nonlinear"])
def test_each_image_has_the_chain_of_its_own_operators(last):
    chain = Compose([Inpainting(OwnMask("mask")), last])
    assert chain.per_image
    assert not Compose([last]).per_image
    x, mask = torch.randn(1, 3, 4, 4, generator=torch.Generator().manual_seed(0)), torch.zeros(4, 4)
    mask[:2] = 1
    own = chain.of("a", {"mask": mask})
    assert type(own) is type(chain)
    assert not own.per_image
    assert chain.per_image
    torch.testing.assert_close(own(x), last(x * mask))
    with pytest.raises(ValueError, match="a has no array mask"):
        chain.of("a", {})


def test_copies_and_pickles():
    x = torch.rand(1, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    for operator in (Compose([AveragePooling(2), Colorization()]), Compose([AveragePooling(2), HDR()])):
        for twin in (copy.deepcopy(operator), pickle.loads(pickle.dumps(operator))):
            assert type(twin) is type(operator)
            assert torch.equal(twin(x), operator(x))


class Weighted(Operator):
    """A network of a kind: its weights lie on a device."""

    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.ones(3, 1, 1))

    def forward(self, x):
        return x * self.weight

    def pinv(self, y):
        return y / self.weight


def test_images_are_checked_on_the_device_of_the_weights():
    """There may be no GPU here: torch's meta device refuses the CPU's tensors as one would."""
    operator = Compose([Weighted(), AveragePooling(4), BicubicDownsampling(2)]).to("meta")
    operator.check_images((3, 16, 16))
    with pytest.raises(ValueError, match="divisible by its factor 2, got 3×3"):
        operator.check_images((3, 12, 12))
