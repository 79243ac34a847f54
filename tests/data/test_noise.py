import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from cclight.data.noise import PURPOSES, _permute, generator, standard_normal


@settings(max_examples=10, deadline=None)
@given(st.integers())
def test_no_two_images_or_purposes_share_a_generator(seed):
    keys = range(4 * 5_000)
    assert len({_permute(seed, key) for key in keys}) == len(keys)
    assert all(0 <= _permute(seed, key) < 2**32 for key in (0, 1, 2**32 - 1))


def test_torch_keeps_32_bits_of_a_seed():
    # The reason for the permutation: should this change, a plain hash of 64 bits will do.
    low, high = (torch.randn(8, generator=torch.Generator().manual_seed(seed)) for seed in (5, 5 + 2**32))
    assert torch.equal(low, high)


def test_seeds_of_generators_never_change():
    # Restorations of earlier versions are reproduced only as long as these hold.
    assert [generator(0, 0, purpose).initial_seed() for purpose in PURPOSES] == [1968239437, 435351250, 3433023342]
    assert generator(-1, 12345, "initial").initial_seed() == 960165685


def test_streams_are_standard_normal_and_independent():
    seeds, indices = (0, 1), range(8)
    generators = [generator(seed, index, purpose) for seed in seeds for index in indices for purpose in PURPOSES]
    noise = standard_normal((4096,), generators)
    assert noise.mean().abs() < 4 / noise.numel() ** 0.5
    assert (noise.std() - 1).abs() < 0.01
    correlation = torch.corrcoef(noise) - torch.eye(len(generators))
    assert correlation.abs().max() < 5.5 / 4096**0.5


def test_noise_depends_on_the_image_alone():
    together = standard_normal((3, 5, 6), [generator(7, index, "initial") for index in (4, 2, 9)])
    assert together.shape == (3, 3, 5, 6)
    assert torch.equal(together[1:2], standard_normal((3, 5, 6), [generator(7, 2, "initial")]))
    assert not torch.equal(together[0], together[1])


def test_every_dtype_sees_the_same_numbers():
    single, double, half = (
        standard_normal((2, 3), [generator(0, 0, "initial")], dtype) for dtype in (torch.float32, torch.float64, torch.bfloat16)
    )
    assert torch.equal(single.double(), double)
    assert torch.equal(single.bfloat16(), half)


def test_complex_noise_has_half_its_variance_in_each_part():
    noise = standard_normal((2**16,), [generator(0, 0, "measurement")], torch.complex64)
    assert noise.dtype == torch.complex64
    parts = torch.view_as_real(noise[0])
    assert (noise.abs().square().mean() - 1).abs() < 0.02
    assert (parts.square().mean(0) - 0.5).abs().max() < 0.01
    assert torch.corrcoef(parts.T)[0, 1].abs() < 0.02
    double = standard_normal((2**16,), [generator(0, 0, "measurement")], torch.complex128)
    torch.testing.assert_close(double.to(noise.dtype), noise)


def test_the_global_generator_is_left_alone():
    before = torch.get_rng_state()
    standard_normal((4,), [generator(0, 0, "sampler")])
    assert torch.equal(before, torch.get_rng_state())


@pytest.mark.parametrize("index", [-1, 2**30])
def test_index_out_of_range(index):
    with pytest.raises(ValueError, match=f"got {index}"):
        generator(0, index, "initial")


def test_unknown_purpose():
    with pytest.raises(ValueError, match="'other': choose one of initial, measurement, sampler"):
        generator(0, 0, "other")


def test_no_two_samples_of_images_share_a_generator():
    seeds = [
        generator(3, index, purpose, sample).initial_seed()
        for sample in (0, 1, 2, 1023)
        for index in (*range(50), 2**20 - 1)
        for purpose in PURPOSES
    ]
    assert len(set(seeds)) == len(seeds)
    assert generator(3, 7, "initial", 0).initial_seed() == generator(3, 7, "initial").initial_seed()


@pytest.mark.parametrize(("index", "sample"), [(0, 1024), (0, -1), (2**20, 1)])
def test_samples_beyond_the_numbers_are_refused(index, sample):
    with pytest.raises(ValueError, match=rf"got sample {sample} of image {index}: set data.limit"):
        generator(0, index, "initial", sample)


def test_an_image_s_noise_can_come_from_anywhere():
    one, ones = generator(0, 0, "sampler"), standard_normal((3, 4), [generator(0, 0, "sampler"), torch.ones], torch.float64)
    assert ones.dtype == torch.float64
    assert torch.equal(ones[0].float(), torch.randn(3, 4, generator=one))
    assert torch.equal(ones[1], torch.ones(3, 4, dtype=torch.float64))
