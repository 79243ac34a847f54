"""The bar of a training without a last epoch."""

from __future__ import annotations

import re

from lightning.pytorch import Trainer
from lightning.pytorch.callbacks import RichProgressBar
from rich.progress import ProgressColumn, Task, TextColumn
from rich.text import Text


class _Described(TextColumn):
    def render(self, task: Task) -> Text:
        text = super().render(task)
        text.plain = re.sub(r"/-\d+", "", text.plain)
        return text


class EndlessBar(RichProgressBar):
    """Lightning's bar, which counts epochs towards -2 where `trainer.max_epochs` is -1; this one leaves that number out."""

    def configure_columns(self, trainer: Trainer) -> list[ProgressColumn]:
        described = _Described("[progress.description]{task.description}")
        return [described, *super().configure_columns(trainer)[1:]]
