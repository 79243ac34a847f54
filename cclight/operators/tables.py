"""Tables: what an operator computes once in float64 on the CPU and then uses in any dtype on any device."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from typing import Any, Generic, TypeVar

import torch
from torch import Tensor

Key = TypeVar("Key", bound=Hashable)


KEPT = 8  # keys, and as many casts: enough for both sides of an image under two dtypes


class Table(Generic[Key]):
    """Constant tensors under a key (a side length, an image shape), cached per key, dtype and device; the last few of them.

    Not buffers: a state dict has no use for them, their size follows the images, and some devices know no float64.

    Args:
        make: gives the tensors of a key, in float64 on the CPU.
    """

    def __init__(self, make: Callable[[Key], tuple[Tensor, ...]]) -> None:
        self._make = make
        self._exact: dict[Key, tuple[Tensor, ...]] = {}
        self._cast: dict[tuple[Key, torch.dtype, torch.device], tuple[Tensor, ...]] = {}

    def __getstate__(self) -> dict[str, Any]:
        """Copies make their tables anew: these may be large, and not all kinds of tensors can be copied."""
        return {**vars(self), "_exact": {}, "_cast": {}}

    def clear(self) -> None:
        """Forget everything: what it was made from has changed."""
        self._exact.clear()
        self._cast.clear()

    def exact(self, key: Key) -> tuple[Tensor, ...]:
        """The tensors in float64 on the CPU."""
        if key not in self._exact:
            # Tensors born in inference mode could never be part of a VJP later.
            with torch.inference_mode(False), torch.no_grad():
                _keep(self._exact, key, self._make(key))
        return self._exact[key]

    def like(self, key: Key, x: Tensor) -> tuple[Tensor, ...]:
        """The tensors in x's dtype and on its device."""
        place = (key, x.dtype, x.device)
        if place not in self._cast:
            with torch.inference_mode(False), torch.no_grad():
                _keep(self._cast, place, tuple(tensor.to(x.device, x.dtype) for tensor in self.exact(key)))
        return self._cast[place]


def _keep(cache: dict[Any, tuple[Tensor, ...]], key: Hashable, value: tuple[Tensor, ...]) -> None:
    """Add to a cache, and let go of its oldest entry where it is full."""
    if len(cache) >= KEPT:
        del cache[next(iter(cache))]
    cache[key] = value
