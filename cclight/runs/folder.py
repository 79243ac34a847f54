"""A run folder: what `cclight predict` leaves behind, and what lets it be killed at any moment.

    runs/<name>/
      config.yaml              the resolved configuration
      restored/00007_astronaut.png   measurement/...   clean/...
      rows/                    the rows of the grid, grid.png
      records/00000.jsonl      one line per finished image: index, name and numbers; one file per rank
      records/evaluated.jsonl  the same of `cclight evaluate`, which go before
      metrics.json, metrics.csv      written last: a folder that holds metrics.json is finished

Files are written under a temporary name and renamed, so that each is there whole or not at all. Records are appended, a line at
a time; half a line, which a kill can leave, is ignored. An image is finished when its record and its picture are both there.

A lock file guards the folder: rank r holds the lock on byte r, and the operating system lets go of it when the process ends,
however it ends. It is a POSIX record lock because those work across machines on NFS and are not inherited by loader workers.
"""

from __future__ import annotations

import errno
import io
import json
import os
import re
import shutil
import socket
import time
import warnings
from collections.abc import Iterable, Iterator, Mapping
from datetime import datetime
from pathlib import Path, PurePath
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from torch import Tensor
from cclight.data.formats import SUFFIXES
from cclight.errors import RunError
from cclight.runs.files import write_error, write_whole
from cclight.runs.pictures import encode_picture

Kind = Literal["restored", "measurement", "clean", "rows"]


KINDS: tuple[Kind, ...] = ("restored", "measurement", "clean", "rows")


Record = dict[str, Any]


# What may change between a run and its resumption: nothing that a restored image or a metric depends on.
_FREE = ("config", "run", "trainer", "images", "metrics.distances")  # distances are measured anew on the saved pictures


_FREE_DATA = ("data.batch_size", "data.num_workers", "data.pin_memory", "data.prefetch_factor", "data.persistent_workers")


_BOUND = ("trainer.precision",)


# How long a new run waits for what is left of a killed one: its other ranks stop after their current batch.
_PATIENCE_SECONDS = 60.0


