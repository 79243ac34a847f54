"""Subset: some of a source's photographs, listed in a file, as evaluations on a published selection need."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from functools import cached_property
from itertools import pairwise
from pathlib import Path

from cclight.data.sources import Entry, Photograph, Source, Values
from cclight.data.units import Units


class Subset(Source):
    """The photographs of another source whose numbers a text file lists, in ascending order and numbered anew from 0.

    Args:
        source: where the photographs come from.
        indices: a text file of their numbers in that source, separated by white space or commas; a # starts a comment.
    """

    def __init__(self, source: Source, indices: str) -> None:
        self.source = source
        self.indices = indices

    @property
    def units(self) -> Units | None:  # type: ignore[override]
        return self.source.units

    @cached_property
    def _chosen(self) -> dict[int, int]:
        """From a photograph's number in the source to its number here."""
        file = Path(self.indices).expanduser()
        if not file.is_file():
            raise FileNotFoundError(f"Subset finds no file {self.indices}: give a text file of the photographs' numbers.")
        words = [word for line in file.read_text().splitlines() for word in line.partition("#")[0].replace(",", " ").split()]
        wrong = next((word for word in words if not word.isdecimal()), None)
        if wrong is not None or not words:
            found = "nothing" if wrong is None else repr(wrong)
            raise ValueError(f"{self.indices} lists photographs' numbers (0, 1, 2, ...), found {found}.")
        numbers = sorted(map(int, words))
        twice = next((a for a, b in pairwise(numbers) if a == b), None)
        if twice is not None:
            raise ValueError(f"{self.indices} lists the photograph {twice} more than once: delete the repetition.")
        return {number: place for place, number in enumerate(numbers)}

    def __iter__(self) -> Iterator[Entry]:
        last = max(self._chosen)
        count = 0
        for entry in self.source:
            if entry.index in self._chosen:
                yield _renumbered(entry, self._chosen[entry.index])
            count += 1
            if count > last:
                return
        raise ValueError(
            f"{self.indices} lists the photograph {last}, but {self.source} holds {count}: take the list that fits."
        )

    def __len__(self) -> int:
        return len(self._chosen)


def _renumbered(entry: Entry, index: int) -> Entry:
    load = entry.load

    def again() -> Photograph | Values:
        return replace(load(), index=index)

    return replace(entry, index=index, load=again)
