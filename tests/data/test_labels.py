"""A label travels from the source to the prior, with its image."""

from __future__ import annotations

import datasets
import numpy as np
import pytest
import torch
from lightning.pytorch import Trainer
from PIL import Image

from cclight import AveragePooling, Conjugate, GaussianMixture, HFDataset, ImageFolder, RestorationDataModule, Restorer

CHECKER = torch.tensor([[1.0, -1.0], [-1.0, 1.0]]).repeat(2, 2)[None].repeat(3, 1, 1).double()  # AveragePooling cannot see it


def picture():
    return Image.fromarray(np.full((4, 4, 3), 128, dtype=np.uint8))


@pytest.fixture
def folder(tmp_path):
    for name in ("cat", "dog", "tree"):
        (tmp_path / "pictures" / name).mkdir(parents=True)
        picture().save(tmp_path / "pictures" / name / "a.png")
    return tmp_path / "pictures"


@pytest.fixture
def saved(tmp_path):
    features = datasets.Features({"label": datasets.ClassLabel(names=["cat", "dog"]), "photo": datasets.Image()})
    rows = {"label": [1, 0, None], "photo": [picture() for _ in range(3)]}
    datasets.Dataset.from_dict(rows, features=features).to_parquet(tmp_path / "data.parquet")
    return tmp_path


def test_a_folder_s_name_is_its_pictures_label(folder):
    labels = [entry.label for entry in ImageFolder(folder, recursive=True, classes=["dog", "cat"])]
    assert labels == [1, 0, -1]
    assert [entry.label for entry in ImageFolder(folder, recursive=True)] == [-1, -1, -1]
    with pytest.raises(ValueError, match="set recursive to true"):
        ImageFolder(folder, classes=["dog"])
    with pytest.raises(ValueError, match="no subfolder dogs"):
        list(ImageFolder(folder, recursive=True, classes=["dogs"]))


@pytest.mark.parametrize("streaming", [False, True])
def test_a_column_of_classes_is_read(saved, streaming):
    source = HFDataset(saved, "train", streaming=streaming, label_column="label")
    assert [entry.label for entry in source] == [1, 0, -1]
    assert [entry.label for entry in HFDataset(saved, "train", streaming=streaming)] == [-1, -1, -1]
    with pytest.raises(ValueError, match=r"'photo' is no column of classes .* there are label"):
        list(HFDataset(saved, "train", streaming=streaming, label_column="photo"))


def test_another_label_is_another_content(folder):
    one, other = (next(iter(ImageFolder(folder, recursive=True, classes=c))) for c in (["cat"], ["dog", "cat"]))
    assert one.fingerprint() != other.fingerprint() != ""


def test_each_image_is_restored_towards_its_own_label(folder):
    prior = GaussianMixture(torch.stack([0.5 * CHECKER, -0.5 * CHECKER]), torch.full((2,), 0.02), classes=torch.tensor([0, 1]))
    source = ImageFolder(folder, recursive=True, classes=["cat", "dog"])
    operator = AveragePooling(2)
    data = RestorationDataModule(source, operator, image_size=None, batch_size=3)
    model = Restorer(prior, Conjugate(5, 2.0), operator)
    trainer = Trainer(accelerator="cpu", logger=False, enable_progress_bar=False, enable_checkpointing=False)
    (restored,) = trainer.predict(model, data)
    cat, dog, _ = (restored.image.double() * CHECKER).mean((1, 2, 3)).tolist()
    assert cat > 0.3
    assert dog < -0.3
