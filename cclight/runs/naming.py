"""What a run is called that nobody named: as its configuration, and by what differs where that name is another run's.

`cclight predict --config sr.yaml` is runs/sr. `--config sr.yaml --operator.factor 8` is runs/sr where that is free, and
runs/sr-factor8 where it holds the first one: the same command finds its own folder again.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path, PurePath, PureWindowsPath
from typing import Any

from cclight.errors import RunError
from cclight.runs.inputs import differences

# What a name tells of. The noise level stands in both parts again.
_PARTS = ("operator", "noise_std", "model", "data", "metrics", "trainer.precision")
# What stands elsewhere too, or changes no result; of samples a run may have more tomorrow.
_UNTOLD = ("model.noise_std", "data.noise_std", "data.batch_size", "data.num_workers", "data.samples", "metrics.distances")
_MOST = 4  # differences in a name


def run_name(stem: str, root: str, config: str) -> str:
    """The name of a run in a folder of runs.

    Args:
        stem: what it is called where that is free, or this very run's.
        root: the folder that holds all runs.
        config: the resolved configuration as YAML.
    """
    kept = _kept(Path(root) / stem)
    if kept is None or not differences(kept, config, growing=True):
        return stem
    name = "-".join([stem, *_words(kept, config)])[:80].rstrip("-.")
    number, taken = 1, name if name != stem else f"{stem}-2"
    while (other := _kept(Path(root) / taken)) is not None and differences(other, config, growing=True):
        number += 1
        taken = f"{name}-{number}"
    return taken


def check_name(name: str) -> None:
    """Raises RunError when a name leads out of the folder of runs."""
    for path in (PurePath(name), PureWindowsPath(name)):
        if path.is_absolute() or path.drive or ".." in path.parts or not path.name:
            raise RunError(f"run.name names a folder inside run.root, got {name!r}: set run.root to go elsewhere.")


def _kept(folder: Path) -> str | None:
    """The configuration of the run in a folder; None where there is none, or it has no result to lose."""
    if not any((folder / "records").glob("*.jsonl")) and not (folder / "metrics.json").exists():
        return None
    try:
        return (folder / "config.yaml").read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        return None


def _words(kept: str, config: str) -> list[str]:
    import yaml

    try:
        old, new = (dict(_leaves(yaml.safe_load(text) or {})) for text in (kept, config))
    except yaml.YAMLError:
        return []
    words: list[str] = []
    replaced: list[str] = []
    for key in sorted(new, key=lambda key: (_PARTS.index(_part(key)) if _part(key) else 0, key.count("."), key)):
        told = _part(key) and key not in _UNTOLD and not any(key.startswith(part) for part in replaced)
        if not told or old.get(key) == new[key]:
            continue
        if key.endswith(".class_path"):  # its arguments are another class's: the class alone tells the difference
            replaced.append(key.removesuffix("class_path"))
        words.append(_word(key, new[key]))
    return list(dict.fromkeys(words))[:_MOST]


def _part(key: str) -> str:
    return next((part for part in _PARTS if key == part or key.startswith(f"{part}.")), "")


def _word(key: str, value: Any) -> str:
    """One difference: PiGDM, factor8, noise_std0.05, photographs (of a path), measurements."""
    leaf = key.rpartition(".")[2]
    if isinstance(value, str):
        text = Path(value).stem if "/" in value else value.rpartition(".")[2] if leaf == "class_path" else f"{leaf}-{value}"
    else:
        text = leaf if value is True or isinstance(value, (list, dict)) else f"{leaf}{value}"
    return re.sub(r"[^\w.-]+", "_", text).strip("_.")[:30]


def _leaves(tree: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    if isinstance(tree, Mapping):
        for key, value in tree.items():
            yield from _leaves(value, f"{prefix}{key}.")
    else:
        yield prefix.rstrip("."), tree
