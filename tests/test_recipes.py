"""The settings that the README shows, from Python."""

import pytest
import torch

import cclight
from cclight.errors import UsageError


@pytest.mark.parametrize("name", ["sr", "deblur", "inpaint", "colorize", "jpeg"])
def test_a_recipe_is_what_the_configuration_says(name):
    operator, prior, sampler, noise_std = cclight.recipe(name)
    assert isinstance(operator, cclight.Operator)
    assert isinstance(prior, cclight.SmallPrior)
    assert sampler.steps == 5
    assert noise_std >= 0


def test_those_of_scanners_see_grey_images():
    operator, prior, sampler, noise_std = cclight.recipe("mri")
    y = operator(torch.rand(1, 1, 32, 32, generator=torch.Generator().manual_seed(0)) * 2 - 1)
    assert sampler.sample(prior, operator, y, noise_std=noise_std).image.shape == (1, 1, 32, 32)
    operator, prior, *_ = cclight.recipe("ct")
    assert (operator.image_shape((1, 60, operator.detectors)), len(operator.angles), prior.channels) == ((1, 128, 128), 60, 1)


def test_it_restores_without_another_word():
    operator, prior, sampler, noise_std = cclight.recipe("sr")
    y = operator(torch.rand(1, 3, 32, 32, generator=torch.Generator().manual_seed(0)) * 2 - 1)
    restoration = sampler.sample(prior, operator, y, noise_std=noise_std)
    assert restoration.image.shape == (1, 3, 32, 32)
    assert restoration.nfe == 5


def test_what_is_no_recipe_is_told():
    with pytest.raises(UsageError, match="did you mean"):
        cclight.recipe("srr")
    with pytest.raises(ValueError, match="names no operator"):
        cclight.recipe("paper/nfe_5")


def test_classes_of_ones_own_and_those_that_there_are_not(tmp_path, monkeypatch):
    (tmp_path / "own_parts_of_mine.py").write_text("from cclight import AveragePooling\nclass Mine(AveragePooling): pass\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    file = tmp_path / "mine.yaml"
    text = "operator: {class_path: own_parts_of_mine.Mine, init_args: {factor: 2}}\n"
    text += "model: {prior: {class_path: SmallPrior}, sampler: {class_path: cclight.DDRM}}\n"
    file.write_text(text)
    operator, _, sampler, _ = cclight.recipe(str(file))
    assert (type(operator).__name__, operator.factor, type(sampler).__name__) == ("Mine", 2, "DDRM")
    for wrong, words in (
        (text.replace("cclight.DDRM", "DDRN"), "cclight has no DDRN: did you mean DDRM"),
        (text.replace("parts_of_mine", "parts"), "there is no own_parts.Mine"),
    ):
        file.write_text(wrong)
        with pytest.raises(ValueError, match=words):
            cclight.recipe(str(file))
    file.write_text(text + "noise_std: 0.1\nnoise_std: 0.2\n")
    with pytest.raises(UsageError, match="the key noise_std stands twice"):
        cclight.recipe(str(file))


@pytest.mark.slow
@pytest.mark.parametrize(("name", "gain"), [("mri", 8), ("ct", 8)])
@pytest.mark.filterwarnings("ignore:.*the guidance may still be off")
def test_those_of_scanners_restore_the_phantom_far_better_than_its_pseudoinverse(name, gain):
    operator, prior, sampler, noise_std = cclight.recipe(name)
    source = cclight.SamplePhotographs(["phantom.png"])
    data = cclight.RestorationDataModule(source, operator, noise_std, image_size=128, channels=1)
    batch = data.on_after_batch_transfer(next(iter(data.predict_dataloader())), 0)
    restored = sampler.sample(prior, operator, batch.measurement, batch.noise, noise_std=noise_std).image
    errors = [float((x.clamp(-1, 1) - batch.clean).square().mean()) for x in (operator.pinv(batch.measurement), restored)]
    assert errors[1] < errors[0] / 10 ** (gain / 10)
