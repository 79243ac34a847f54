"""MaskFolder: a mask for each picture, found by its name."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path

from torch import Tensor

from cclight.operators.drawn import NUMBERS
from cclight.operators.masks import Mask, MaskFile


class MaskFolder(Mask):
    """A folder with a mask for each picture, which has the picture's name, with any suffix.

    Args:
        path: the folder; the masks of pictures in subfolders lie in such subfolders.
        invert: black is kept, white is missing.

    Raises:
        FileNotFoundError: where there is no such folder.
    """

    per_image = True

    def __init__(self, path: str, invert: bool = False) -> None:
        if not Path(path).expanduser().is_dir():
            raise FileNotFoundError(f"There is no folder of masks {path}: give a folder, or one mask for all to MaskFile.")
        self.path = path
        self.invert = invert

    def __call__(self, image_shape: tuple[int, ...]) -> Tensor:
        raise ValueError(f"The masks in {self.path} belong to pictures: Inpainting.of(name) has the operator of one.")

    def of(self, name: str, parameters: Mapping[str, Tensor] | None = None, file: str | None = None) -> MaskFile:
        """The mask of a picture.

        Args:
            name: the picture's, as its source gives it.
            parameters: its further arrays, which do not matter.
            file: the picture's file name, which decides between several masks.

        Raises:
            FileNotFoundError: where there is no such mask.
            ValueError: where several fit, or the file is no mask.
        """
        found = self._files.get(name, [])
        found = [path for path in found if path.name == file] or found
        if not found:
            raise FileNotFoundError(
                f"There is no mask for {file or name} in the folder {self.path}: it would be called {name}.png."
            )
        if len(found) > 1:
            names = ", ".join(path.name for path in found)
            raise ValueError(f"{file or name} has several masks in {self.path}: {names}. Keep one of them.")
        return MaskFile(str(found[0]), self.invert)

    @cached_property
    def _files(self) -> dict[str, list[Path]]:
        from cclight.data.formats import SUFFIXES
        from cclight.data.sources import safe_name

        folder = Path(self.path).expanduser()
        files: dict[str, list[Path]] = defaultdict(list)
        for path in sorted(folder.rglob("*")):
            if path.suffix.lower() in SUFFIXES | NUMBERS and path.is_file():
                files[safe_name(path.relative_to(folder).with_suffix("").as_posix())].append(path)
        return files


def mask_for(picture: str | Path, masks: str | Path, invert: bool = False) -> MaskFile:
    """The mask of a picture's file: one mask's file, for all pictures; or of a folder as `MaskFolder` takes it.

    Raises:
        FileNotFoundError: where there is no such mask.
        ValueError: where several fit, or the file is no mask.
    """
    from cclight.data.sources import safe_name

    if not Path(masks).expanduser().is_dir():
        return MaskFile(str(masks), invert)
    return MaskFolder(str(masks), invert).of(safe_name(Path(picture).stem), file=Path(picture).name)
