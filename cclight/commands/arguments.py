"""The parser of the commands that take plain options: `cclight predict` and its like have jsonargparse's."""

from __future__ import annotations

import argparse
import re
from collections.abc import Iterable, Sequence
from typing import Any, NoReturn

from cclight.errors import UsageError, suggestion


class PlainParser(argparse.ArgumentParser):
    """argparse's parser with errors of one line, and options that must be written out: a shell completes them."""

    def __init__(self, *arguments: Any, **settings: Any) -> None:
        super().__init__(*arguments, **{"allow_abbrev": False, **settings})

    def parse_args(self, args: Sequence[str] | None = None, namespace: Any = None) -> Any:  # type: ignore[override]
        """Parse a command line.

        Raises:
            UsageError: for an option that does not exist, first, for it can be why another is missing; and what is wrong else.
        """
        for word in _options(args or ()):
            if word not in self._option_string_actions and not self._is_short(word):
                known = [option for option in self._option_string_actions if option.startswith("--")]
                near = suggestion(word, known, cutoff=0.7)
                raise UsageError(f"there is no option {word}{near or ', `--help` lists them'}")
        return super().parse_args(args, namespace)

    def error(self, message: str) -> NoReturn:
        """Argparse's word for an error, which prints the usage and ends the process."""
        raise UsageError(f"{message}, `--help` says more")

    def _is_short(self, word: str) -> bool:
        """-h, also joined to others or to its value; and numbers, which are values."""
        return not word.startswith("--") and (word[:2] in self._option_string_actions or bool(re.match(r"-[\d.]", word)))


def _options(words: Iterable[str]) -> Iterable[str]:
    for word in words:
        if word == "--":  # what follows are values
            return
        if word.startswith("-") and len(word) > 1 and " " not in word.partition("=")[0]:
            yield word.partition("=")[0]
