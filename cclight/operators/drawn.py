"""Masks and kernels as people keep them: drawn in a picture of any depth, with or without transparency, or saved as numbers."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from cclight.errors import one_line

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor

NUMBERS = frozenset({".npy", ".npz", ".pt", ".pth", ".safetensors", ".mat", ".h5", ".hdf5"})
# Of a mask's pixels, so many may lie in the middle half between black and white: soft and compressed edges.
_UNDECIDED = 0.25


class Drawn(NamedTuple):
    """What a file holds: brightness (H, W) in float64, opacity (H, W) in [0, 1] or None, and white's value or None.

    A mask's array may have other sides, those of signals or volumes.
    """

    values: np.ndarray
    alpha: np.ndarray | None = None
    white: float | None = None


def read_kept(path: str | Path, invert: bool = False) -> np.ndarray:
    """Which pixels a drawn mask keeps.

    White is kept and black is missing, wherever black and white lie in the file's own range (0 and 1, 0 and 255, floats). Of a
    mask with transparency:

    - a picture with erased parts keeps what is opaque;
    - white strokes alone are kept, and what is transparent around them is missing;
    - strokes of one other colour alone are missing, and what is transparent around them is kept;
    - of black and white beside transparent parts, the white is kept.

    Args:
        path: a picture, or an array file (.npy, .mat and others).
        invert: keep what would be missing, and the reverse.

    Returns:
        (H, W) bool; of an array as it is, also (C, H, W) and the sides of signals and volumes.

    Raises:
        FileNotFoundError: where there is no such file.
        ValueError: where it is no mask, or keeps all or nothing.
    """
    drawn = read_drawn(path, "mask")
    kept = _opaque(drawn) if drawn.alpha is not None else _bright(drawn.values, path)
    kept = ~kept if invert else kept
    if kept.all():
        raise ValueError(
            f"The mask {path} leaves nothing to fill in: draw what is missing in black, and what is kept in white."
        )
    if not kept.any():
        raise ValueError(f"The mask {path} keeps no pixel: draw what is kept in white, and what is missing in black.")
    return kept


def read_drawn(path: str | Path, kind: str) -> Drawn:
    """A picture's brightness, or that of an array file.

    Args:
        path: the file.
        kind: what it is to be, "mask" or "kernel", for messages.

    Raises:
        FileNotFoundError: where there is no such file.
        ValueError: where it holds nothing of the kind.
    """
    import numpy as np

    file = Path(path).expanduser()
    if not file.is_file():
        raise FileNotFoundError(f"There is no {kind} file {path}: give a picture, or an array file (.npy, .mat and others).")
    try:
        drawn = _numbers(file, flat=kind != "mask") if file.suffix.lower() in NUMBERS else _picture(file)
        if not np.isfinite(drawn.values).all():
            raise ValueError("it holds NaN or infinity")
    except Exception as error:  # broken files: see cclight.data.decoding
        wanted = "give a picture, or an array file (.npy, .mat and others) of one array"
        reason = one_line(error)
        told = reason if reason.startswith(f"{file} ") else f"{path} cannot be read ({reason})"
        raise ValueError(f"The {kind} file {told}: {wanted}.") from error
    return drawn


def tensor_of(values: Tensor | np.ndarray, what: str) -> Tensor:
    """A tensor or an array as a float64 tensor on the CPU.

    Args:
        values: of any numeric type.
        what: "A mask" or the like, for the message.

    Raises:
        TypeError: for anything else.
        ValueError: where it holds NaN or infinity.
    """
    import numpy as np
    import torch

    if isinstance(values, torch.Tensor):
        tensor = values.detach().cpu().double()
    else:
        array = np.asarray(values)
        if array.dtype.kind not in "biuf":
            raise TypeError(
                f"{what} is a tensor, an array or an object that draws it, got {type(values).__name__} {values!r:.80}."
            )
        tensor = torch.from_numpy(np.ascontiguousarray(array, dtype=np.float64))
    if not tensor.isfinite().all():
        raise ValueError(f"{what} holds NaN or infinity.")
    return tensor


def _picture(file: Path) -> Drawn:
    import numpy as np

    from cclight.data.pixels import read_stored

    stored = read_stored(file.read_bytes())
    values = stored.values.astype(np.float64)
    if values.shape[2] == 4:  # inks
        values = (255 - values[..., :3]) * (1 - values[..., 3:] / 255)
    return Drawn(values @ ([0.299, 0.587, 0.114] if values.shape[2] == 3 else [1.0]), stored.alpha, stored.top)


def _numbers(file: Path, flat: bool) -> Drawn:
    """The array of a file, among a few numbers its only plane; one that is to be `flat` has two sides."""
    import numpy as np

    from cclight.data.array_files import open_arrays, tensor_of

    held = open_arrays(file)
    planes = [array for array in held.values() if len(array.shape) == 2 and min(array.shape) > 1]
    if len(held) != 1 and len(planes) != 1:
        named = ", ".join(f"{name} ({'×'.join(map(str, array.shape))})" for name, array in held.items()) or "nothing"
        raise ValueError(f"one two-dimensional array of numbers is wanted, and it holds {named}")
    (chosen,) = held.values() if len(held) == 1 else planes
    array = tensor_of(chosen).numpy()
    if array.dtype.kind not in "biuf":
        raise ValueError(f"its array holds {array.dtype}, not numbers")
    squeezed = np.squeeze(array) if array.ndim > 2 else array
    if squeezed.ndim != 2 and not flat and array.ndim:
        squeezed = array
    elif squeezed.ndim != 2:
        raise ValueError(f"its array is {'×'.join(map(str, array.shape))}, not two-dimensional")
    return Drawn(squeezed.astype(np.float64))


def _bright(values: np.ndarray, path: str | Path) -> np.ndarray:
    """What is white, of values without transparency."""
    low, high = float(values.min()), float(values.max())
    middle = (low + high) / 2
    if low == high:  # one colour says no more than black or white
        return values > 0
    if not ((values == low) | (values == high)).all():
        undecided = _undecided(values)
        if undecided > _UNDECIDED or high - low < 0.1 * max(abs(low), abs(high)):
            raise ValueError(
                f"The mask {path} is neither black nor white in {undecided:.0%} of it, with values from {low:g} to {high:g}: "
                "give a picture in black and white."
            )
    return values >= middle


def _opaque(drawn: Drawn) -> np.ndarray:
    """What is kept, of a mask with transparency."""
    import numpy as np

    assert drawn.alpha is not None
    opaque = drawn.alpha >= 0.5
    strokes = drawn.values[opaque]
    white = drawn.white or 1.0
    if not strokes.size:
        return opaque
    if np.ptp(strokes) <= 0.05 * white:
        return opaque if strokes.mean() >= 0.9 * white else ~opaque
    drawn_in_two = np.minimum(np.abs(strokes), np.abs(strokes - white)).max() <= 0.05 * white
    return opaque & (drawn.values >= white / 2) if drawn_in_two else opaque


def _undecided(values: np.ndarray) -> float:
    """The share of the values that lie in the middle half of their range."""
    low, span = values.min(), values.max() - values.min()
    return float((abs(values - low - span / 2) < span / 4).mean())
