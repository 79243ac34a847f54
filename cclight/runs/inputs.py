"""What a run's results depend on: its configuration, and the content of the files that the configuration names.

A file has changed when its bytes have; its time does not matter. Pictures are not looked at here: each image's record holds
the hash of the picture that it was made from (`cclight.data.sources.Entry.fingerprint`).
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

# What may change between a run and its resumption: nothing that a restored image or a metric depends on.
_FREE = ("config", "run", "trainer", "images", "metrics.distances")  # distances are measured anew on the saved pictures


_FREE_DATA = ("data.batch_size", "data.num_workers", "data.pin_memory", "data.prefetch_factor", "data.persistent_workers")


_BOUND = ("trainer.precision",)


# A run goes on with more samples: those that it has stay what they are.
_GROWING = ("samples", "data.samples")


# Where a folder is a part of the model and not a collection of photographs.
_PARTS = ("operator", "model")


def files_of(config: str) -> dict[str, str]:
    """The hashes of the files, and of the model's folders, that a configuration names.

    Args:
        config: the configuration as YAML; relative paths are of the current folder.

    Returns:
        By the key that names the file, as operator.init_args.mask.init_args.path.

    Raises:
        ValueError: for a configuration that holds no settings: who reads the run later could not read it.
    """
    import yaml

    if not isinstance(yaml.safe_load(config), dict):
        raise ValueError(f"The configuration of a run is `key: value` lines of YAML, got {config[:60]!r}.")
    hashes: dict[str, str] = {}
    for key, value in _values(config).items():
        if not isinstance(value, str) or not _relevant(key):
            continue
        try:
            path = Path(value).expanduser()
            if path.is_file():
                hashes[key] = _hash_of(path)
            elif path.is_dir() and key.split(".")[0] in _PARTS:
                inside = sorted(file for file in path.rglob("*") if file.is_file())
                listed = "".join(f"{file.relative_to(path).as_posix()} {_hash_of(file)}\n" for file in inside)
                hashes[key] = hashlib.blake2b(listed.encode(), digest_size=16).hexdigest()
        except (OSError, ValueError, RuntimeError):  # no path at all, or one that the part itself will refuse
            continue
    return hashes


def differences(
    kept: str,
    config: str,
    *,
    kept_files: Mapping[str, str] | None = None,
    files: Mapping[str, str] | None = None,
    growing: bool = False,
) -> list[str]:
    """What differs between two configurations in YAML and would change results, at most three, in words.

    Args:
        kept: the one of the run.
        config: the other.
        kept_files: the hashes of the files that the first one named, as they were then.
        files: those of the second one; None compares the configurations alone.
        growing: the first one's run goes on as the second one, for which more samples are no difference.
    """
    was, now = kept_files or {}, files or {}
    old, new = _values(kept), _values(config)
    for key in _GROWING if growing else ():
        if old.get(key, 1) <= new.get(key, 1):
            old.pop(key, None), new.pop(key, None)
    keys = [key for key in sorted(old.keys() | new.keys()) if _relevant(key) and old.get(key) != new.get(key)]
    words = [f"{key} is {old.get(key)!r} there, {new.get(key)!r} here" for key in keys]
    changed = [key for key in sorted(was) if key not in keys and was[key] != now.get(key)]
    words += [f"{new.get(key)} ({key}) is no longer what it was there" for key in changed]
    return [*words[:3], f"and {len(words) - 3} more"] if len(words) > 3 else words


def _hash_of(path: Path) -> str:
    stat = path.stat()
    return _hash(str(path.resolve()), stat.st_size, stat.st_mtime_ns)


@lru_cache(maxsize=256)
def _hash(path: str, size: int, changed: int) -> str:
    # The size and the time keep one process, which may open many runs, from reading large weights each time.
    digest = hashlib.blake2b(digest_size=16)
    with open(path, "rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def _relevant(key: str) -> bool:
    return key in _BOUND or not any(key == part or key.startswith(part + ".") for part in (*_FREE, *_FREE_DATA))


def _values(config: str) -> dict[str, Any]:
    import yaml

    return _flatten(yaml.safe_load(config) or {})


def _flatten(tree: Any, prefix: str = "") -> dict[str, Any]:
    if isinstance(tree, list) and any(isinstance(item, Mapping | str) for item in tree):
        tree = dict(enumerate(tree))
    if isinstance(tree, Mapping):
        return {
            k: v for key, value in tree.items() for k, v in _flatten(value, f"{prefix}.{key}" if prefix else str(key)).items()
        }
    return {prefix: tree}
