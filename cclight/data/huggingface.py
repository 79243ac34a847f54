"""HFDataset: a split of a Hugging Face data set, on the hub or here."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import cached_property, partial
from pathlib import Path
from typing import Any

from cclight.data.decoding import decode, read_content
from cclight.data.sources import Entry, Photograph, Source, safe_name
from cclight.errors import one_line


class HFDataset(Source):
    """A split of a Hugging Face data set: on the hub, or a folder of parquet, arrow or image files, or made by `save_to_disk`.

    Streaming reads the rows in order and keeps no copy on disk. Only counting numbers the rows of a stream, so every worker of
    every process reads all of it and decodes its own share: n processes of m workers download it n · m times. Where that
    matters, set a limit or do without streaming. A folder made by `save_to_disk` is memory-mapped and needs no streaming.

    Args:
        path: the data set's name on the hub ("owner/name"), or a folder.
        split: the name of the split, such as "validation"; without streaming also "validation[:100]".
        streaming: read rows as they come instead of preparing a copy on disk first.
        image_column: the column of images; None takes the only one there is.
        name: the data set's configuration, where it has several.
        label_column: the column of classes (ClassLabel or integers), for priors that know them; None for none.
    """

    def __init__(
        self,
        path: str | Path,
        split: str,
        streaming: bool = False,
        image_column: str | None = None,
        name: str | None = None,
        label_column: str | None = None,
    ) -> None:
        self.path = path
        self.split = split
        self.streaming = streaming
        self.image_column = image_column
        self.name = name
        self.label_column = label_column

    @cached_property
    def _rows(self) -> Any:
        """The data set with the column of images, left encoded, and that of labels where it is asked for."""
        from datasets import Image as ImageFeature

        dataset = self._open()
        column = self._column(dataset.features)
        labels = [] if self.label_column is None else [self._label_column(dataset.features)]
        return dataset.select_columns([column, *labels]).cast_column(column, ImageFeature(decode=False))

    def _open(self) -> Any:
        import datasets

        folder = Path(self.path).expanduser()
        if not folder.is_dir() and (str(self.path).startswith((".", "/", "~")) or str(self.path).count("/") > 1):
            raise FileNotFoundError(f"HFDataset finds no folder {self.path}: give a folder, or a name on the hub (owner/name).")
        try:
            if (folder / "dataset_dict.json").is_file() or (folder / "state.json").is_file():
                return self._saved(datasets.load_from_disk(folder))
            return datasets.load_dataset(folder.as_posix(), self.name, split=self.split, streaming=self.streaming)
        except FileNotFoundError as error:  # datasets' own errors of this kind are subclasses, too
            wanted = "file that datasets reads" if folder.is_dir() else "data set of that name, here or on the hub,"
            raise FileNotFoundError(f"HFDataset finds no {wanted} at {self.path} ({one_line(error)}).") from error
        except ValueError as error:
            raise ValueError(f"HFDataset cannot open split {self.split!r} of {self.path}: {one_line(error)}") from error
        except ConnectionError as error:
            raise ConnectionError(
                f"HFDataset finds no folder {self.path} and no hub ({one_line(error)}): give a folder, or connect."
            ) from error

    def _saved(self, saved: Any) -> Any:
        if isinstance(saved, dict):
            if self.split not in saved:
                raise ValueError(f"it holds {', '.join(saved)}.")
            return saved[self.split]
        # A data set saved alone may have lost its split's name: then any name will do, but not a slice, which it cannot give.
        held = str(saved.split or self.split.partition("[")[0])
        if held != self.split:
            raise ValueError(f"it holds {held}.")
        return saved

    def _column(self, features: Any) -> str:
        from datasets import Image as ImageFeature

        if features is None:
            raise ValueError(f"{self.path} does not tell its columns while streaming: set streaming to false.")
        images = [name for name, feature in features.items() if isinstance(feature, ImageFeature)]
        # Encoded files that nobody marked as images: bare bytes, or the pair {bytes, path}.
        encoded = [
            name
            for name, feature in features.items()
            if (isinstance(feature, dict) and "bytes" in feature) or getattr(feature, "dtype", "") in ("binary", "large_binary")
        ]
        if self.image_column is not None and self.image_column in (*images, *encoded):
            return self.image_column
        if self.image_column is None and len(images) == 1:
            return images[0]
        asked = "image_column is not set" if self.image_column is None else f"{self.image_column!r} is no column of images"
        raise ValueError(
            f"{asked}; {self.path} has the columns {', '.join(features)}, images in: {', '.join(images) or 'none'}. "
            "Set image_column to one of these."
        )

    def _label_column(self, features: Any) -> str:
        from datasets import ClassLabel

        fits = [n for n, f in features.items() if isinstance(f, ClassLabel) or "int" in str(getattr(f, "dtype", ""))]
        if self.label_column not in fits:
            raise ValueError(
                f"label_column {self.label_column!r} is no column of classes of {self.path}; there are "
                f"{', '.join(fits) or 'none'}: set label_column to one, or leave it out."
            )
        return str(self.label_column)

    @cached_property
    def _labels(self) -> list[int | None]:
        """The label of every row of a data set that is counted."""
        return [] if self.label_column is None else list(self._rows.select_columns([self.label_column])[:][self.label_column])

    @property
    def _counted(self) -> bool:
        from datasets import Dataset

        return isinstance(self._rows, Dataset)

    def _cells(self) -> Iterator[tuple[Callable[[], Any], int]]:
        """How to get each row's encoded image, and its label."""
        if self._counted:
            for index in range(len(self._rows)):
                yield partial(self._cell, index), _known(self._labels[index] if self._labels else None)
        else:
            # `iter(batch_size)`, not `iter()`: the latter gives each DataLoader worker other shards, and who would number them?
            for batch in self._rows.iter(batch_size=16):
                column, *labels = batch.values()
                for place, cell in enumerate(column):
                    yield partial(_same, cell), _known(labels[0][place] if labels else None)

    def _cell(self, index: int) -> Any:
        return next(iter(self._rows[index].values()))

    def __iter__(self) -> Iterator[Entry]:
        for index, (cell, label) in enumerate(self._cells()):
            place = f"row {index} of {self.path} (split {self.split})"
            yield Entry(index, place, partial(self._load, index, place, cell), partial(_stored, cell), label)

    def __len__(self) -> int:
        if not self._counted:
            raise TypeError(f"{self!r} is streamed: only its end tells its length.")
        return len(self._rows)

    @staticmethod
    def _load(index: int, place: str, cell: Callable[[], Any]) -> Photograph:
        name = f"{index:06d}"

        def read() -> bytes:
            nonlocal name
            encoded = cell()
            if encoded is None:
                raise ValueError("the row has none")
            name = safe_name(Path(_file_name(encoded)).stem) or name
            return _bytes(encoded)

        return Photograph.of(decode(place, read), index, name)


def _stored(cell: Callable[[], Any]) -> bytes:
    """A row's image as it is stored, with its name before it."""
    encoded = cell()
    return b"" if encoded is None else _file_name(encoded).encode() + b"\0" + _bytes(encoded)


def _file_name(encoded: dict[str, Any]) -> str:
    return Path((encoded["path"] or "").partition("::")[0]).name  # a.png::archive.zip


def _bytes(encoded: dict[str, Any]) -> bytes:
    return encoded["bytes"] if encoded["bytes"] is not None else _fetch(encoded["path"])


def _fetch(path: str) -> bytes:
    """A file that a row names: here, inside an archive, or on the hub."""
    if Path(path).exists():
        return read_content(path)
    from datasets.utils.file_utils import xopen

    with xopen(path, "rb") as file:
        return file.read()


def _known(label: int | None) -> int:
    return -1 if label is None else int(label)


def _same(value: Any) -> Any:
    return value
