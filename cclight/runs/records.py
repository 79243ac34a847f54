"""Files of records: one JSON object a line, appended; half a line, which a kill can leave, is ignored."""

from __future__ import annotations

import io
import json
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

Record = dict[str, Any]


def open_lines(path: Path) -> io.FileIO:
    """Open a file of lines for appending, unbuffered; a last line that a kill cut short is closed off."""
    file = open(path, "a+b", buffering=0)  # noqa: SIM115 - stays open for the run
    if file.seek(0, os.SEEK_END) > 0:
        file.seek(-1, os.SEEK_END)
        if file.read(1) != b"\n":
            file.write(b"\n")
    return file


def read_lines(path: Path) -> Iterator[Record]:
    """The whole records of a file."""
    for line in path.read_bytes().split(b"\n"):
        try:
            record = json.loads(line)
        except (ValueError, RecursionError):
            continue
        if isinstance(record, dict) and type(record.get("index")) is int and isinstance(record.get("name"), str):
            yield record


def lines_of(records: Iterable[Record]) -> bytes:
    """The records as lines."""
    return "".join(json.dumps(record) + "\n" for record in records).encode()
