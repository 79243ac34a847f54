"""What the package holds, read from its source text: listing and citing need no class to be imported, nor torch.

A public class is known by what its source says: the docstring's first line, its bases, the arguments that `__init__` demands, and
class attributes that are written down as they are, such as `reference`.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import cclight

PACKAGE = Path(cclight.__file__).resolve().parent


@dataclass(frozen=True)
class Description:
    """A class as its source describes it.

    Attributes:
        name: the class's name.
        summary: the first line of its docstring, without the full stop.
        bases: the names of its bases.
        abstract: whether it has a method that a subclass must write.
        demands: the arguments without a default.
        attributes: class attributes that are a text or a name, as that text or name.
        extra: the optional extra of cclight that its module asks for, or nothing.
    """

    name: str
    summary: str
    bases: tuple[str, ...]
    abstract: bool
    demands: tuple[str, ...]
    attributes: dict[str, str]
    extra: str

    def lineage(self) -> Iterator[Description]:
        """The class itself and its ancestors inside cclight, nearest first."""
        yield self
        for base in self.bases:
            if base in classes():
                yield from classes()[base].lineage()

    def is_a(self, base: str) -> bool:
        """Whether a class of that name is among its ancestors."""
        return any(base == one.name or base in one.bases for one in self.lineage())

    def attribute(self, name: str) -> str:
        """A class attribute, its own or the nearest ancestor's; nothing where no one has it."""
        return next((one.attributes[name] for one in self.lineage() if name in one.attributes), "")


@cache
def classes() -> dict[str, Description]:
    """Every class in the rooms that hold public names, by name."""
    found = {}
    for room in cclight._ROOMS:
        text = (PACKAGE / f"{room.replace('.', '/')}.py").read_text(encoding="utf-8")
        extra = re.search(r"cclight\[(\w+)\]", text)
        for node in ast.parse(text).body:
            if isinstance(node, ast.ClassDef):
                found[node.name] = _describe(node, extra[1] if extra else "")
    return found


def public(base: str) -> list[Description]:
    """The public concrete classes that descend from the base of that name, in the order of the rooms."""
    names = [name for room, members in cclight._ROOMS.items() if not room.endswith(".base") for name in members]
    known = classes()
    return [known[name] for name in names if name in known and known[name].is_a(base) and not known[name].abstract]


def _describe(node: ast.ClassDef, extra: str) -> Description:
    methods = [item for item in node.body if isinstance(item, ast.FunctionDef)]
    init = next((method.args for method in methods if method.name == "__init__"), None)
    demands: list[str] = []
    if init is not None:
        positional = [argument.arg for argument in [*init.posonlyargs, *init.args][1:]]
        demands = positional[: len(positional) - len(init.defaults)]
        demands += [a.arg for a, default in zip(init.kwonlyargs, init.kw_defaults, strict=True) if default is None]
    return Description(
        name=node.name,
        summary=(ast.get_docstring(node) or "").partition("\n")[0].rstrip("."),
        bases=tuple(ast.unparse(base).rpartition(".")[2] for base in node.bases),
        abstract=any(ast.unparse(d).endswith("abstractmethod") for method in methods for d in method.decorator_list),
        demands=tuple(demands),
        attributes=dict(_attributes(node)),
        extra=extra,
    )


def _attributes(node: ast.ClassDef) -> Iterator[tuple[str, str]]:
    for item in node.body:
        if isinstance(item, ast.Assign) and isinstance(item.targets[0], ast.Name):
            name, value = item.targets[0].id, item.value
        elif isinstance(item, ast.AnnAssign) and isinstance(item.target, ast.Name) and item.value is not None:
            name, value = item.target.id, item.value
        else:
            continue
        if isinstance(value, ast.Constant) and isinstance(value.value, str):
            yield name, value.value
        elif isinstance(value, ast.Name):
            yield name, value.id
