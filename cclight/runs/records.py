"""Files of records: one JSON object a line, appended; half a line, which a kill can leave, is ignored."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from cclight.runs.files import write_error

Record = dict[str, Any]


def append_lines(path: Path, lines: bytes) -> None:
    """Append to a file of lines, on disk when this returns; a last line that a kill cut short is closed off.

    Raises:
        RunError: when the disk is full or the like.
    """
    try:
        with open(path, "a+b", buffering=0) as file:
            if file.seek(0, os.SEEK_END) > 0:
                file.seek(-1, os.SEEK_END)
                if file.read(1) != b"\n":
                    file.write(b"\n")
            rest = memoryview(lines)
            while rest:  # unbuffered, and so perhaps in parts
                rest = rest[file.write(rest) :]
            os.fsync(file.fileno())
    except OSError as error:
        raise write_error(path, error) from error


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
