"""The classes that a run's configuration names. Whoever only reads a run imports none but cclight's own."""

from __future__ import annotations

from typing import Any


def class_paths(node: Any) -> list[str]:
    """Every class_path inside a part of a configuration, outermost first."""
    if isinstance(node, list):
        return [path for item in node for path in class_paths(item)]
    if not isinstance(node, dict):
        return []
    own = [node["class_path"]] if "class_path" in node else []
    return [*own, *(path for value in node.values() for path in class_paths(value))]


def is_own(class_path: str) -> bool:
    """Whether a class is one of cclight's public ones. Whoever only reads a run imports no others: it may be anybody's."""
    import cclight

    module, _, name = class_path.rpartition(".")
    return module.partition(".")[0] in ("cclight", "") and name in cclight.__all__
