import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from cclight.data.huggingface import HFDataset
from cclight.data.loader import Decoded, Loader, Notice, Share
from cclight.data.noise import generator, standard_normal
from cclight.data.preprocessing import Preprocessing
from cclight.data.sources import ImageFolder
from tests.data.conftest import picture
from tests.data.test_sources import Numbers

# Torch thinks three workers too many for a small machine.
pytestmark = pytest.mark.filterwarnings("ignore:This DataLoader will create")

SMALL = Preprocessing(size=(8, 8), resize=False)


def load(share, workers=0, tell=None, refuse=lambda batch: None):
    return list(Loader(share, workers, False, refuse, tell or (lambda notice: None)))


def red(batch):
    """The numbers that the pictures of `picture` carry, where nothing was cut off."""
    return ((batch.images[:, 0, 0, 0] + 1) * 127.5).round().int().tolist()


@settings(deadline=None)
@given(st.integers(0, 20), st.integers(1, 4), st.integers(1, 4), st.sets(st.integers(0, 20)), st.none() | st.integers(1, 20))
def test_length_is_the_number_of_batches(n, world_size, batch_size, skip, limit):
    seen = []
    for rank in range(world_size):
        loader = Loader(
            Share(Numbers(n), Preprocessing(size=(4, 4)), batch_size, rank, world_size, skip, limit),
            0,
            False,
            lambda batch: None,
            print,
        )
        batches = list(loader)
        assert len(batches) == len(loader)
        seen += [index for batch in batches for index in batch.indices]
    assert sorted(seen) == [i for i in range(n if limit is None else min(n, limit)) if i not in skip]


@pytest.mark.parametrize("workers", [1, 2, 3])
@pytest.mark.parametrize("streaming", [False, True])
def test_workers_and_ranks_lose_nothing_and_take_nothing_twice(hub, streaming, workers):
    for world_size in (1, 2):
        seen = {}
        for rank in range(world_size):
            share = Share(HFDataset(hub / "parquet", "validation", streaming), Preprocessing(), 2, rank, world_size, skip={3})
            batches = load(share, workers)
            mine = {index: number for batch in batches for index, number in zip(batch.indices, red(batch), strict=True)}
            assert not mine.keys() & seen.keys()
            assert all(index % world_size == rank for index in mine)
            seen |= mine
        assert seen == {index: index for index in range(7) if index != 3}


@pytest.mark.parametrize("workers", [2, 3])
def test_length_with_workers(folder, workers):
    share = Share(ImageFolder(folder), SMALL, 2)
    assert len(Loader(share, workers, False, lambda batch: None, print)) == len(load(share, workers))


def test_batches_hold_images_of_one_size(tmp_path):
    for number, (height, width) in enumerate([(8, 8), (8, 8), (8, 8), (6, 9), (8, 8), (6, 9), (6, 9)]):
        picture(number, height, width).save(tmp_path / f"{number}.png")
    share = Share(ImageFolder(tmp_path), Preprocessing(), batch_size=2)
    assert [batch.indices for batch in load(share)] == [[0, 1], [2], [3], [4], [5, 6]]
    assert [red(batch) for batch in load(share)] == [[0, 1], [2], [3], [4], [5, 6]]
    with pytest.raises(TypeError, match="at the end"):
        len(Loader(share, 0, False, lambda batch: None, print))
    share = Share(ImageFolder(tmp_path), Preprocessing(), batch_size=1)
    assert len(Loader(share, 0, False, lambda batch: None, print)) == len(load(share)) == 7


@pytest.mark.parametrize("workers", [0, 2])
def test_notices_reach_the_main_process(folder, workers):
    (folder / "p2.png").write_bytes(b"")
    picture(6, height=7, width=40).save(folder / "p6.png")
    notices = []
    batches = load(Share(ImageFolder(folder), SMALL, 3), workers, notices.append)
    assert sorted(index for batch in batches for index in batch.indices) == [0, 1, 3, 4, 5]
    assert {notice.index: notice.left_out for notice in notices} == {2: True, 6: True}
    texts = {notice.index: notice.text for notice in notices}
    assert "p2.png cannot be read" in texts[2]
    assert "p6 (number 6) has 7×40 pixels, fewer than the 8×8" in texts[6]


