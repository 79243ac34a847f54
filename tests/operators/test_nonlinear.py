import pytest
import torch
from torch import nn

from cclight.operators.nonlinear import HDR, NonlinearBlur, PhaseRetrieval, Quantization


@pytest.mark.parametrize(
    ("name", "operator"), [("op__quant2", Quantization(2)), ("op__quant4", Quantization(4)), ("op__hdr", HDR())]
)
def test_agrees_with_the_papers_code(name, operator, load, distance):
    numbers = load(name)
    y = operator(numbers["x"])
    assert distance(y, numbers["Hx"]) < 1e-6
    assert distance(operator.pinv(y), numbers["pinv_Hx"]) < 1e-6
    assert distance(operator.project(numbers["x"]), numbers["pinv_Hx"]) < 1e-6


def test_phase_retrieval_agrees_with_the_papers_code(load, distance):
    numbers = load("op__phase_retrieval")
    x = numbers["x"][:1]
    # The paper's code pads by 64 whatever the image: at 16 pixels that is an oversampling of 32. Only channel 0 of H x is kept.
    operator = PhaseRetrieval(oversampling=32)
    y = operator(x)
    assert distance(y[:, :1], numbers["Hx"]) < 1e-5
    assert distance(operator.pinv(y), numbers["pinv_Hx"]) < 1e-5


@pytest.mark.parametrize("oversampling", [0.0, 0.7, 1.0, 2.0, 3.3])
def test_phase_retrieval_finds_its_way_back_to_any_size(oversampling):
    operator = PhaseRetrieval(oversampling)
    for height, width in ((8, 13), (17, 30), (31, 64)):
        x = torch.randn(2, 1, height, width, generator=torch.Generator().manual_seed(0))
        y = operator(x)
        assert operator.pinv(y).shape == x.shape
        torch.testing.assert_close(y.norm(), x.norm())  # the transform is orthonormal
    if oversampling == 2.0:
        assert operator(torch.zeros(1, 1, 256, 256)).shape[-1] == 256 + 2 * 64
        with pytest.raises(ValueError, match="No image gives a side of 11"):
            operator.pinv(torch.zeros(1, 1, 11, 11))


def test_phase_retrieval_of_a_centred_symmetric_image_is_exact():
    # A point's transform has no phase but that of its place, which h† puts in the middle.
    x = torch.zeros(1, 1, 16, 16)
    x[..., 8, 8] = 1
    torch.testing.assert_close(PhaseRetrieval(2.0).project(x), x, atol=1e-6, rtol=0)


def test_quantization_passes_the_gradient_through():
    x = torch.linspace(-1.5, 1.5, 15).view(1, 1, 3, 5).requires_grad_()
    y = Quantization(1)(x)
    assert sorted(set(y.detach().flatten().tolist())) == [-1, 1]
    (gradient,) = torch.autograd.grad(y.sum(), x)
    assert torch.equal(gradient, (x.abs() <= 1).float())


def test_nonlinear_blur_runs_the_users_module_frozen():
    network = nn.Sequential(nn.Conv2d(3, 3, 3, padding=1), nn.Tanh())
    operator = NonlinearBlur(network)
    x = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(0), requires_grad=True)
    y = operator(x)
    assert torch.equal(y, network(x))
    assert torch.equal(operator.pinv(y), y)
    assert not any(weight.requires_grad for weight in operator.parameters())
    assert torch.autograd.grad(y.sum(), x)[0].abs().sum() > 0
    with pytest.raises(ValueError, match=r"MaxPool2d turned \(2, 3, 8, 8\) into \(2, 3, 4, 4\)"):
        NonlinearBlur(nn.MaxPool2d(2))(x)


def test_refuses_settings_out_of_range():
    with pytest.raises(ValueError, match="1 to 16 bits, got 0"):
        Quantization(0)
    with pytest.raises(ValueError, match="gain > 1"):
        HDR(1.0)
    with pytest.raises(ValueError, match="oversampling >= 0"):
        PhaseRetrieval(-1)
