"""Errors that the user can mend: one line that names the value, the expectation and the remedy."""

from __future__ import annotations

from collections.abc import Iterable


def one_line(error: BaseException) -> str:
    """An error's message without its line breaks, of 160 characters at most: it ends with a sentence or a word."""
    text = " ".join(str(error).split()) or type(error).__name__
    if len(text) <= 160:
        return text
    sentences = text[:161].rpartition(". ")[0]
    if len(sentences) > 80:
        return f"{sentences}."
    words = text[:158].rpartition(" ")[0]
    return f"{words if len(words) > 80 else text[:157]}..."


class RunError(RuntimeError):
    """A run folder that cannot be used or written; the message is one line and names the remedy."""


class UsageError(Exception):
    """Something the user can mend; the message is one line."""


def suggestion(word: str, known: Iterable[str], cutoff: float = 0.5) -> str:
    """`: did you mean ...?` where the word resembles known ones, by `cutoff` of 1 at least, else nothing."""
    from difflib import get_close_matches

    close = get_close_matches(word, list(known), n=3, cutoff=cutoff)
    return f": did you mean {' or '.join(close)}?" if close else ""