class RunFolder:
    """The folder of one run. Rank 0 calls `open`, every other rank `join`; then all write into it.

    Args:
        name: the run's name; the folder is root/name.
        root: the folder that holds all runs.
        overwrite: delete the results that the folder holds, and start anew.
        resume: go on even if the folder holds a finished run, computing only what is missing. An unfinished run needs no such
            word: the same command resumes it.
    """

    def __init__(self, name: str, root: str = "runs", overwrite: bool = False, resume: bool = False) -> None:
        self.path = Path(root) / name
        self.overwrite = overwrite
        self.resume = resume
        self.rank = 0
        self._lock: int | None = None
        self._run = ""
        self._records: io.FileIO | None = None

    def __getstate__(self) -> dict[str, Any]:
        # Open files and locks belong to a process: a copy that is sent to another one joins there.
        return {**vars(self), "_lock": None, "_records": None}

    def open(self, config: str) -> None:
        """Make or resume the folder, before any long work. For rank 0 alone.

        Args:
            config: the resolved configuration as YAML; stored beside the results.

        Raises:
            RunError: when another run uses the folder, it holds a finished run or one of another configuration, or it cannot be
                written to.
        """
        self._make(self.path)
        self.acquire()
        try:
            self._claim(config)
        except BaseException:
            self.close()
            raise

    def join(self, rank: int) -> None:
        """Enter the folder that rank 0 has opened: for the other ranks, after a barrier. Does nothing the second time.

        Raises:
            RunError: when the folder is not there, as on a node that does not share the file system.
        """
        self.rank = rank
        if not (self.path / "config.yaml").is_file():
            raise RunError(
                f"Rank {rank} does not see the run folder {self.path}: open the run on rank 0 first, on a file system that all "
                f"nodes share."
            )
        if rank > 0 and self._lock is None:
            self._lock = self._open_lock()
            self._take(start=rank, length=1, patience=_PATIENCE_SECONDS)
            self._run = self._holder()

    def close(self) -> None:
        """Let go of the folder. The end of the process does the same."""
        if self._records is not None:
            self._records.close()
            self._records = None
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None
            _held.discard(self.path.resolve())

    # Writing

    def file(self, kind: Kind, index: int, name: str) -> Path:
        """The path of an image's picture, named by its index and its source's name: restored/00007_astronaut.png."""
        stem = PurePath(name).stem if PurePath(name).suffix.lower() in SUFFIXES else PurePath(name).name
        slug = re.sub(r"[^\w.-]+", "_", stem).strip("_.")[:60]
        return self.path / kind / (f"{index:05d}_{slug}.png" if slug else f"{index:05d}.png")

    def make(self, kind: Kind) -> None:
        """Make the folder for a kind of pictures. Raises RunError when it cannot be made."""
        self._make(self.path / kind)

    def write_image(self, kind: Kind, index: int, name: str, image: Tensor) -> Path:
        """Write a picture, (C, H, W) in [-1, 1] or uint8. Raises RunError when it cannot be written."""
        path = self.file(kind, index, name)
        if not path.parent.is_dir():
            self.make(kind)
        write_whole(path, encode_picture(image))
        return path

    def append(self, records: Iterable[Record]) -> None:
        """Note images as finished, on disk when this returns; each record holds at least `index` and `name`.

        Raises:
            RunError: when the disk is full or the like; or when this rank has outlived its run and another one has begun.
        """
        if self.rank > 0 and self._holder() != self._run:
            raise RunError(f"Rank {self.rank} stops: {self._holder()} has taken over the run in {self.path}.")
        path = self.path / "records" / f"{self.rank:05d}.jsonl"
        try:
            if self._records is None:
                self._records = _open_lines(path)
            lines = memoryview("".join(json.dumps(record) + "\n" for record in records).encode())
            while lines:  # unbuffered, and so perhaps in parts
                lines = lines[self._records.write(lines) :]
            os.fsync(self._records.fileno())
        except OSError as error:
            raise write_error(path, error) from error

    def replace(self, records: Iterable[Record]) -> None:
        """Let these records go before the ranks' own, until the run is resumed. Raises RunError when they cannot be written."""
        self._make(self._evaluated.parent)
        write_whole(self._evaluated, "".join(json.dumps(record) + "\n" for record in records).encode())

    # Reading

    @property
    def _evaluated(self) -> Path:
        return self.path / "records" / "evaluated.jsonl"  # sorts behind the ranks' files

    def finished(self) -> dict[int, Record]:
        """The records of all finished images by index. They grow with the work: ranks read them between two barriers."""
        records: dict[int, Record] = {}
        for path in sorted((self.path / "records").glob("*.jsonl")):
            records.update({record["index"]: record for record in _read_lines(path)})
        if (self.path / "restored").is_dir():
            pictures = set(os.listdir(self.path / "restored"))
            records = {
                index: record
                for index, record in records.items()
                if "failed" in record or self.file("restored", index, record["name"]).name in pictures
            }
        return dict(sorted(records.items()))

    # The parts of open

    def _claim(self, config: str) -> None:
        done, kept = self.path / "metrics.json", self.path / "config.yaml"
        if self.overwrite:
            self._clear()
        if done.exists() and not self.resume:
            raise RunError(
                f"{self.path} already holds a finished run: choose another run.name, or set run.overwrite to true to replace "
                f"it, or run.resume to true to compute what it lacks."
            )
        if kept.exists():
            differing = differences(kept.read_text(encoding="utf-8"), config)
            if differing:
                raise RunError(
                    f"{self.path} holds a run of another configuration ({'; '.join(differing)}): choose another run.name, or "
                    f"set run.overwrite to true to replace it."
                )
        elif any((self.path / part).exists() for part in (*KINDS, "records", "metrics.json")):
            raise RunError(
                f"{self.path} holds results without their config.yaml, which cannot be resumed: choose another run.name, or "
                f"set run.overwrite to true to replace them."
            )
        try:
            for stale in self.path.rglob(".*.tmp"):
                stale.unlink(missing_ok=True)
            # Until the end it is unfinished again; the records still hold every number.
            done.unlink(missing_ok=True)
            self._evaluated.unlink(missing_ok=True)
        except OSError as error:
            raise write_error(Path(error.filename), error) from error
        write_whole(kept, config.encode())
        self._make(self.path / "records")

    def _clear(self) -> None:
        """Delete what a run writes and nothing else, the configuration last."""
        try:
            for part in (*KINDS, "records"):
                if (self.path / part).is_dir():
                    shutil.rmtree(self.path / part)
            for part in ("metrics.json", "metrics.csv", "grid.png", "config.yaml"):
                (self.path / part).unlink(missing_ok=True)
        except OSError as error:
            raise RunError(f"Could not delete the old results in {self.path} ({error.strerror}): delete the folder.") from error

    def _make(self, folder: Path) -> None:
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise RunError(
                f"Could not make the folder {folder} ({error.strerror}): set run.root to a folder you can write to."
            ) from error

    # The lock

    def acquire(self) -> None:
        """Lock the folder against other runs, and nothing else; `close` lets go of it.

        Raises:
            RunError: when another run uses the folder, or it cannot be written to.
        """
        if self.path.resolve() in _held:  # record locks do not see a second run of the same process
            raise RunError(self._busy(self._holder()))
        self._lock = self._open_lock()
        if not self._take(start=0, length=1, patience=0):
            holder = self._holder()
            os.close(self._lock)
            self._lock = None
            raise RunError(self._busy(holder))
        _held.add(self.path.resolve())
        try:
            os.ftruncate(self._lock, 0)
            os.pwrite(self._lock, f"process {os.getpid()} on {socket.gethostname()} since {datetime.now()}\n".encode(), 0)
        except OSError as error:
            self.close()
            raise write_error(self.path / ".lock", error) from error
        # The new name tells what is left of a killed run to stop.
        if not self._take(start=1, length=0, patience=_PATIENCE_SECONDS):
            self.close()
            raise RunError(self._busy("what is left of a killed run, which stops after its current batch"))
        self._try_lock(start=1, length=0, release=True)

    def _busy(self, holder: str) -> str:
        return f"{self.path} is in use by {holder}: wait for it to end, or choose another run.name."

    def _open_lock(self) -> int:
        try:
            return os.open(self.path / ".lock", os.O_RDWR | os.O_CREAT, 0o666)
        except OSError as error:
            raise write_error(self.path / ".lock", error) from error

    def _holder(self) -> str:
        """Who holds the folder, as it wrote into the lock file."""
        if self._lock is None:
            return f"process {os.getpid()}"
        return os.pread(self._lock, 200, 0).decode(errors="replace").strip() or "another process"

    def _take(self, start: int, length: int, patience: float) -> bool:
        """Lock bytes of the lock file (length 0: to the end), waiting `patience` seconds at most; tell whether it worked."""
        deadline = time.monotonic() + patience
        while (outcome := self._try_lock(start, length)) == "busy" and time.monotonic() < deadline:
            time.sleep(0.1)
        if outcome == "none":
            warnings.warn(f"{self.path} lies on a file system without locks: keep two runs out of it yourself.", stacklevel=2)
        return outcome != "busy"

    def _try_lock(self, start: int, length: int, release: bool = False) -> Literal["done", "busy", "none"]:
        """Try once to lock, or release, bytes of the lock file: done, busy, or this system has no locks."""
        assert self._lock is not None
        try:
            import fcntl

            fcntl.lockf(self._lock, fcntl.LOCK_UN if release else fcntl.LOCK_EX | fcntl.LOCK_NB, length, start)
        except ImportError:
            return "none"
        except OSError as error:
            return "busy" if error.errno in (errno.EACCES, errno.EAGAIN) else "none"
        return "done"


