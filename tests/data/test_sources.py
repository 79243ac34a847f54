import os
import pickle
import socket
import subprocess
import sys
import zipfile
from dataclasses import replace

import imagecodecs
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from cclight.data.decoding import UnreadableImage, read_picture
from cclight.data.sources import Entry, HFDataset, ImageFolder, Photograph, SamplePhotographs, Source
from tests.data.conftest import picture


class Numbers(Source):
    """A source of n tiny photographs that remembers what was decoded."""

    def __init__(self, n):
        self.n = n
        self.decoded = []

    def __iter__(self):
        for index in range(self.n):
            yield Entry(index, f"number {index}", lambda index=index: self._load(index))

    def _load(self, index):
        self.decoded.append(index)
        return Photograph(Image.new("RGB", (4, 4)), index, str(index))

    def __len__(self):
        return self.n


SHARES = st.tuples(st.integers(0, 40), st.integers(1, 9), st.sets(st.integers(0, 45)), st.none() | st.integers(1, 45))


@given(SHARES)
def test_shares_lose_nothing_and_take_nothing_twice(case):
    n, world_size, skip, limit = case
    source = Numbers(n)
    taken = [photograph.index for rank in range(world_size) for photograph in source.shard(rank, world_size, skip, limit)]
    assert sorted(taken) == sorted(source.decoded) == [i for i in range(n if limit is None else min(n, limit)) if i not in skip]


@given(SHARES)
def test_shares_are_even(case):
    n, world_size, _, limit = case
    sizes = [len(list(Numbers(n).entries(rank, world_size, limit=limit))) for rank in range(world_size)]
    assert max(sizes) - min(sizes) <= 1


def numbers(photographs):
    """Index and the number that the picture itself carries."""
    return [(photograph.index, photograph.image.getpixel((0, 0))[0]) for photograph in photographs]


# Folders of images


def test_folder_is_sorted_and_keeps_names(tmp_path):
    for name in ("b.JPG", "a.png", "c.webp", "d.bmp", "e.tiff", ".hidden.png", "10 ä.png"):
        picture(0).save(tmp_path / name)
    (tmp_path / "sub").mkdir()
    picture(1).save(tmp_path / "sub" / "a.png")

    flat, deep = ImageFolder(tmp_path), ImageFolder(str(tmp_path), recursive=True)
    assert [photograph.name for photograph in flat.shard()] == ["10_ä", "a", "b", "c", "d", "e"]
    assert [photograph.name for photograph in deep.shard()] == ["10_ä", "a", "b", "c", "d", "e", "sub_a"]
    assert (len(flat), len(deep)) == (6, 7)
    assert [entry.index for entry in deep] == list(range(7))


def test_folder_pictures_are_the_files(folder):
    assert numbers(ImageFolder(folder).shard(1, 3)) == [(1, 1), (4, 4)]
    assert numbers(ImageFolder(folder).shard(1, 3, skip={1})) == [(4, 4)]