def test_enlarging_is_told(folder):
    notices = []
    batches = load(Share(ImageFolder(folder), Preprocessing(size=(28, 28)), 7), tell=notices.append)
    assert [batch.images.shape for batch in batches] == [(7, 3, 28, 28)]
    assert [(notice.index, notice.left_out) for notice in notices] == [(index, False) for index in range(7)]
    assert "p0.png is smaller" in notices[0].text


def test_refused_batches_are_told_and_not_handed_on(folder):
    notices = []
    batches = load(
        Share(ImageFolder(folder), SMALL, 3), tell=notices.append, refuse=lambda batch: "no." if 3 in batch.indices else None
    )
    assert [batch.indices for batch in batches] == [[0, 1, 2], [6]]
    assert notices == [Notice(index, f"p{index} (number {index}): no.", left_out=True) for index in (3, 4, 5)]


def test_loading_leaves_the_global_generator_alone(folder):
    before = torch.get_rng_state()
    load(Share(ImageFolder(folder), SMALL, 3))
    assert torch.equal(before, torch.get_rng_state())


def test_decoded_travels_as_it_is(folder):
    (batch,) = load(Share(ImageFolder(folder), SMALL, 7))
    assert isinstance(batch, Decoded)
    assert batch.indices == list(range(7))
    assert batch.names == [f"p{index}" for index in range(7)]
    assert batch.images.dtype == torch.float32
    assert batch.images.is_contiguous()


@pytest.mark.parametrize("workers", [0, 2])
def test_the_initial_noise_is_each_images_own_whatever_the_workers(folder, workers):
    share = Share(ImageFolder(folder), SMALL, 3, seed=5, samples=2)
    for batch in load(share, workers):
        for index, sample, noise in zip(batch.indices, batch.samples, batch.noise, strict=True):
            own = [generator(5, index, "initial", sample)]
            assert torch.equal(noise, standard_normal((3, 8, 8), own)[0])


@settings(deadline=None)
@given(st.data())
def test_each_sample_that_is_missing_is_loaded_once(data):
    n, samples, batch_size, world_size = (data.draw(st.integers(1, most)) for most in (8, 5, 7, 3))
    apart = data.draw(st.booleans())
    done = data.draw(st.dictionaries(st.integers(0, n - 1), st.sets(st.integers(0, samples - 1))))
    skip = {index for index, made in done.items() if len(made) == samples}
    seen = []
    for rank in range(world_size):
        share = Share(Numbers(n), Preprocessing(size=(4, 4)), batch_size, rank, world_size, skip, None, samples, done, apart)
        batches = load(share)
        assert len(batches) == share.batches(0)
        mine = [list(zip(batch.indices, batch.samples, strict=True)) for batch in batches]
        assert all(len(batch) <= batch_size and (not apart or len({index for index, _ in batch}) == 1) for batch in mine)
        assert all(index % world_size == rank for batch in mine for index, _ in batch)
        pairs = [pair for batch in mine for pair in batch]
        assert pairs == sorted(pairs)
        seen += pairs
    assert sorted(seen) == [(i, k) for i in range(n) for k in range(samples) if k not in done.get(i, ())]


def test_a_photograph_is_decoded_once_for_all_of_its_samples(folder, monkeypatch):
    made = []
    monkeypatch.setattr(
        Preprocessing, "__call__", lambda self, one, call=Preprocessing.__call__: made.append(one) or call(self, one)
    )
    batches = load(Share(ImageFolder(folder), SMALL, 2, samples=5))
    assert sum(len(batch.indices) for batch in batches) == 5 * len(made)


def test_a_photograph_whose_samples_cannot_be_used_is_told_of_once(folder):
    told = []
    share = Share(ImageFolder(folder), SMALL, 4, samples=4)
    assert load(share, tell=told.append, refuse=lambda batch: "no") == []
    assert [notice.index for notice in told] == sorted({notice.index for notice in told})
