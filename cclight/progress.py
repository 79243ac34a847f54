"""How far a training is: what its learning rate and its patches follow."""

from __future__ import annotations

import math

from lightning.pytorch import Trainer
from lightning.pytorch.callbacks import Timer


def progress(trainer: Trainer) -> float:
    """The share of a training that is done, from 0 to 1: of `max_steps` or of `max_time`, whichever is further.

    Raises:
        ValueError: for a training without an end.
    """
    steps = trainer.estimated_stepping_batches
    timer = next((callback for callback in trainer.callbacks if isinstance(callback, Timer)), None)  # type: ignore[attr-defined]
    if math.isinf(steps) and timer is None:
        raise ValueError("A training ends some time: set trainer.max_steps, or trainer.max_time as 00:00:30:00.")
    done = trainer.global_step / max(1, steps)
    if timer is not None:
        elapsed, remaining = timer.time_elapsed(), timer.time_remaining() or 0.0
        done = max(done, elapsed / max(elapsed + remaining, 1e-9))
    return min(1.0, done)
