"""Noise that belongs to an image: a generator for each (seed, image, purpose, sample), in whatever batch, process or order.

Torch's generator on the CPU keeps 32 bits of its seed, so hashes of 64 bits would collide by chance (two of 50,000 images
would share their noise more often than not). Instead the pair (image, purpose) is numbered and the numbers are permuted:

    key = 4 · number + purpose  <  2³²,      seed of the generator = π_seed(key),

where π_seed is a permutation of the 32-bit numbers, four rounds of xor with a hash of the seed and of MurmurHash3's
finalizer. Within a run no two generators are alike; another seed gives another permutation. A training numbers its batches,
key = 2²⁴ · rank + number, in the same way.

The number is the image's index, and for the kth further sample of an image it is 2²⁰ k + index: with several samples a run has
at most 2²⁰ images, whose indices are below the numbers of all further samples.

Reference:
    Salmon et al., Parallel Random Numbers: As Easy as 1, 2, 3, SC 2011 (keyed permutations of counters).
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Literal, get_args

import torch
from torch import Tensor

Purpose = Literal["initial", "measurement", "sampler"]
PURPOSES: tuple[Purpose, ...] = get_args(Purpose)
_PURPOSE_BITS = 2
_MASK = 0xFFFFFFFF


_SAMPLE_BITS = 20
MOST_SAMPLES = 1 << (32 - _PURPOSE_BITS - _SAMPLE_BITS)


def check_samples(samples: int) -> None:
    """Refuse a number of samples that does not exist.

    Raises:
        ValueError: naming the number and the range.
    """
    if not 1 <= samples <= MOST_SAMPLES:
        raise ValueError(f"samples is how often each measurement is restored, from 1 to {MOST_SAMPLES} times, got {samples}.")


def generator(seed: int | str, index: int, purpose: Purpose, sample: int = 0) -> torch.Generator:
    """A random generator on the CPU that depends on (seed, index, purpose, sample) alone.

    Args:
        seed: the run's seed, any integer, or words.
        index: the image's number, 0 <= index < 2³⁰; below 2²⁰ for a further sample.
        purpose: "initial" for ε, "measurement" for n, "sampler" for what a sampler draws on its way: independent streams.
        sample: which of the image's samples it is for, 0 <= sample < 2¹⁰.

    Raises:
        ValueError: for a number out of range or an unknown purpose.
    """
    if sample:
        if not (0 < sample < MOST_SAMPLES and 0 <= index < 1 << _SAMPLE_BITS):
            raise ValueError(
                f"A run has at most {MOST_SAMPLES} samples of each of {1 << _SAMPLE_BITS} images, got sample {sample} of image "
                f"{index}: set data.limit to {1 << _SAMPLE_BITS}, and restore the others as another source."
            )
        index |= sample << _SAMPLE_BITS
    if not 0 <= index < 1 << (32 - _PURPOSE_BITS):
        raise ValueError(f"An image's index must lie in [0, 2**{32 - _PURPOSE_BITS}), got {index}.")
    if purpose not in PURPOSES:
        raise ValueError(f"Unknown purpose {purpose!r}: choose one of {', '.join(PURPOSES)}.")
    return torch.Generator().manual_seed(_permute(seed, index << _PURPOSE_BITS | PURPOSES.index(purpose)))


_NUMBER_BITS = 24


def training_generator(seed: int, name: str, rank: int, number: int, device: torch.device | str = "cpu") -> torch.Generator:
    """A random generator of a training, that depends on (seed, name, rank, number) alone; of one name no two are alike.

    Args:
        seed: the training's seed, any integer.
        name: what it is for; each name has a permutation of its own.
        rank: of the process, 0 <= rank < 2⁸.
        number: of the batch, 0 <= number < 2²⁴.
        device: where its numbers are drawn; other kinds of devices draw other ones.

    Raises:
        ValueError: for a rank or number out of range.
    """
    if not (0 <= rank < 1 << (32 - _NUMBER_BITS) and 0 <= number < 1 << _NUMBER_BITS):
        raise ValueError(
            f"A training has at most {1 << (32 - _NUMBER_BITS)} ranks of {1 << _NUMBER_BITS} batches, got batch {number} of "
            f"rank {rank}: begin a new one with another seed from the weights of this."
        )
    return torch.Generator(device).manual_seed(_permute(f"{name} {seed}", rank << _NUMBER_BITS | number))


Source = torch.Generator | Callable[[tuple[int, ...]], Tensor]


def standard_normal(
    shape: tuple[int, ...],
    generators: Sequence[Source],
    dtype: torch.dtype = torch.float32,
    device: torch.device | str = "cpu",
) -> Tensor:
    """Standard normal noise, (B, *shape), image b from generators[b].

    Drawn in float32 where the generators are, which is the CPU as a rule, and only then moved: every device and dtype sees the
    same numbers. A complex number has the variance 1 as well, one half of it in each of its parts: σ_y means the same for
    complex measurements, E|y - H x|² = σ_y² for each number.

    Args:
        shape: of one image's noise, without the batch.
        generators: one per image, on one device; or what gives an image's next noise of a shape, on the CPU.
        dtype: of the result.
        device: of the result.
    """
    if dtype.is_complex:
        parts = standard_normal((*shape, 2), generators, dtype.to_real(), device)
        return torch.view_as_complex(parts * math.sqrt(0.5))
    draws = [
        torch.randn(shape, generator=one, dtype=torch.float32, device=one.device)
        if isinstance(one, torch.Generator)
        else one(shape)
        for one in generators
    ]
    return torch.stack(draws).to(device=device, dtype=dtype)


def _permute(seed: int | str, key: int) -> int:
    """π_seed(key): every round is a bijection of the 32-bit numbers."""
    for round_key in _round_keys(seed):
        key ^= round_key
        key = (key ^ key >> 16) * 0x85EBCA6B & _MASK
        key = (key ^ key >> 13) * 0xC2B2AE35 & _MASK
        key ^= key >> 16
    return key


@lru_cache(maxsize=16)
def _round_keys(seed: int | str) -> tuple[int, ...]:
    digest = hashlib.blake2b(str(seed).encode(), digest_size=16).digest()
    return tuple(int.from_bytes(digest[i : i + 4], "little") for i in range(0, 16, 4))
