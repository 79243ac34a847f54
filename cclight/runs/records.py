"""Files of records: one JSON object a line, appended; half a line, which a kill can leave, is ignored.

A line is of a sample, one of an image's restorations, or of all of them together: `sample` says which one (the first where it
says nothing), `samples` how many are together. Whoever asks for images gets one record of each, `merge`.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from cclight.runs.files import write_error
from cclight.runs.layout import picture_of

Record = dict[str, Any]
Key = tuple[int, int]  # an image's index and its sample's number; TOGETHER for all of its samples
TOGETHER = -1
EVALUATED = "evaluated.jsonl"  # sorts behind the ranks' files


def key_of(record: Record) -> Key:
    """What a record is of."""
    return record["index"], TOGETHER if "samples" in record else record.get("sample", 0)


def merge(records: Mapping[Key, Record]) -> dict[int, Record]:
    """One record of each image by index, as if it had one sample.

    Its numbers are the means over its samples that did not fail, and what was measured of them together lies beside them. An
    image of which no sample could be restored is failed as its first one is.
    """
    images: dict[int, list[Record]] = {}
    for key in sorted(records):
        images.setdefault(key[0], []).append(records[key])
    return {index: _merged(lines) for index, lines in images.items() if any("samples" not in line for line in lines)}


def _merged(lines: list[Record]) -> Record:
    """An image's record of its lines."""
    samples = [line for line in lines if "samples" not in line]
    whole = [line for line in samples if "failed" not in line] or samples[:1]
    merged = {key: value for key, value in whole[0].items() if key != "sample"}
    if len(samples) == 1:
        return merged
    for key, value in merged.items():
        values = [line[key] for line in whole if _is_number(line.get(key))]
        if key != "index" and _is_number(value) and len(values) == len(whole):
            merged[key] = math.fsum(values) / len(values)
    for line in lines:
        if line.get("samples") == len(samples):  # else it is of fewer, from before the run went on with more
            merged.update(line)
    return merged


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


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
        if not isinstance(record, dict) or not isinstance(record.get("name"), str):
            continue
        if all(type(number) is int for number in (record.get("index"), record.get("sample", 0), record.get("samples", 0))):
            yield record


def finished_samples(root: Path, evaluated: bool = True) -> dict[Key, Record]:
    """The records in a run folder of which the restoration is there as well.

    Args:
        root: the run folder.
        evaluated: let the numbers of `cclight evaluate` go before the run's own.
    """
    records: dict[Key, Record] = {}
    for path in sorted((root / "records").glob("*.jsonl")):
        if evaluated or path.name != EVALUATED:
            records.update({key_of(record): record for record in read_lines(path)})
    if (root / "restored").is_dir():
        folders = [root / kind for kind in ("restored", "samples", "std")]
        there = {f"{folder.name}/{name}" for folder in folders if folder.is_dir() for name in os.listdir(folder)}
        records = {key: record for key, record in records.items() if "failed" in record or _result(root, record) in there}
    return dict(sorted(records.items()))


def _result(root: Path, record: Record) -> str:
    """The file that a restoration is, or what is written last of an image's samples together; inside the folder."""
    (index, sample), name = key_of(record), record["name"]
    if sample == TOGETHER:
        path = picture_of(root, "std", index, name).with_suffix(".npy")
    else:
        path = picture_of(root, "restored", index, name, sample)
        path = path.with_suffix(".npy") if "units" in record else path
    return f"{path.parent.name}/{path.name}"


def lines_of(records: Iterable[Record]) -> bytes:
    """The records as lines."""
    return "".join(json.dumps(record) + "\n" for record in records).encode()
