"""`cclight list`: what there is to choose from, a line each, and what it needs. Imports neither torch nor the classes."""

from __future__ import annotations

import re
from collections.abc import Callable
from itertools import takewhile

from cclight.cli import packaged_configs
from cclight.workbench.arguments import Parser
from cclight.workbench.catalogue import Description, public

Line = tuple[str, str, str]


def parser() -> Parser:
    """The command's arguments."""
    parser = Parser("list", "Print what there is to choose from: names, a line each, and what they need.")
    parser.add_argument("kind", nargs="?", choices=list(KINDS), help="one kind alone; without it, all of them")
    return parser


def main(arguments: list[str]) -> None:
    """`cclight list`: print names, one line each, with what they need."""
    kind = parser().parse_args(arguments).kind
    for place, name in enumerate([kind] if kind else KINDS):
        if kind is None:
            print(f"{chr(10) if place else ''}{name}:")
        print(aligned(KINDS[name]()))


def samplers() -> list[Line]:
    """The samplers, and the least capable operator that each works with."""

    def takes(one: Description) -> str:
        least = one.attribute("requires") or "Operator"
        return "any operator" if least == "Operator" else f"needs {_article(least)}"

    return [(one.name, one.summary, needs(one, takes(one))) for one in public("Sampler")]


def operators() -> list[Line]:
    """The operators, and what each gives to a sampler."""

    def gives(one: Description) -> str:
        return next(kind for kind in ("SpectralOperator", "LinearOperator", "Operator") if one.is_a(kind))

    return [(one.name, one.summary, needs(one, f"is {_article(gives(one))}")) for one in public("Operator")]


def priors() -> list[Line]:
    """The priors."""
    return [(one.name, one.summary, needs(one)) for one in public("Prior")]


def configs() -> list[Line]:
    """The configurations that travel with the package: what `--config` takes by name, with their comment's first sentence."""
    folder = packaged_configs()
    paths = sorted(folder.rglob("*.yaml"), key=lambda path: (len(path.parts), path))
    return [(path.relative_to(folder).as_posix(), _first_sentence(path.read_text(encoding="utf-8")), "") for path in paths]


KINDS: dict[str, Callable[[], list[Line]]] = {
    "samplers": samplers,
    "operators": operators,
    "priors": priors,
    "configs": configs,
}


def needs(one: Description, first: str = "") -> str:
    """What a class needs, in words: `first`, the arguments that must be given, the optional packages."""
    words = [first, f"give {', '.join(one.demands)}" if one.demands else "", one.extra and f"pip install 'cclight[{one.extra}]'"]
    return "; ".join(word for word in words if word)


def aligned(lines: list[Line]) -> str:
    """Lines of three columns as text: the name, the summary, and in brackets what is needed."""
    width = max(len(name) for name, _, _ in lines)
    return "\n".join(f"{name:<{width}}  {summary}{f'  [{need}]' if need else ''}".rstrip() for name, summary, need in lines)


def _first_sentence(yaml: str) -> str:
    """The first sentence of the comment that a file begins with, or its first line where there is none."""
    lines = yaml.splitlines() or [""]
    comment = " ".join(line.lstrip("# ") for line in takewhile(lambda line: line.startswith("#"), lines)) or lines[0]
    return re.split(r"\.(?: (?=[A-Z])|$)", comment)[0]


def _article(word: str) -> str:
    return f"{'an' if word[0] in 'AEIOU' else 'a'} {word}"
