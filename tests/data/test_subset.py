"""cclight/data/subset.py: a selection of a source, numbered anew."""

import pytest
from PIL import Image

from cclight.data.sources import ImageFolder
from cclight.data.subset import Subset


@pytest.fixture
def folder(tmp_path):
    for number in range(10):
        Image.new("RGB", (4, 4), (20 * number, 0, 0)).save(tmp_path / f"photograph_{number}.png")
    return ImageFolder(tmp_path)


@pytest.fixture
def listed(tmp_path):
    def write(text):
        (tmp_path / "list.txt").write_text(text)
        return str(tmp_path / "list.txt")

    return write


def test_the_listed_photographs_come_in_order_and_numbered_anew(folder, listed):
    subset = Subset(folder, listed("# every other\n8 2,4 # and\n0\n\n6\n"))
    photographs = list(subset.shard())
    assert [p.index for p in photographs] == [0, 1, 2, 3, 4]
    assert [p.name for p in photographs] == [f"photograph_{n}" for n in (0, 2, 4, 6, 8)]
    assert [p.image.getpixel((0, 0))[0] for p in photographs] == [0, 40, 80, 120, 160]
    assert len(subset) == 5


def test_processes_share_it_evenly_whatever_the_numbers(folder, listed):
    subset = Subset(folder, listed("0 2 4 6 8"))
    shares = [[entry.index for entry in subset.entries(rank, 2)] for rank in range(2)]
    assert shares == [[0, 2, 4], [1, 3]]


def test_nothing_behind_the_last_one_is_looked_at(folder, listed):
    class Watched(ImageFolder):
        def __iter__(self):
            for entry in super().__iter__():
                assert entry.index <= 3, "looked too far"
                yield entry

    assert [entry.index for entry in Subset(Watched(folder.path), listed("1 3"))] == [0, 1]


def test_a_photograph_is_known_by_the_same_content(folder, listed):
    whole = [entry.fingerprint() for entry in folder]
    assert [entry.fingerprint() for entry in Subset(folder, listed("1 3"))] == [whole[1], whole[3]]


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("", r"lists photographs' numbers \(0, 1, 2, \.\.\.\), found nothing"),
        ("1 two", "found 'two'"),
        ("-1", "found '-1'"),
        ("3 1 3", "lists the photograph 3 more than once: delete the repetition"),
        ("1 10", r"lists the photograph 10, but ImageFolder\(.* holds 10: take the list that fits"),
    ],
)
def test_a_list_that_makes_no_sense_is_refused(folder, listed, text, complaint):
    with pytest.raises(ValueError, match=complaint):
        list(Subset(folder, listed(text)))


def test_a_missing_list_is_refused(folder):
    with pytest.raises(
        FileNotFoundError, match=r"Subset finds no file nowhere\.txt: give a text file of the photographs' numbers"
    ):
        len(Subset(folder, "nowhere.txt"))
