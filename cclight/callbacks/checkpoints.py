"""A training's checkpoints: whole or not at all, of one training in one folder, and saved when a signal ends it."""

from __future__ import annotations

import io
import signal
import sys
from pathlib import Path
from types import FrameType
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.plugins.io import TorchCheckpointIO

from cclight.errors import RunError
from cclight.priors.checkpoints import load_state
from cclight.runs.files import write_whole


class WholeCheckpoints(TorchCheckpointIO):
    """Writes a checkpoint so that the one before stays until the new one is there, and reads it without running anything."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any | None = None) -> None:
        """Write a checkpoint.

        Raises:
            RunError: where it cannot be written or the training has diverged; what was at its place is untouched.
        """
        path = Path(path)
        if not all(bool(value.isfinite().all()) for value in checkpoint.get("state_dict", {}).values()):
            raise RunError(
                f"The training has diverged: after step {checkpoint.get('global_step')} its weights are not finite; nothing "
                f"was saved. Begin anew, from an export of the checkpoint before, with a smaller model.learning_rate."
            )
        buffer = io.BytesIO()
        torch.save(checkpoint, buffer)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            write_whole(path, buffer.getvalue())
        except (RunError, OSError) as error:
            cause = error.__cause__ or error
            goes_on = "the checkpoints before are kept; make room and go on with --ckpt_path last"
            remedy = goes_on if list(path.parent.glob("*.ckpt")) else "make room and begin again"
            raise RunError(f"Could not write {path} ({getattr(cause, 'strerror', None) or cause}): {remedy}.") from error

    def load_checkpoint(self, path: str | Path, *args: Any, **kwargs: Any) -> dict[str, Any]:
        """Read a checkpoint onto the CPU.

        Raises:
            CheckpointError: for a file that is none, or holds Python objects.
        """
        return load_state(Path(path))


def checkpoint_folders(trainer: Trainer) -> list[Path]:
    """Where the trainer's callbacks keep checkpoints, as far as the configuration says it."""
    callbacks = [callback for callback in trainer.checkpoint_callbacks if isinstance(callback, ModelCheckpoint)]
    folders = [Path(callback.dirpath) for callback in callbacks if callback.dirpath is not None]
    here = Path.cwd()  # Lightning makes them absolute; people read what they wrote
    return [folder.relative_to(here) if folder.is_relative_to(here) else folder for folder in folders]


def checkpoint_to_resume(trainer: Trainer, wanted: str | None) -> Path | None:
    """The checkpoint that a training goes on from; None begins one.

    Args:
        trainer: it knows where checkpoints are kept.
        wanted: a path, "last" for the newest in the trainer's folder, or None.

    Raises:
        FileNotFoundError: where "last" finds none.
        FileExistsError: where the trainer's folder holds another training's checkpoints.
    """
    folders = checkpoint_folders(trainer)
    there = sorted({file for folder in folders for file in folder.glob("*.ckpt")}, key=lambda file: file.stat().st_mtime)
    if wanted == "last":
        if not there:
            places = ", ".join(map(str, folders)) or "a folder (set dirpath of the callback ModelCheckpoint)"
            raise FileNotFoundError(f"No checkpoint in {places} to go on from: leave --ckpt_path out to begin a training.")
        return there[-1]
    path = None if wanted is None else Path(wanted).expanduser()
    strangers = [file for file in there if path is None or file.resolve().parent != path.resolve().parent]
    if strangers:
        raise FileExistsError(
            f"{strangers[-1]} is of an earlier training, which this one would replace: go on from it with --ckpt_path last, "
            f"move {strangers[-1].parent} away, or set another dirpath of the callback ModelCheckpoint."
        )
    return path


class SaveLast(Callback):
    """Saves last.ckpt after a training's last step, whichever it is: of `max_steps`, of `max_time`, or that of a signal.

    On SIGTERM or SIGINT the step is finished and the process exits with 143 or 130; a second signal ends it at once.
    Place it behind every other callback.
    """

    def __init__(self) -> None:
        self.received = 0

    def _receive(self, number: int, frame: FrameType | None) -> None:
        self.received = number
        for each in (signal.SIGTERM, signal.SIGINT):
            signal.signal(each, signal.SIG_DFL)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        # Lightning's own handlers, which it puts back itself at the end, save nothing.
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._receive)

    def on_validation_batch_end(self, trainer: Trainer, *args: Any, **kwargs: Any) -> None:
        if not trainer.sanity_checking and self._signalled(trainer):
            raise StopIteration  # the loop of validation batches ends; the training goes on to its next step

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        # Only where the gradients of a step are complete, because a checkpoint does not hold them.
        if (batch_idx + 1) % trainer.accumulate_grad_batches:
            return
        signalled = self._signalled(trainer)
        if not (signalled or trainer.should_stop or trainer.global_step == trainer.max_steps):
            return
        saved = "saved nowhere: there is no ModelCheckpoint with a dirpath"
        for folder in checkpoint_folders(trainer)[:1]:
            trainer.save_checkpoint(folder / "last.ckpt", weights_only=False)
            saved = f"saved as {folder / 'last.ckpt'}: the same command with --ckpt_path last goes on"
        if signalled:
            if trainer.is_global_zero:
                print(f"cclight fit: stopped after step {trainer.global_step}, {saved}", file=sys.stderr)
            raise SystemExit(128 + (self.received or signal.SIGTERM))

    def _signalled(self, trainer: Trainer) -> bool:
        """Whether a signal reached any rank: they save together or wait for each other."""
        if trainer.world_size == 1:
            return self.received > 0
        return trainer.strategy.reduce_boolean_decision(self.received > 0, all=False)
