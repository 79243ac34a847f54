"""`cclight restore`: the shortest way for a person with a picture."""

from cclight.commands.restore.command import TASKS, main, parser

__all__ = ["TASKS", "main", "parser"]
