"""`cclight list`: names, one line each, with what they need. Read from the source text, so that it answers without torch."""

from __future__ import annotations

import argparse
import ast
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import cclight
from cclight.commands.arguments import PlainParser
from cclight.configs import packaged_configs

# Each kind's rooms, and the bases there that are no members themselves.
KINDS: dict[str, tuple[str, tuple[str, ...]]] = {
    "samplers": ("samplers.", ("FromNoise", "Sampler", "Grid")),
    "operators": ("operators.", ("Operator", "LinearOperator", "SpectralOperator")),
    "priors": ("priors.", ("Prior", "NoiseConditioned", "AngularVelocity", "Autoencoder", "DiffusersAutoencoder")),
    "sources": ("data.", ("Source", "RestorationDataModule", "Batch", "PatchDataModule")),
    "metrics": ("metrics.image", ("ImageMetric",)),
}
_NEEDS = {"Operator": "any operator", "LinearOperator": "a linear operator", "SpectralOperator": "a spectral operator"}
_CAPABILITIES = {"SpectralOperator": "spectral", "LinearOperator": "linear", "Operator": "nonlinear"}
_EXTRAS = {
    "AzulaPrior": "cclight[azula]",
    "DeepinvPrior": "cclight[deepinv]",
    "DiffusersPrior": "cclight[diffusers]",
    "DiffusersFlow": "cclight[diffusers]",
    "StableDiffusion": "cclight[latent]",
    "Flux": "cclight[latent]",
    "Sana": "cclight[latent]",
    "DeepinvPhysics": "cclight[deepinv]",
    "CodecCompression": "cclight[codec]",
}


@dataclass(frozen=True)
class Entry:
    """One line of a list.

    Attributes:
        name: what YAML calls it.
        needs: what it needs, or for an operator what it is.
        line: the first line of its docstring, or of the configuration.
    """

    name: str
    needs: str
    line: str


def parser() -> argparse.ArgumentParser:
    """The command line."""
    made = PlainParser("cclight list", description="List what configurations may name.")
    made.add_argument("kind", nargs="?", choices=(*KINDS, "configs"), help="what to list; everything without it")
    return made


def main(arguments: list[str]) -> None:
    """`cclight list`."""
    options = parser().parse_args(arguments)
    chosen = [options.kind] if options.kind else [*KINDS, "configs"]
    for kind in chosen:
        entries = configs() if kind == "configs" else members(kind)
        if len(chosen) > 1:
            print(f"{kind}:")
        name, needs = (max(len(getattr(entry, part)) for entry in entries) for part in ("name", "needs"))
        for entry in entries:
            print(f"  {entry.name:<{name}}  {entry.needs:<{needs}}  {entry.line}".rstrip())


def members(kind: str) -> list[Entry]:
    """The public classes of a kind, in the order of the rooms.

    Args:
        kind: one of KINDS.
    """
    room, bases = KINDS[kind]
    found = []
    for name, home in cclight._HOME.items():
        if not home.startswith(room) or name in bases:
            continue
        if kind == "operators" and "Operator" not in _ancestors(name):
            continue  # a mask or a kernel
        docstring = ast.get_docstring(_class(name)) or ""
        found.append(Entry(name, _needs(kind, name), docstring.partition("\n")[0]))
    return found


def configs() -> list[Entry]:
    """The packaged configurations with the comment that each begins with."""
    folder = packaged_configs()
    entries = []
    for path in sorted(folder.rglob("*.yaml"), key=lambda path: (len(path.parts), path)):
        first = path.read_text(encoding="utf-8").partition("\n")[0]
        entries.append(Entry(path.relative_to(folder).as_posix(), "", first.lstrip("# ") if first.startswith("#") else ""))
    return entries


def _needs(kind: str, name: str) -> str:
    if kind == "samplers":
        return _NEEDS[_required(name)]
    needs = []
    if kind == "operators":
        needs.append(next(word for base, word in _CAPABILITIES.items() if base in _ancestors(name)))
    if name in _EXTRAS:
        needs.append(_EXTRAS[name])
    if kind == "priors" and _has_argument(name, "checkpoint"):
        needs.append("a checkpoint")
    return ", ".join(needs)


@cache
def _tree(room: str) -> ast.Module:
    path = Path(cclight.__file__).parent / (room.replace(".", "/") + ".py")
    return ast.parse(path.read_text(encoding="utf-8"))


@cache
def _class(name: str) -> ast.ClassDef:
    """A class's source: of a public one in its room, of another wherever an operator is defined."""
    rooms = [cclight._HOME[name]] if name in cclight._HOME else [r for r in cclight._ROOMS if r.startswith("operators.")]
    nodes = [node for room in rooms for node in _tree(room).body]
    return next(node for node in nodes if isinstance(node, ast.ClassDef) and node.name == name)


def _bases(name: str) -> list[str]:
    return [base.id for base in _class(name).bases if isinstance(base, ast.Name)]


def _ancestors(name: str) -> set[str]:
    """The names of the operators that a class inherits from."""
    if name in KINDS["operators"][1]:
        return {"Operator"} if name != "Operator" else set()
    known = [base for base in _bases(name) if base.endswith("Operator") or base[0] == "_" or base in cclight._HOME]
    return {*known, *(ancestor for base in known for ancestor in _ancestors(base))}


def _required(name: str) -> str:
    """The name that a sampler, or the one it inherits from, assigns to `requires`."""
    for statement in _class(name).body:
        targets = statement.targets if isinstance(statement, ast.Assign) else []
        if any(isinstance(target, ast.Name) and target.id == "requires" for target in targets):
            assert isinstance(statement, ast.Assign)
            assert isinstance(statement.value, ast.Name)
            return statement.value.id
    base = _bases(name)[0]
    return "Operator" if base == "Sampler" else _required(base)


def _has_argument(name: str, argument: str) -> bool:
    functions = [node for node in _class(name).body if isinstance(node, ast.FunctionDef) and node.name == "__init__"]
    return any(arg.arg == argument for function in functions for arg in [*function.args.args, *function.args.kwonlyargs])
