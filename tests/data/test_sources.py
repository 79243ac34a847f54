import os
import pickle
import socket
import subprocess
import sys
from dataclasses import replace

import imagecodecs
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from cclight.data.decoding import UnreadableImage, read_picture
from cclight.data.huggingface import HFDataset
from cclight.data.sources import Entry, ImageFolder, Photograph, SamplePhotographs, Source
from tests.data.conftest import numbers, picture


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
