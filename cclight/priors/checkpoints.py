"""Checkpoints: which are known, how they are fetched, and how they are loaded without running anything that they hold.

A checkpoint is data, a `Card` (cards.py). `resolve` turns a name, a path or hf://owner/repository/file into a local file,
downloading it once; `load_state` reads it with weights_only (or safetensors); `fill` puts it into a network or says what does
not fit.
"""

from __future__ import annotations

import difflib
import pickle
import re
import warnings
import zipfile
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from cclight.priors.cards import CARDS, Card
from cclight.priors.download import CheckpointError, download, verify


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


def published(url: str) -> Path:
    """The file at a publisher's address, in the cache under its own name, downloaded on first use.

    By torch's convention a name such as squeezenet1_1-b8a52dc0.pth ends in the first digits of the file's sha256, which a
    download must have.

    Raises:
        CheckpointError: where it cannot be fetched or has another checksum.
    """
    name = url.rsplit("/", 1)[-1]
    digits = re.search(r"-([0-9a-f]{8,64})\.", name)
    return download(url, cache_folder() / name, digits[1] if digits else None)


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
    if file.is_dir():
        raise CheckpointError(f"{file} is a folder, not a checkpoint: name the file in it.")
    if file.exists() and not file.is_file():
        raise CheckpointError(f"{file} is a pipe or a device, not a checkpoint: save it as a file first.")
    with open(file, "rb") as stream:
        head = stream.read(64)
    beginning = head.removeprefix(b"\xef\xbb\xbf").lstrip().lower()
    if beginning.startswith((b"<!doctype", b"<html", b"<?xml")):
        raise CheckpointError(f"{file} is a web page, not a checkpoint: delete it and fetch the file that the page links to.")
    if beginning.startswith(b"version https://git-lfs"):
        raise CheckpointError(f"{file} is a pointer to a checkpoint, not the checkpoint: fetch it with `git lfs pull`.")
    mapped = zipfile.is_zipfile(file)
    try:
        if mapped:
            _refuse_bombs(file)
        if file.suffix == ".safetensors":
            from safetensors.torch import load_file

            state = load_file(file)
        else:
            # A zip file is mapped, not read: tensors that nothing touches (an optimizer's) cost no memory.
            state = torch.load(file, map_location="cpu", weights_only=True, mmap=mapped)
    except CheckpointError:
        raise
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


def _refuse_bombs(file: Path) -> None:
    """Torch stores the parts of its zip files as they are: one whose parts are larger than the file unpacks without an end."""
    with zipfile.ZipFile(file) as archive:
        unpacked = sum(part.file_size for part in archive.infolist())
    if unpacked > file.stat().st_size:
        raise CheckpointError(
            f"{file} ({file.stat().st_size} bytes) is a zip file that unpacks to {unpacked} bytes, which no checkpoint does: "
            f"fetch it anew from where it should come from."
        )


def _unreadable(file: Path) -> CheckpointError:
    size = file.stat().st_size
    return CheckpointError(f"{file} ({size} bytes) is truncated or no checkpoint: delete it and fetch it again.")


def fill(network: nn.Module, state: Mapping[str, Any], source: Path) -> None:
    """Put weights into a network built on the meta device, in float32, and freeze it.

    Args:
        network: the network; its parameters become those of the checkpoint.
        state: a tensor for every key of the network's state_dict, and no other; or a container of that kind (`unwrap`).
        source: the file they come from, for the error.

    Raises:
        CheckpointError: with the first few keys that are missing, unexpected, of another shape or not finite.
    """
    assign(network, state, source)
    network.requires_grad_(False).eval()


def assign(network: nn.Module, state: Mapping[str, Any], source: Path) -> None:
    """As `fill`, and leave the network as trainable as it was.

    Raises:
        CheckpointError: with the first few keys that are missing, unexpected, of another shape or not finite.
    """
    expected = network.state_dict()
    state = unwrap(state, expected, source)
    complaints = []
    for what, keys in (
        ("missing", [key for key in expected if key not in state]),
        ("unexpected", [key for key in state if key not in expected]),
        ("of another shape", [_shapes(k, v, state[k]) for k, v in expected.items() if k in state and _differ(v, state[k])]),
    ):
        if keys:
            complaints.append(f"{len(keys)} keys {what} ({_few(keys)})")
    if complaints:
        raise CheckpointError(
            f"{source} does not fit {type(network).__name__}: {'; '.join(complaints)}. "
            f"Set the architecture to the checkpoint's, or take the checkpoint that belongs here."
        )
    check_finite(state, source)
    network.load_state_dict({key: value.float() for key, value in state.items()}, assign=True)


def check_finite(state: Mapping[str, Tensor], source: Path) -> None:
    """Refuse weights of which one is NaN or infinite: whatever a network makes of them is NaN.

    Raises:
        CheckpointError: with the first few keys.
    """
    broken = [key for key, value in state.items() if not bool(value.isfinite().all())]
    if broken:
        raise CheckpointError(
            f"{source} holds values that are not finite in {len(broken)} of {len(state)} weights ({_few(broken)}): "
            f"its training diverged, or it is damaged; take another checkpoint."
        )


def unwrap(state: Mapping[str, Any], expected: Collection[str], source: Path) -> Mapping[str, Any]:
    """The weights inside what training programs save: under `ema`, `state_dict` or `model`, or with a prefix as `module.`.

    Averaged weights go before others. What was taken is said in a warning, where there was anything to choose.

    Args:
        state: a state_dict, or dictionaries that hold one.
        expected: the network's keys.
        source: the file, for the warning.

    Returns:
        Weights by the network's own keys; `state` itself where nothing in it looks like them.
    """
    if not expected or not state.keys() - set(expected):
        return state
    wanted = set(expected)
    fits = []
    for place, tensors in _state_dicts(state):
        for prefix in _prefixes(tensors, wanted):
            if all(prefix + key in tensors for key in wanted):
                averaged = "ema" in place.lower() or "ema" in prefix.lower()
                fits.append((not averaged, len(place) + len(prefix), place, prefix, tensors))
    if not fits:
        return state
    _, _, place, prefix, tensors = min(fits, key=lambda fit: fit[:2])
    where = " and ".join([*([f"its entry {place}"] if place else []), *([f"the prefix {prefix}"] if prefix else [])])
    if where:
        others = "" if len(fits) == 1 else f", one of {len(fits)} sets of weights in it"
        warnings.warn(f"{source}: the weights under {where} were taken{others}.", stacklevel=2)
        return {key: tensors[prefix + key] for key in expected}
    return state


def _state_dicts(state: Mapping[str, Any], place: str = "", depth: int = 3) -> Iterator[tuple[str, Mapping[str, Any]]]:
    yield place, state
    for key, value in state.items():
        if depth and isinstance(value, Mapping):
            yield from _state_dicts(value, f"{place}.{key}" if place else str(key), depth - 1)


def _prefixes(tensors: Mapping[str, Any], wanted: set[str]) -> list[str]:
    """What stands before one of the network's keys, whichever it is."""
    one = max(wanted, key=len)
    return [key.removesuffix(one) for key in tensors if isinstance(key, str) and key.endswith(one)]


def _few(keys: list[str]) -> str:
    return f"{', '.join(map(str, keys[:3]))}{', ...' if len(keys) > 3 else ''}"


def _differ(expected: Tensor, found: Any) -> bool:
    return not isinstance(found, Tensor) or found.shape != expected.shape


def _shapes(key: str, expected: Tensor, found: Any) -> str:
    return f"{key}: {tuple(getattr(found, 'shape', ()))} for {tuple(expected.shape)}"
