"""Reading NVlabs' snapshots (`edm-*.pkl`) without running anything that they hold.

Such a file is a pickle of live modules, whose classes the original rebuilds by executing source text stored beside the weights.
Here every name that a pickle may ask for stands in a short table, and behind each name is an inert stand-in that only keeps
what it is given; source text is never looked at. A name outside the table ends the reading.
"""

from __future__ import annotations

import io
import pickle
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from cclight.priors.download import CheckpointError


@dataclass
class Module:
    """What a snapshot says of a module: its class's name and its attributes."""

    class_name: str = ""
    state: dict[str, Any] = field(default_factory=dict)

    def __setstate__(self, state: Any) -> None:
        if not isinstance(state, dict):
            raise pickle.UnpicklingError("a module's state is no dictionary")
        self.class_name, self.state = self.class_name or type(self).__name__, state

    def tensors(self, prefix: str = "") -> dict[str, Tensor]:
        """The module's state_dict: parameters, buffers, then those of its parts."""
        found: dict[str, Tensor] = {}
        for kind in ("_parameters", "_buffers"):
            found |= {prefix + k: v for k, v in self.state.get(kind, {}).items() if isinstance(v, Tensor)}
        for name, part in self.state.get("_modules", {}).items():
            if isinstance(part, Module):
                found |= part.tensors(f"{prefix}{name}.")
        return found


class _Refused(pickle.UnpicklingError):
    """The pickle asks for a name that is not in the table."""


class _Kept:
    """A stand-in that keeps nothing: for numpy's numbers and types, which no weight is made of."""

    def __init__(self, *_: Any) -> None:
        pass

    def __setstate__(self, _: Any) -> None:
        pass


class _Reader(pickle.Unpickler):
    """An unpickler with the table of names. The stand-ins are new for each file: a pickle could set attributes on them."""

    def __init__(self, stream: io.BytesIO) -> None:
        super().__init__(stream)

        def persistent(meta: Any) -> Module:
            if not isinstance(meta, dict) or not isinstance(meta.get("state"), dict):
                raise pickle.UnpicklingError("a persistent object holds no state")
            return Module(str(meta.get("class_name")), meta["state"])

        def tensor(storage: Any, offset: Any, size: Any, stride: Any, *_: Any) -> Tensor:
            return torch._utils._rebuild_tensor(storage, offset, size, stride)

        def from_bytes(data: bytes) -> Any:
            return torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)

        self.table: dict[tuple[str, str], Callable[..., Any]] = {
            ("torch_utils.persistence", "_reconstruct_persistent_obj"): persistent,
            ("torch._utils", "_rebuild_tensor_v2"): tensor,
            ("torch._utils", "_rebuild_parameter"): lambda data, *_: data,
            ("torch.storage", "_load_from_bytes"): from_bytes,
            ("torch.nn.modules.container", "ModuleDict"): type("ModuleDict", (Module,), {}),
            ("collections", "OrderedDict"): OrderedDict,
            ("dnnlib.util", "EasyDict"): type("EasyDict", (dict,), {}),
            ("numpy.core.multiarray", "scalar"): type("scalar", (_Kept,), {}),
            ("numpy._core.multiarray", "scalar"): type("scalar", (_Kept,), {}),
            ("numpy", "dtype"): type("dtype", (_Kept,), {}),
            ("_codecs", "encode"): lambda text, *_: text.encode("latin1"),
            ("builtins", "set"): set,
        }

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in self.table:
            raise _Refused(f"{module}.{name}")
        return self.table[module, name]


class Snapshot(NamedTuple):
    """The averaged network of a snapshot.

    Attributes:
        class_name: what the training code called its class.
        state: its state_dict.
    """

    class_name: str
    state: dict[str, Tensor]


def read_snapshot(file: Path) -> Snapshot:
    """The averaged network (`ema`) of a snapshot. Nothing of the file is executed.

    Args:
        file: a pickle written by NVlabs' EDM training code.

    Raises:
        CheckpointError: for a pickle that asks for anything else, naming it; a truncated file; one without `ema`.
    """
    try:
        content = _Reader(io.BytesIO(file.read_bytes())).load()
        network = content.get("ema") if isinstance(content, dict) else None
        snapshot = Snapshot(network.class_name, network.tensors()) if isinstance(network, Module) else None
    except _Refused as refused:
        raise CheckpointError(
            f"{file} is a pickle that asks for {refused}, which no snapshot of EDM needs: it was refused and nothing of it "
            f"executed. Where you trust it, load it yourself and save its state_dict()."
        ) from refused
    except Exception as error:  # each damage has its own class
        size = file.stat().st_size
        raise CheckpointError(
            f"{file} ({size} bytes) is truncated or no snapshot of EDM: delete it and fetch it again."
        ) from error
    if snapshot is None or not snapshot.state:
        raise CheckpointError(
            f"{file} holds no network under the key ema: give a snapshot (network-snapshot-*.pkl, edm-*.pkl)."
        )
    return snapshot