_held: set[Path] = set()


def _open_lines(path: Path) -> io.FileIO:
    """Open a file of lines for appending, unbuffered; a last line that a kill cut short is closed off."""
    file = open(path, "a+b", buffering=0)  # noqa: SIM115 - stays open for the run
    if file.seek(0, os.SEEK_END) > 0:
        file.seek(-1, os.SEEK_END)
        if file.read(1) != b"\n":
            file.write(b"\n")
    return file


def _read_lines(path: Path) -> Iterator[Record]:
    for line in path.read_bytes().split(b"\n"):
        try:
            record = json.loads(line)
        except ValueError:
            continue
        if isinstance(record, dict) and "index" in record and "name" in record:
            yield record


def _flatten(tree: Any, prefix: str = "") -> dict[str, Any]:
    if isinstance(tree, Mapping):
        return {
            k: v for key, value in tree.items() for k, v in _flatten(value, f"{prefix}.{key}" if prefix else str(key)).items()
        }
    return {prefix: tree}


def differences(kept: str, config: str) -> list[str]:
    """What differs between two configurations in YAML and would change results, at most three, in words."""
    import yaml

    def relevant(key: str) -> bool:
        inside = [key == part or key.startswith(part + ".") for part in (*_FREE, *_FREE_DATA)]
        return key in _BOUND or not any(inside)

    old, new = _flatten(yaml.safe_load(kept) or {}), _flatten(yaml.safe_load(config) or {})
    keys = [key for key in sorted(old.keys() | new.keys()) if relevant(key) and old.get(key) != new.get(key)]
    words = [f"{key} is {old.get(key)!r} there, {new.get(key)!r} here" for key in keys[:3]]
    return [*words, f"and {len(keys) - 3} more"] if len(keys) > 3 else words
