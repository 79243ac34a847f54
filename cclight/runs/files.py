"""Files that are there whole or not at all."""

from __future__ import annotations

import contextlib
import io
import os
from pathlib import Path
from typing import TYPE_CHECKING

from cclight.errors import RunError

if TYPE_CHECKING:
    from torch import Tensor


def write_whole(path: Path, content: bytes) -> None:
    """Write a file so that, whatever happens, it is there whole or not at all.

    Raises:
        RunError: when the disk is full, the folder unwritable or the like; no partial file stays behind.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with open(temporary, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError as error:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise write_error(path, error) from error


def encode_array(values: Tensor) -> bytes:
    """An array of any shape as the content of an .npy file."""
    import numpy as np

    buffer = io.BytesIO()
    np.save(buffer, np.ascontiguousarray(values.detach().cpu().numpy()), allow_pickle=False)
    return buffer.getvalue()


def write_error(path: Path, error: OSError) -> RunError:
    """The error for a file that cannot be written, with the remedy."""
    return RunError(
        f"Could not write {path} ({error.strerror}): what is finished is kept; mend the cause and run the same command again."
    )
