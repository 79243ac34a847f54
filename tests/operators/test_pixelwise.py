import pytest
import torch

from cclight.operators.pixelwise import GREY_WEIGHTS, AveragePooling, Colorization, Denoising


@pytest.mark.parametrize(
    ("name", "operator"), [("op__sr4", AveragePooling(4)), ("op__color", Colorization()), ("op__deno", Denoising())]
)
def test_agrees_with_the_papers_code(name, operator, load, distance):
    numbers = load(name)
    x = numbers["x"]
    y = operator(x)
    assert distance(y, numbers["Hx"]) < 1e-5
    assert distance(operator.pinv(y), numbers["pinv_Hx"]) < 1e-5
    assert distance(operator.project(x), numbers["pinv_Hx"]) < 1e-5
    assert distance(operator.adjoint(y), numbers["Ht_Hx"]) < 1e-5
    assert distance(operator.pinv(numbers["y_random"].view(y.shape)), numbers["pinv_y_random"]) < 1e-5
    ours = operator.singular_values((3, 16, 16)).expand(3, 16, 16).flatten().sort(descending=True).values
    theirs = numbers["singulars"].sort(descending=True).values
    assert distance(ours[: len(theirs)], theirs) < 1e-5
    assert not ours[len(theirs) :].any()


def test_average_pooling_is_the_block_mean():
    x = torch.randn(2, 3, 8, 12, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(AveragePooling(4)(x), torch.nn.functional.avg_pool2d(x, 4))
    torch.testing.assert_close(
        AveragePooling(4).project(x), torch.nn.functional.avg_pool2d(x, 4).repeat_interleave(4, -1).repeat_interleave(4, -2)
    )


def test_colorization_agrees_with_its_dense_matrix(dense):
    plain = dense(Colorization(), (3, 2, 3))
    assert plain.shape == (6, 18)
    torch.testing.assert_close(plain[0].nonzero().flatten(), torch.tensor([0, 6, 12]))
    torch.testing.assert_close(plain[0, ::6], torch.tensor(GREY_WEIGHTS, dtype=torch.float64))
    y = torch.randn(2, 1, 2, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    torch.testing.assert_close(Colorization().pinv(y).flatten(1), y.flatten(1) @ torch.linalg.pinv(plain).T)


def test_colorization_refuses_grey_images():
    with pytest.raises(ValueError, match="3 channels, got 1"):
        Colorization().check_images((1, 8, 8))
    with pytest.raises(ValueError, match="3 channels, got 1"):
        Colorization()(torch.zeros(2, 1, 8, 8))
