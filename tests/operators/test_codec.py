import sys
from pathlib import Path

import pytest
import torch

from cclight.operators.codec import CodecCompression


@pytest.fixture(scope="module")
def codec(tmp_path_factory):
    zoo = pytest.importorskip("compressai.zoo", reason="needs compressai: pip install 'cclight[codec]'")
    weights = tmp_path_factory.mktemp("codec") / "weights.pt"
    torch.save(zoo.image_models["bmshj2018-factorized"](quality=1, pretrained=False).state_dict(), weights)
    return CodecCompression("bmshj2018-factorized", 1, str(weights))


def test_decodes_images_of_any_size(codec):
    x = torch.rand(2, 3, 40, 70, generator=torch.Generator().manual_seed(0)) * 2 - 1
    y = codec(x)
    assert y.shape == x.shape
    padded = torch.nn.functional.pad((x + 1) / 2, (0, 58, 0, 24), mode="replicate")
    with torch.no_grad():
        decoded = codec.codec(padded)["x_hat"][..., :40, :70].clamp(0, 1) * 2 - 1
    torch.testing.assert_close(y, decoded)
    assert torch.equal(codec.pinv(y), y)


def test_its_gradient_is_the_identitys(codec):
    x = (torch.rand(1, 3, 16, 16, generator=torch.Generator().manual_seed(0)) * 2 - 1).requires_grad_()
    (gradient,) = torch.autograd.grad(codec(x).sum(), x)
    assert torch.equal(gradient, torch.ones_like(x))
    assert not any(weight.requires_grad for weight in codec.parameters())


def test_names_what_it_lacks(codec):
    with pytest.raises(ValueError, match="knows no image codec 'nope': choose one of"):
        CodecCompression("nope")
    with pytest.raises(FileNotFoundError, match=r"weights of bmshj2018-factorized at quality 1 cannot be had .*none.pt"):
        CodecCompression(weights="none.pt")
    with pytest.raises(ValueError, match="has no quality 9: choose one of 1, 2, 3"):
        CodecCompression(quality=9)
    with pytest.raises(ValueError, match="3 channels, got 1"):
        codec.check_images((1, 64, 64))


class Malice:
    def __init__(self, witness):
        self.witness = witness

    def __reduce__(self):
        return Path.touch, (self.witness,)


@pytest.mark.parametrize("given", [True, False])
def test_a_pickle_in_the_weights_place_does_not_run(codec, tmp_path, monkeypatch, given):
    witness, folder = tmp_path / "executed", tmp_path / "hub" / "checkpoints"
    folder.mkdir(parents=True)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    file = folder / "bmshj2018-factorized-prior-1-446d5c7f.pth.tar"
    torch.save(codec.codec.state_dict() | {"extra": Malice(witness)}, file)
    with pytest.raises(ValueError, match="was refused, nothing of it executed"):
        CodecCompression(weights=str(file) if given else None)
    assert not witness.exists()
    torch.save(codec.codec.state_dict(), file)
    x = torch.zeros(1, 3, 64, 64)
    assert torch.equal(CodecCompression(weights=str(file) if given else None)(x), codec(x))


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        ([1], "holds a list"),
        ({"g_a.0.weight": torch.zeros(1)}, "does not fit bmshj2018-factorized at quality 1"),
        (None, "holds values that are not finite in 1 of"),
    ],
)
def test_weights_that_do_not_fit_get_one_line(codec, tmp_path, content, complaint):
    state = codec.codec.state_dict()
    torch.save(state | {"g_a.0.bias": state["g_a.0.bias"] * torch.nan} if content is None else content, tmp_path / "weights.pt")
    with pytest.raises(ValueError, match=complaint) as error:
        CodecCompression(weights=str(tmp_path / "weights.pt"))
    assert "\n" not in str(error.value)


def test_names_the_remedy_without_compressai(monkeypatch):
    monkeypatch.setitem(sys.modules, "compressai.zoo", None)
    with pytest.raises(ImportError, match=r"pip install 'cclight\[codec\]'"):
        CodecCompression()
