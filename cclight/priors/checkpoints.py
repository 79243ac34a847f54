"""Checkpoints: which are known, how they are fetched, and how they are loaded without running anything that they hold.

A checkpoint is data, a `Card` (cards.py). `resolve` turns a name, a path or hf://owner/repository/file into a local file,
downloading it once; `load_state` reads it with weights_only (or safetensors); `fill` puts it into a network or says what does
not fit.
"""

from __future__ import annotations

import difflib
import pickle
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from cclight.priors.cards import CARDS, Card
from cclight.priors.download import CheckpointError, download, verify

if TYPE_CHECKING:
    pass


def architecture_of(checkpoint: str, prior: str) -> Mapping[str, Any]:
    """The network's arguments for a checkpoint of that prior: of a known name or a file called like a known one; else none.

    Raises:
        CheckpointError: for the name of another prior's checkpoint.
    """
    card = CARDS.get(checkpoint)
    if card is None:
        file = checkpoint.rsplit("/", 1)[-1]
        return next((c.architecture for c in CARDS.values() if c.prior == prior and c.file == file), {})
    if card.prior != prior:
        raise CheckpointError(f"{checkpoint} is a checkpoint of {card.prior}, not of {prior}: set class_path to {card.prior}.")
    return card.architecture


def cache_folder() -> Path:
    """Where checkpoints are kept: torch.hub's folder, which TORCH_HOME moves."""
    return Path(torch.hub.get_dir()) / "checkpoints"


def resolve(checkpoint: str) -> Path:
    """The local file of a checkpoint, downloaded on first use.

    Args:
        checkpoint: a name in `CARDS`, the path of a file, or hf://owner/repository/file (hf://owner/repository@revision/file).

    Raises:
        CheckpointError: where it is unknown, cannot be fetched, or fails its checksum; the message says what to do.
    """
    card = CARDS.get(checkpoint)
    if card is not None:
        return _fetch_card(card)
    if checkpoint.startswith("hf://"):
        return _fetch_from_hub(checkpoint)
    path = Path(checkpoint).expanduser()
    if path.is_file():
        return path
    close = difflib.get_close_matches(checkpoint, CARDS, n=1)
    hint = f"did you mean {close[0]}?" if close else f"give a path, hf://owner/repository/file, or one of {', '.join(CARDS)}."
    raise CheckpointError(f"No checkpoint {checkpoint!r}, neither a known name nor a file: {hint}")


def _fetch_card(card: Card) -> Path:
    target = cache_folder() / card.file
    if target.is_file():
        return target
    if card.by_hand:
        raise CheckpointError(
            f"{card.name} cannot be downloaded by a program: fetch it in a browser from {card.source} and save it as {target}"
        )
    if card.source.startswith("hf://"):
        file = _fetch_from_hub(card.source)
        if card.sha256 is not None:
            verify(file, card.sha256, card.source)
        return file
    return download(card.source, target, card.sha256)


def _fetch_from_hub(address: str) -> Path:
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError

    parts = address.removeprefix("hf://").split("/", 2)
    if len(parts) < 3 or not all(parts):
        raise CheckpointError(f"{address} names no file: write hf://owner/repository/file.")
    owner, repository, file = parts
    repository, _, revision = repository.partition("@")
    try:
        return Path(hf_hub_download(f"{owner}/{repository}", file, revision=revision or None))
    except (OSError, HfHubHTTPError, HFValidationError) as error:
        reason = str(error).strip().split("\n", 1)[0]
        raise CheckpointError(
            f"{address} cannot be fetched ({reason}): check the address and the network, or give the path of a local copy."
        ) from error


def load_state(file: Path) -> dict[str, Any]:
    """Read a checkpoint onto the CPU. Nothing that it holds is executed.

    Args:
        file: a torch file of tensors and plain containers, or a .safetensors file.

    Raises:
        CheckpointError: for a truncated file, one that holds Python objects, or one that is no checkpoint at all.
    """
    with open(file, "rb") as stream:
        head = stream.read(64)
    if head.lstrip().lower().startswith((b"<!doctype", b"<html")):
        raise CheckpointError(f"{file} is a web page, not a checkpoint: delete it and fetch the file that the page links to.")
    try:
        if file.suffix == ".safetensors":
            from safetensors.torch import load_file

            state = load_file(file)
        else:
            # A zip file is mapped, not read: tensors that nothing touches (an optimizer's) cost no memory.
            state = torch.load(file, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(file))
    except pickle.UnpicklingError as error:
        if "Unsupported operand" in str(error) and not head.startswith(pickle.PROTO):
            raise _unreadable(file) from error
        raise CheckpointError(
            f"{file} holds Python objects beside tensors and was refused, nothing of it executed: "
            f"where you trust it, load it yourself and save its state_dict()."
        ) from error
    except Exception as error:  # each format and each damage has its own class
        raise _unreadable(file) from error
    if not isinstance(state, dict):
        raise CheckpointError(f"{file} holds a {type(state).__name__}, not a state_dict: save the model's state_dict().")
    return state


def _unreadable(file: Path) -> CheckpointError:
    size = file.stat().st_size
    return CheckpointError(f"{file} ({size} bytes) is truncated or no checkpoint: delete it and fetch it again.")


def fill(network: nn.Module, state: Mapping[str, Any], source: Path) -> None:
    """Put weights into a network built on the meta device, in float32, and freeze it.

    Args:
        network: the network; its parameters become those of the checkpoint.
        state: a tensor for every key of the network's state_dict, and no other.
        source: the file they come from, for the error.

    Raises:
        CheckpointError: with the first few keys that are missing, unexpected or of another shape.
    """
    expected = network.state_dict()
    complaints = []
    for what, keys in (
        ("missing", [key for key in expected if key not in state]),
        ("unexpected", [key for key in state if key not in expected]),
        ("of another shape", [_shapes(k, v, state[k]) for k, v in expected.items() if k in state and _differ(v, state[k])]),
    ):
        if keys:
            complaints.append(f"{len(keys)} keys {what} ({', '.join(keys[:3])}{', ...' if len(keys) > 3 else ''})")
    if complaints:
        raise CheckpointError(
            f"{source} does not fit {type(network).__name__}: {'; '.join(complaints)}. "
            f"Set the prior's architecture to the checkpoint's, or take the checkpoint that belongs to the prior."
        )
    network.load_state_dict({key: value.float() for key, value in state.items()}, assign=True)
    network.requires_grad_(False).eval()


def _differ(expected: Tensor, found: Any) -> bool:
    return not isinstance(found, Tensor) or found.shape != expected.shape


def _shapes(key: str, expected: Tensor, found: Any) -> str:
    return f"{key}: {tuple(getattr(found, 'shape', ()))} for {tuple(expected.shape)}"
