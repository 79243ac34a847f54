"""What every rank knows, on every rank."""

from __future__ import annotations

from typing import Any

import torch


def gather(item: Any) -> list[Any]:
    """The item of every rank, in order of rank; of the only one where there is no process group. A collective."""
    distributed = torch.distributed
    if not (distributed.is_available() and distributed.is_initialized()):
        return [item]
    items: list[Any] = [None] * distributed.get_world_size()
    distributed.all_gather_object(items, item)
    return items
