"""Errors that the user can mend: one line that names the value, the expectation and the remedy."""

from __future__ import annotations

from collections.abc import Iterable


def one_line(error: BaseException) -> str:
    """An error's message without its line breaks, shortened."""
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) <= 160 else f"{text[:157]}..."


class RunError(RuntimeError):
    """A run folder that cannot be used or written; the message is one line and names the remedy."""


class UsageError(Exception):
    """Something the user can mend; the message is one line."""


def suggestion(word: str, known: Iterable[str], cutoff: float = 0.5) -> str:
    """`: did you mean ...?` where the word resembles known ones, by `cutoff` of 1 at least, else nothing."""
    from difflib import get_close_matches

    close = get_close_matches(word, list(known), n=3, cutoff=cutoff)
    return f": did you mean {' or '.join(close)}?" if close else ""
