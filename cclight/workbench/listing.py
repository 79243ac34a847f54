"""`cclight list`: what there is, one line each, with what it needs. Answers from the source alone, without importing torch."""

from __future__ import annotations

import argparse
from collections.abc import Callable

from cclight.cli import packaged_configs
from cclight.workbench.catalogue import Entry, family

_FAMILIES = {"samplers": "Sampler", "operators": "Operator", "priors": "Prior", "sources": "Source", "metrics": "ImageMetric"}
_KINDS = {"SpectralOperator": "spectral", "LinearOperator": "linear"}


def main(arguments: list[str]) -> None:
    """`cclight list [samplers|operators|priors|sources|metrics|configs]`."""
    parser = argparse.ArgumentParser(prog="cclight list", description="List what YAML may name, with what it needs.")
    parser.add_argument("what", nargs="*", choices=[[], *_FAMILIES, "configs"], help="one or more; none lists all")
    wanted = parser.parse_args(arguments).what or [*_FAMILIES, "configs"]
    for place, what in enumerate(wanted):
        rows = configs() if what == "configs" else [(e.name, needs(what, e), e.summary) for e in family(_FAMILIES[what])]
        if len(wanted) > 1:
            print(f"{'' if place == 0 else chr(10)}{what}")
        widths = [max(len(row[column]) for row in rows) for column in (0, 1)]
        for name, need, summary in rows:
            middle = f"{need:<{widths[1]}}  " if widths[1] else ""
            print(f"{name:<{widths[0]}}  {middle}{summary}".rstrip())


def needs(what: str, entry: Entry) -> str:
    """What a class needs, or what kind of operator it is, in a few words.

    Args:
        what: the family's name, such as `samplers`.
        entry: the class.
    """
    kinds: dict[str, Callable[[Entry], str]] = {
        "samplers": lambda e: f"{_KINDS.get(e.settings.get('requires', ''), 'any')} operator",
        "operators": lambda e: next((word for base, word in _KINDS.items() if base in e.bases), "nonlinear"),
    }
    words = [kinds[what](entry)] if what in kinds else []
    if entry.required:
        words.append("needs " + ", ".join(entry.required))
    if entry.extra:
        words.append(f"pip install cclight[{entry.extra}]")
    return "; ".join(words)


def configs() -> list[tuple[str, str, str]]:
    """The packaged configurations: name, nothing, and the first line of their comment."""
    folder = packaged_configs()
    rows = []
    for path in sorted(folder.rglob("*.yaml"), key=lambda path: (len(path.parts), path)):
        first = path.read_text(encoding="utf-8").partition("\n")[0]
        rows.append((path.relative_to(folder).as_posix(), "", first.removeprefix("#").strip() if first[:1] == "#" else ""))
    return rows
