"""Configurations: finding them by name, in the current folder or inside the package."""

from __future__ import annotations

from pathlib import Path

from cclight.errors import UsageError, suggestion


def with_packaged_configs(arguments: list[str]) -> list[str]:
    """Replace the name of a configuration that travels with the package by its path, where no such file lies here.

    Raises:
        UsageError: when neither the file nor a packaged configuration of that name exists.
    """
    resolved = list(arguments)
    for place, argument in enumerate(arguments):
        if argument == "--config" and place + 1 < len(arguments):
            resolved[place + 1] = str(find_config(arguments[place + 1]))
        elif argument.startswith("--config="):
            resolved[place] = f"--config={find_config(argument.removeprefix('--config='))}"
    return resolved


def find_config(name: str) -> Path:
    """The configuration file of a name: a file here, or one that travels with the package (`sr.yaml`, `configs/sr.yaml`).

    Raises:
        UsageError: when there is none.
    """
    if Path(name).is_file():
        return Path(name)
    folder = packaged_configs()
    known = {path.relative_to(folder).as_posix(): path for path in sorted(folder.rglob("*.yaml"))}
    wanted = name.removeprefix("configs/")
    if wanted in known:
        return known[wanted]
    packaged = ": packaged are " + ", ".join(known)
    raise UsageError(f"no configuration {name}{suggestion(wanted, known) or packaged}")


def packaged_configs() -> Path:
    """The folder of the configurations: inside an installed package, beside it in a checkout."""
    here = Path(__file__).resolve().parent
    return here / "configs" if (here / "configs").is_dir() else here.parent / "configs"