def spoil(folder):
    """p1 is truncated, p3 is text, p5 is empty."""
    whole = (folder / "p1.png").read_bytes()
    (folder / "p1.png").write_bytes(whole[: len(whole) // 2])
    (folder / "p3.png").write_text("no image")
    (folder / "p5.png").write_bytes(b"")
    Image.new("F", (4, 4), 7).save(folder / "p7.tif")


def test_unreadable_files_are_named_and_left_out(folder):
    spoil(folder)
    with pytest.warns(UserWarning, match="cannot be read as an image") as caught:
        assert [photograph.index for photograph in ImageFolder(folder).shard()] == [0, 2, 4, 6]
    assert [str(folder / f"p{i}") in str(w.message) for i, w in zip((1, 3, 5, 7), caught, strict=True)] == [True] * 4
    assert all("\n" not in str(w.message) for w in caught)


def test_an_entry_raises(folder):
    spoil(folder)
    entries = list(ImageFolder(folder))
    with pytest.raises(UnreadableImage, match=r"p1\.png"):
        entries[1].load()


def test_passing_by_decodes_nothing(folder):
    spoil(folder)
    assert [photograph.index for photograph in ImageFolder(folder).shard(skip={1, 3, 5, 7})] == [0, 2, 4, 6]


def test_what_is_passed_over_is_counted_and_named(folder):
    (folder / "notes.txt").write_text("no image")
    (folder / "more.TXT").write_text("no image")
    (folder / "movie.MOV").write_bytes(b"no image")
    (folder / "LICENSE").write_text("no image")
    (folder / ".hidden").write_text("hidden files are nobody's business")
    with pytest.warns(UserWarning, match=r"passes over files in .*: \.mov \(1\), \.txt \(2\), no suffix \(1\)\.$"):
        assert len(ImageFolder(folder)) == 7


def test_every_format_of_the_list_is_read_in_a_folder(tmp_path):
    for suffix in (".avif", ".jfif", ".jp2", ".gif", ".ppm", ".mpo", ".bmp", ".tif", ".webp"):
        picture(0).save(tmp_path / f"a{suffix[1:]}{suffix}", **({"format": "JPEG"} if suffix in (".jfif", ".mpo") else {}))
    picture(0).convert("L").save(tmp_path / "apgm.pgm")
    assert [p.image.size for p in ImageFolder(tmp_path).shard()] == [(32, 24)] * 10


def test_a_pipe_in_a_folder_does_not_hang(folder):
    os.mkfifo(folder / "pipe.png")
    assert len(list(ImageFolder(folder).shard())) == 7
    with pytest.raises(UnreadableImage, match=r"pipe.png cannot be read as an image \(it is no regular file"):
        read_picture(folder / "pipe.png")


def test_transparent_photographs_lie_on_white_and_this_is_said(tmp_path):
    pixels = np.dstack([np.full((4, 4, 3), 100, np.uint8), np.array([[0, 255, 128, 255]] * 4, np.uint8)])
    Image.fromarray(pixels).save(tmp_path / "a.png")
    with pytest.warns(UserWarning, match=r"a.png: its transparent pixels are laid over white\.$"):
        (photograph,) = ImageFolder(tmp_path).shard()
    assert np.array(photograph.image)[0].tolist() == [[255] * 3, [100] * 3, [177] * 3, [100] * 3]


def test_photographs_of_more_than_8_bits_keep_them(tmp_path):
    levels = np.random.default_rng(0).integers(0, 65536, (20, 24, 3), dtype=np.uint16)
    (tmp_path / "deep.png").write_bytes(imagecodecs.png_encode(levels))
    (photograph,) = ImageFolder(tmp_path).shard()
    np.testing.assert_array_equal(photograph.pixels, levels)
    np.testing.assert_array_equal(np.array(photograph.image), np.rint(levels / 257).astype(np.uint8))


def test_missing_and_empty_folders(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"finds no folder .*nowhere: give the path"):
        len(ImageFolder(tmp_path / "nowhere"))
    (tmp_path / "sub").mkdir()
    picture(0).save(tmp_path / "sub" / "a.png")
    with pytest.raises(ValueError, match=r"finds no avif/bmp/.* file in .*recursive: true"):
        len(ImageFolder(tmp_path))


# The bundled photographs


def test_sample_photographs_need_no_network(monkeypatch):
    def refuse(*_, **__):
        raise AssertionError("the network was asked")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    photographs = list(SamplePhotographs().shard())
    assert len(photographs) == len(SamplePhotographs()) == 6
    assert [p.name for p in photographs] == ["astronaut", "chelsea", "coffee", "rocket", "camera", "coins"]
    assert all(p.image.mode == "RGB" and min(p.image.size) >= 256 for p in photographs)
    colour = [np.ptp(np.array(p.image).astype(int), axis=-1).max() > 50 for p in photographs]
    assert colour == [True] * 4 + [False] * 2


def test_sources_import_nothing_slow():
    code = (
        "import sys; from cclight.data.sources import SamplePhotographs; next(SamplePhotographs().shard());"
        "print([m for m in ('torch', 'lightning', 'datasets', 'skimage', 'pooch') if m in sys.modules])"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip() == "[]"


# Hugging Face data sets

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


@pytest.mark.parametrize("streaming", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_hf_rows_are_known_by_their_content(hub, kind, streaming):
    fingerprints = [entry.fingerprint() for entry in HFDataset(str(hub / kind), "validation", streaming=streaming)]
    assert "" not in fingerprints
    assert len(set(fingerprints)) == 7
    assert fingerprints == [entry.fingerprint() for entry in HFDataset(str(hub / kind), "validation")]


def test_a_photograph_is_known_by_its_name_and_content(folder):
    def fingerprints():
        return [entry.fingerprint() for entry in ImageFolder(folder)]

    before = fingerprints()
    assert fingerprints() == before
    (folder / "p6.png").replace(folder / "q.png")
    picture(5, 9).save(folder / "p5.png")
    assert fingerprints()[:5] == before[:5]
    assert not {*fingerprints()[5:]} & {*before}
    entries = list(ImageFolder(folder))
    (folder / "p0.png").unlink()
    assert entries[0].fingerprint() == ""
    # Of a source that gives no bytes, the pixels count.
    alone = [replace(entry, content=None).fingerprint() for entry in entries[1:]]
    assert alone == [replace(entry, content=None).fingerprint() for entry in entries[1:]]
    assert len(set(alone)) == 6


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


def test_constructing_opens_nothing(hub):
    # A configuration file of a data set that is not there must still parse.
    for source in (HFDataset("nobody/nothing", "validation"), ImageFolder("nowhere")):
        assert "nowhere" in repr(source) or "nobody/nothing" in repr(source)


def test_open_sources_travel_to_spawned_workers(hub, folder):
    for source in (
        HFDataset(hub / "parquet", "validation"),
        HFDataset(hub / "parquet", "validation", True),
        ImageFolder(folder),
    ):
        next(iter(source))
        assert numbers(pickle.loads(pickle.dumps(source)).shard()) == [(i, i) for i in range(7)]
