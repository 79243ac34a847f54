import zipfile

import imagecodecs
import numpy as np
import pytest

from cclight.data.huggingface import HFDataset
from tests.data.conftest import numbers, picture

KINDS = ["parquet", "imagefolder", "saved", "saved_alone"]


@pytest.mark.parametrize("streaming", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_hf_numbers_are_the_same_in_every_format_and_share(hub, kind, streaming):
    source = HFDataset(str(hub / kind), "validation", streaming=streaming)
    assert numbers(source.shard()) == [(i, i) for i in range(7)]
    assert numbers(source.shard(1, 3)) == [(1, 1), (4, 4)]
    assert numbers(source.shard(0, 2, skip={0, 4})) == [(2, 2), (6, 6)]
    assert numbers(source.shard(limit=2)) == [(0, 0), (1, 1)]
    (photograph,) = source.shard(limit=1)
    np.testing.assert_array_equal(np.array(photograph.image), np.array(picture(0)))
    assert photograph.name == ("p0" if kind == "imagefolder" else "000000")


@pytest.mark.parametrize("kind", KINDS)
def test_hf_length(hub, kind):
    assert len(HFDataset(hub / kind, "validation")) == 7
    if kind.startswith("saved"):
        assert len(HFDataset(hub / kind, "validation", streaming=True)) == 7
    else:
        with pytest.raises(TypeError, match="streamed"):
            len(HFDataset(hub / kind, "validation", streaming=True))


def test_hf_slices(hub):
    source = HFDataset(str(hub / "parquet"), "validation[2:5]")
    assert numbers(source.shard()) == [(0, 2), (1, 3), (2, 4)]


@pytest.mark.parametrize("streaming", [False, True])
def test_hf_columns(hub, streaming):
    assert len(list(HFDataset(hub / "parquet", "validation", streaming, image_column="photo").shard())) == 7
    assert numbers(HFDataset(hub / "bytes", "validation", streaming, image_column="jpeg").shard(3, 4)) == [(3, 3)]
    for kind, column in (("parquet", "image"), ("parquet", "label"), ("bytes", None)):
        with pytest.raises(ValueError, match=r"has the columns .* Set image_column"):
            next(iter(HFDataset(hub / kind, "validation", streaming, image_column=column)))


@pytest.mark.parametrize("streaming", [False, True])
@pytest.mark.parametrize("kind", ["parquet", "saved"])
def test_hf_unknown_split(hub, kind, streaming):
    with pytest.raises(ValueError, match=r"cannot open split 'test' of .*validation") as caught:
        next(iter(HFDataset(hub / kind, "test", streaming)))
    assert "\n" not in str(caught.value)


def test_hf_slices_of_saved_data_are_refused(hub):
    with pytest.raises(ValueError, match=r"'validation\[:2\]'.*it holds validation"):
        len(HFDataset(hub / "saved_alone", "validation[:2]"))


@pytest.mark.parametrize("path", ["./nowhere", "/no/such/place", "~/no_such_place", "a/b/c"])
def test_hf_missing_folder(hub, path):
    with pytest.raises(FileNotFoundError, match=r"finds no folder .*: give a folder, or a name on the hub"):
        len(HFDataset(path, "validation"))


def test_hf_empty_folder_and_unreachable_hub(hub, tmp_path):
    with pytest.raises(FileNotFoundError, match="finds no file that datasets reads at"):
        len(HFDataset(tmp_path, "validation"))
    with pytest.raises(OSError, match=r"HFDataset finds no .*nobody/nothing") as caught:
        len(HFDataset("nobody/nothing", "validation"))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("streaming", [False, True])
def test_hf_rows_of_16_bits_and_of_files(tmp_path, streaming):
    """Rows that name a file here, and one that only claims to be a picture and would have started Ghostscript."""
    import datasets

    levels = np.random.default_rng(0).integers(0, 65536, (6, 5, 3), dtype=np.uint16)
    (tmp_path / "deep.png").write_bytes(imagecodecs.png_encode(levels))
    cells = [{"path": str(tmp_path / "deep.png"), "bytes": None}, {"path": None, "bytes": b"%!PS-Adobe-3.0 EPSF-3.0\n"}]
    rows = datasets.Dataset.from_dict({"photo": cells}, features=datasets.Features({"photo": datasets.Image()}))
    rows.save_to_disk(tmp_path / "saved")
    with pytest.warns(UserWarning, match=r"row 1 of .*it is none of .*PNG"):
        (photograph,) = HFDataset(tmp_path / "saved", "train", streaming).shard()
    assert photograph.name == "deep"
    np.testing.assert_array_equal(photograph.pixels, levels)


@pytest.mark.parametrize("streaming", [False, True])
def test_hf_pictures_in_an_archive(hub, tmp_path, streaming):
    with zipfile.ZipFile(tmp_path / "train.zip", "w") as archive:
        for name in ("p0.png", "p1.png"):
            archive.write(hub / "imagefolder" / "validation" / name, name)
    photographs = list(HFDataset(tmp_path, "train", streaming).shard())
    assert [p.name for p in photographs] == ["p0", "p1"]
    assert numbers(photographs) == [(0, 0), (1, 1)]


@pytest.mark.parametrize("streaming", [False, True])
def test_hf_broken_rows_are_named_and_left_out(hub, tmp_path, streaming):
    import datasets

    cells = [{"bytes": (hub / "imagefolder" / "validation" / "p0.png").read_bytes()}, {"bytes": b"no image"}, None]
    rows = datasets.Dataset.from_dict({"photo": cells}, features=datasets.Features({"photo": datasets.Image()}))
    rows.to_parquet(tmp_path / "train.parquet")
    with pytest.warns(UserWarning, match=r"row [12] of .* \(split train\) cannot be read as an image") as caught:
        assert len(list(HFDataset(tmp_path, "train", streaming).shard())) == 1
    assert len(caught) == 2
