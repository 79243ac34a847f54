"""Configurations: finding them by name, in the current folder or inside the package, and reading them before any work."""

from __future__ import annotations

import codecs
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from cclight.errors import UsageError, suggestion

if TYPE_CHECKING:
    from yaml import Node

LARGEST = 100_000  # values of a configuration, aliases counted as often as they stand; a real one has a few hundred


def with_packaged_configs(arguments: list[str]) -> list[str]:
    """Replace the name of a configuration that travels with the package by its path, where no such file lies here.

    Raises:
        UsageError: when neither the file nor a packaged configuration of that name exists, or the file is no configuration.
    """
    resolved = list(arguments)
    for place, argument in enumerate(arguments):
        option, equals, value = argument.partition("=")
        if option not in ("--config", "-c"):
            continue
        if equals:
            resolved[place] = f"--config={_checked(value)}"
        elif place + 1 < len(arguments):
            resolved[place : place + 2] = ["--config", str(_checked(arguments[place + 1]))]
    return resolved


def _checked(name: str) -> Path:
    path = find_config(name)
    _tell_of_a_namesake(path)
    read_config(path)
    return path


def find_config(name: str) -> Path:
    """The configuration file of a name: a file here, or one that travels with the package (`sr.yaml`, `configs/sr.yaml`).

    Raises:
        UsageError: when there is none.
    """
    if Path(name).is_file():
        return Path(name)
    known = _packaged()
    wanted = name.removeprefix("configs/")
    if wanted in known:
        return known[wanted]
    if Path(name).is_dir() and name:
        raise UsageError(f"--config takes a YAML file, and {name} is a folder")
    plain = [known_name for known_name in known if "/" not in known_name]
    packaged = f": packaged are {', '.join(plain)} and more (`cclight list configs`)"
    raise UsageError(f"no configuration {name or '(an empty name)'}{suggestion(wanted, known) or packaged}")


def packaged_configs() -> Path:
    """The folder of the configurations: inside an installed package, beside it in a checkout."""
    here = Path(__file__).resolve().parent
    return here / "configs" if (here / "configs").is_dir() else here.parent / "configs"


def _packaged() -> dict[str, Path]:
    folder = packaged_configs()
    return {path.relative_to(folder).as_posix(): path for path in sorted(folder.rglob("*.yaml"))}


def _tell_of_a_namesake(path: Path) -> None:
    """A file here goes before a packaged one; whoever has forgotten that it lies here is told."""
    namesake = _packaged().get(path.as_posix().removeprefix("configs/"))
    first = os.environ.get("LOCAL_RANK", "0") == "0"  # DDP starts the command once for each device
    if first and namesake is not None and not path.is_absolute() and not namesake.samefile(path):
        print(f"cclight: {path} of this folder is taken, not the packaged {namesake.name}", file=sys.stderr)


def read_config(path: Path) -> str:
    """The text of a configuration file, checked by `check_yaml`.

    Raises:
        UsageError: naming the file and the line, where it cannot be read, is not UTF-8, or holds no settings.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise UsageError(f"{path} cannot be read ({error.strerror})") from error
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        utf16 = content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
        what = "is UTF-16" if utf16 else f"is not UTF-8 (line {content[: error.start].count(10) + 1})"
        raise UsageError(f"{path} {what}: save it as UTF-8") from error
    check_yaml(text, str(path), settings=True)
    return text


def check_yaml(text: str, name: str, settings: bool = False) -> None:
    """Refuse YAML that parsers take silently, or never end with: a key given twice, an anchor that holds itself.

    Args:
        text: the YAML.
        name: what errors call it.
        settings: whether it must be a mapping, as a configuration file.

    Raises:
        UsageError: naming the line.
    """
    import yaml

    try:
        root = yaml.compose(text, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))
    except yaml.MarkedYAMLError as error:
        line = f" in line {error.problem_mark.line + 1}" if error.problem_mark else ""
        raise UsageError(f"{name} is no YAML{line}: {error.problem}") from error
    except yaml.YAMLError as error:
        raise UsageError(f"{name} is no YAML: {' '.join(str(error).split())}") from error
    except RecursionError as error:
        raise UsageError(f"{name} is nested too deeply to be a configuration") from error
    if root is not None:
        _size(root, name, {})
    if settings and not isinstance(root, yaml.MappingNode):
        held = "is empty" if root is None else "holds a list" if isinstance(root, yaml.SequenceNode) else "holds a text"
        raise UsageError(
            f"{name} {held}, where `key: value` lines are expected (`... --config sr.yaml --print_config` shows some)"
        )


def _size(node: Node, name: str, sizes: dict[int, int]) -> int:
    """How many values a node stands for, with its aliases; 0 in `sizes` while it is being counted."""
    import yaml

    line = node.start_mark.line + 1
    if id(node) in sizes:
        if sizes[id(node)] == 0:
            raise UsageError(f"{name}, line {line}: an anchor (&) here holds itself, write the values out")
        return sizes[id(node)]
    if node.tag not in yaml.SafeLoader.yaml_constructors and node.value != "<<":
        raise UsageError(f"{name}, line {line}: unknown tag {node.tag}, leave it out")
    sizes[id(node)] = 0
    children = []
    if isinstance(node, yaml.SequenceNode):
        children = node.value
    elif isinstance(node, yaml.MappingNode):
        first: dict[str, int] = {}
        for key, value in node.value:
            children += [key, value]
            if isinstance(key, yaml.ScalarNode):
                if key.value in first:
                    lines = f"lines {first[key.value]} and {key.start_mark.line + 1}"
                    raise UsageError(f"{name}: the key {key.value} stands twice, in {lines}: delete one")
                first[key.value] = key.start_mark.line + 1
    size = 1 + sum(_size(child, name, sizes) for child in children)
    if size > LARGEST:
        raise UsageError(f"{name}, line {line}: its aliases (*) unfold to more than {LARGEST} values, write out what is meant")
    sizes[id(node)] = size
    return size
