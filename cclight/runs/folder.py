"""A run folder: what `cclight predict` leaves behind, and what lets it be killed at any moment.

    runs/<name>/
      config.yaml              the resolved configuration
      restored/00007_astronaut.png   measurement/...   clean/...   maps/...
      restored/00007_scan.npy        the same of arrays, in their own units, beside a picture where there is one to show
      samples/00007_astronaut_001.png, ...   further restorations of the same measurement; the first one is in restored/
      mean/00007_astronaut.png       of all of them, and std/00007_astronaut.png with std/00007_astronaut.npy
      rows/                    the rows of the grid, grid.png
      records/00000.jsonl      one line per restoration: index, name, content and numbers; one file per rank
      records/evaluated.jsonl  the same of `cclight evaluate`, which go before
      records/files.json       the hashes of the files that the configuration names
      metrics.json, metrics.csv      written last: a folder that holds metrics.json is finished
      .locks/                  see cclight.runs.lock

Files are written under a temporary name and renamed, so that each is there whole or not at all. Records are appended, a line at
a time; half a line, which a kill can leave, is ignored. An image is finished when its record and its picture are both there.
Threads write, in this order: a record follows the pictures that were handed over before it. With several samples each has its
record, and one more is of all of them together (`cclight.runs.records`).

A record is valid for the content that it was made from, not for a place or a path. It holds the hash of its picture: where the
source has another picture at that number now, the image is computed again, and what was made of the other one is deleted. So
after a file was added that sorts first, every later picture has another number and is computed again: an image's noise belongs
to its number, and the results are those of a run that began with the new source. A file of the configuration (weights, a mask,
a kernel, a list) that has changed is a change of the configuration: the run is refused.

Nothing that a person put into the folder is ever deleted.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Collection, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from cclight.errors import RunError
from cclight.runs.files import encode_array, write_error, write_whole
from cclight.runs.inputs import differences, files_of
from cclight.runs.layout import KINDS, PICTURE, RECORDS, TEMPORARY, Kind, check_strangers, clear, index_of, picture_of, written
from cclight.runs.lock import FOLDER as LOCKS
from cclight.runs.lock import RunLock
from cclight.runs.naming import check_name
from cclight.runs.pictures import encode_picture
from cclight.runs.records import EVALUATED, Key, Record, append_lines, finished_samples, lines_of, merge
from cclight.runs.writer import Writer

if TYPE_CHECKING:
    from torch import Tensor


class RunFolder:
    """The folder of one run. Rank 0 calls `open`, every other rank `join`; then all write into it.

    On ranks that may not all see one folder, `cclight.runs.nodes.enter` does what `join` does.

    Args:
        name: the run's name; the folder is root/name.
        root: the folder that holds all runs.
        overwrite: delete the results that the folder's run left, and start anew.
        resume: go on even if the folder holds a finished run, computing only what is missing. An unfinished run needs no such
            word: the same command resumes it.
    """

    def __init__(self, name: str, root: str = "runs", overwrite: bool = False, resume: bool = False) -> None:
        self.name = name
        self.path = Path(root) / name
        self.overwrite = overwrite
        self.resume = resume
        self.rank = 0
        self.homes: dict[int, int] = {}  # by rank: the one that opened its folder, 0 unless told otherwise
        self.config = ""  # which it was opened with
        self.lock = RunLock(self.path)
        self._writer = Writer()
        self._begun = False  # whether a record was added: the run is unfinished

    def __getstate__(self) -> dict[str, Any]:
        # A lock belongs to a process: a copy that is sent to another one joins there.
        return {**vars(self), "lock": RunLock(self.path)}

    def open(self, config: str) -> None:
        """Make or resume the folder, before any long work. For rank 0 alone, or the first one that shares it.

        Args:
            config: the resolved configuration as YAML; stored beside the results.

        Raises:
            RunError: when the name leads out of the root, the folder holds files that no run wrote, another run uses it, it
                holds a finished run or one of another configuration, or it cannot be written to.
            ValueError: for a configuration that holds no settings.
        """
        check_name(self.name)
        check_strangers(self.path)
        self._make(self.path)
        self.lock.acquire()
        try:
            self._claim(config)
        except BaseException:
            self.close()
            raise
        self.config = config

    @property
    def leads(self) -> bool:
        """Whether this rank is the one of those that share the folder that opens and ends it."""
        return self.homes.get(self.rank, 0) == self.rank

    def rename(self, name: str) -> None:
        """Take another name, of a folder under the same root."""
        if name != self.name:
            self.name, self.path = name, self.path.parent / name
            self.lock = RunLock(self.path)

    def acquire(self) -> None:
        """Lock the folder against other runs, and nothing else; `close` lets go of it.

        Raises:
            RunError: when another run uses the folder, or it cannot be written to.
        """
        self.lock.acquire()

    def join(self, rank: int) -> None:
        """Enter the folder that another rank has opened, after a barrier. Does nothing the second time.

        Raises:
            RunError: when the folder is not there.
        """
        self.rank = rank
        if not (self.path / "config.yaml").is_file():
            raise RunError(
                f"Rank {rank} does not see the run folder {self.path}: open the run on rank 0 first, on a file system that all "
                f"ranks share, or let `cclight.runs.nodes.enter` open one for each node."
            )
        if rank > 0 and not self.lock.held:
            self.lock.join(rank)

    def close(self) -> None:
        """Write what is waiting, and let go of the folder.

        Raises:
            RunError: when something could not be written; the folder is let go of all the same.
        """
        try:
            self.flush()
        finally:
            self._begun = False
            self.lock.release()

    def abandon(self) -> None:
        """After a failure: let go, and leave nothing behind where no image was finished."""
        with contextlib.suppress(Exception):  # a thread may have met the failure itself
            self.flush()
        if self.lock.held and self.leads and not self.finished():
            with contextlib.suppress(RunError, OSError):
                clear(self.path)
                self.close()
                for file in (self.path / LOCKS).iterdir():
                    file.unlink()
                for folder in (self.path / LOCKS, self.path):
                    folder.rmdir()
        self.close()

    # Writing

    def file(self, kind: Kind, index: int, name: str, sample: int = 0) -> Path:
        """The path of an image's picture: `cclight.runs.layout.picture_of`."""
        return picture_of(self.path, kind, index, name, sample)

    def make(self, kind: Kind) -> None:
        """Make the folder for a kind of pictures. Raises RunError when it cannot be made."""
        self._make(self.path / kind)

    def write_image(self, kind: Kind, index: int, name: str, image: Tensor, depth: Literal[8, 16] = 8, sample: int = 0) -> Path:
        """Write a picture, soon: (C, H, W) in [-1, 1] with so many bits a channel, or uint8. It must not change until then.

        Returns:
            The picture's path; it is there after `flush`.

        Raises:
            RunError: when this or an earlier one cannot be written.
        """
        path = self.file(kind, index, name, sample)
        self._write(path, image, lambda: encode_picture(image, depth=depth))
        return path

    def array(self, kind: Kind, index: int, name: str, sample: int = 0) -> Path:
        """The path of an image's array, beside its picture: restored/00007_scan.npy."""
        return self.file(kind, index, name, sample).with_suffix(".npy")

    def write_array(self, kind: Kind, index: int, name: str, values: Tensor, sample: int = 0) -> Path:
        """Write an array of any shape as .npy, soon, as `write_image` a picture."""
        path = self.array(kind, index, name, sample)
        self._write(path, values, lambda: encode_array(values))
        return path

    def prepare(self, size: int, action: Callable[[], None]) -> None:
        """Do something that writes pictures and arrays, soon, on a thread and one after the other.

        Args:
            size: how many bytes it keeps in memory until then.
            action: calls `write_image` and `write_array`.

        Raises:
            RunError: as `append`; what the action raises is raised here or by what is called next.
        """
        self._writer.prepare(size, action)

    def _write(self, path: Path, values: Tensor, content: Callable[[], bytes]) -> None:
        self._make(path.parent)
        self._writer.write(path, values.nbytes, content)

    def flush(self) -> None:
        """Wait until all pictures and records are on disk. Raises RunError when one could not be written."""
        self._writer.flush()

    def append(self, records: Iterable[Record]) -> None:
        """Note images as finished, soon, when their pictures are on disk; each record holds at least `index` and `name`.

        Raises:
            RunError: when the disk is full or the like; or when this rank has outlived its run and another one has begun. Here,
                or by what is called next.
        """
        kept = list(records)
        self.then(lambda: self.note(kept))

    def then(self, action: Callable[[], None]) -> None:
        """Do something, soon and on a thread, once everything that was handed over is on disk.

        Raises:
            RunError: as `append`; what the action raises is raised here or by what is called next.
        """
        self._writer.then(action)

    def note(self, records: Iterable[Record]) -> None:
        """`append`, at once: for what `then` does."""
        self.lock.check(self.rank)
        if not self._begun:
            self.reopen()
            self._begun = True
        append_lines(self.path / "records" / f"{self.rank:05d}.jsonl", lines_of(records))

    def replace(self, records: Iterable[Record]) -> None:
        """Let these records go before the ranks' own, until the run is resumed. Raises RunError when they cannot be written."""
        self._make(self._evaluated.parent)
        write_whole(self._evaluated, lines_of(records))

    def keep(self, indices: Collection[int]) -> None:
        """Forget every other image, its record and its pictures. For the rank that leads, before any record is added.

        Raises:
            RunError: when the folder cannot be written to.
        """
        self.flush()
        records = self.samples(evaluated=False)
        kept = [record for (index, _), record in records.items() if index in indices]
        try:
            if len(kept) < len(records):
                # In one file, whole: a record that is gone must not come back from another rank's file.
                files = [file for file in written(self.path / "records", RECORDS) if file.name != "files.json"]
                write_whole(self.path / "records" / "00000.jsonl", lines_of(kept))
                for file in files:
                    if file.name != "00000.jsonl":
                        file.unlink(missing_ok=True)
                self.reopen()
            for kind in KINDS:
                for file in written(self.path / kind, PICTURE):
                    if index_of(file) not in indices:
                        file.unlink(missing_ok=True)
        except OSError as error:
            raise write_error(Path(error.filename or self.path), error) from error

    def reopen(self) -> None:
        """Let the run be unfinished again, because its images will change; the records still hold every number.

        Raises:
            RunError: when the folder cannot be written to.
        """
        try:
            for file in (self.path / "metrics.json", self._evaluated):
                file.unlink(missing_ok=True)
        except OSError as error:
            raise write_error(Path(error.filename), error) from error

    # Reading

    @property
    def _evaluated(self) -> Path:
        return self.path / "records" / EVALUATED

    def finished(self, evaluated: bool = True) -> dict[int, Record]:
        """One record by index of each image of which a restoration is finished: `samples`, merged."""
        return merge(self.samples(evaluated))

    def samples(self, evaluated: bool = True) -> dict[Key, Record]:
        """The records of all finished restorations. They grow with the work: ranks read them between two barriers.

        Args:
            evaluated: let the numbers of `cclight evaluate` go before the run's own.
        """
        return finished_samples(self.path, evaluated)

    # The parts of open

    def _claim(self, config: str) -> None:
        import yaml

        done, kept, listed = self.path / "metrics.json", self.path / "config.yaml", self.path / "records" / "files.json"
        files = files_of(config)
        if self.overwrite:
            clear(self.path)
        elif done.exists() and not self.resume and self.rank == 0:  # whose folder is finished last, so that it speaks for all
            raise RunError(
                f"{self.path} already holds a finished run: choose another run.name, or set run.overwrite to true to replace "
                f"it, or run.resume to true to compute what it lacks."
            )
        elif all("failed" in record for record in self.finished().values()):
            clear(self.path)  # an earlier try restored nothing: it has no claim to the name
        if kept.exists():
            try:
                kept_files = json.loads(listed.read_text(encoding="utf-8")) if listed.exists() else {}
                differing = differences(kept.read_text("utf-8"), config, kept_files=kept_files, files=files, growing=True)
            except (yaml.YAMLError, ValueError, AttributeError) as error:
                differing = [f"its config.yaml cannot be read: {type(error).__name__}"]
            if differing:
                raise RunError(
                    f"{self.path} holds a run of another configuration ({'; '.join(differing)}): choose another run.name, or "
                    f"set run.overwrite to true to replace it."
                )
        try:
            if not done.exists():
                self.reopen()
            for folder in (self.path, *(self.path / part for part in (*KINDS, "records"))):
                for stale in folder.glob(".*.tmp"):
                    if TEMPORARY.fullmatch(stale.name):
                        stale.unlink(missing_ok=True)
        except OSError as error:
            raise write_error(Path(error.filename), error) from error
        self._make(listed.parent)
        write_whole(kept, config.encode())
        write_whole(listed, json.dumps(files, indent=2).encode())

    def _make(self, folder: Path) -> None:
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise RunError(
                f"Could not make the folder {folder} ({error.strerror}): set run.root to a folder you can write to."
            ) from error
