"""How `cclight predict`, `fit` and `tune` read a configuration, where jsonargparse alone would do something else.

Arguments belong to their class: `--config sr.yaml --model.sampler DPS` is DPS with its own settings. Those that the file gives
to another class stay with that one: their names may agree, their meaning does not. Options stand in any order. YAML is read
strictly (cclight.configs). Help begins with what a user needs; Lightning's own options come with `--help all`.
"""

from __future__ import annotations

import argparse
import math
import os
import re
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import jsonargparse._typehints
from jsonargparse import Namespace, get_loader, set_loader
from lightning.pytorch.cli import LightningArgumentParser

from cclight.configs import check_yaml
from cclight.errors import UsageError

# What stands once, at the top, and is handed to the model and the data.
_LINKED = ("operator", "noise_std", "samples")
_HANDED_ON = re.compile(rf"--(?:model|data)\.(({'|'.join(_LINKED)})(?:\.[\w.]+)?)(?:=|$)")
LARGEST = 1e15  # its square still has a place in float32

# The groups of a parser's help in the order that a user needs them, with their titles; the others follow.
_GROUPS = {
    "options": "Options",
    "model": "The model",
    "operator": "The operator",
    "data": "The photographs",
    "run": "The run",
    "trainer": "Lightning's trainer",
}
_EPILOG = """Classes are named as in `cclight list`; `--model.sampler.help DPS` shows the arguments of one, set by
--model.sampler.NAME or in YAML. `--help all` adds the options of Lightning's trainer, of which --trainer.accelerator,
--trainer.devices, --trainer.precision and --trainer.logger are the usual ones."""


class Parser(LightningArgumentParser):
    """Lightning's parser with a help that is read from its beginning."""

    def parse_args(self, args: Sequence[str] | None = None, *others: Any, **named: Any) -> Namespace:  # type: ignore[override]
        self.full_help = args is not None and list(args)[:2] in (["--help", "all"], ["-h", "all"])
        return super().parse_args(args, *others, **named)

    def format_help(self, formatter: argparse.HelpFormatter | None = None) -> str:
        groups = self.groups or {}
        if "trainer" not in groups:  # of one class, `--model.sampler.help DPS`
            return super().format_help(formatter)
        keys = {id(group): key for key, group in groups.items()} | {id(self._optionals): "options"}
        order = list(_GROUPS)

        def place(group: Any) -> int:
            key = keys.get(id(group))
            return order.index(key) if key in order else len(order)

        for group in self._action_groups:
            group.title = _GROUPS.get(keys.get(id(group), ""), group.title)
            for action in group._group_actions:
                hidden = action.dest.endswith(".help") or action.dest in ("model", "data", "run", "trainer", "seed_everything")
                if not self.full_help and (hidden or place(group) >= order.index("trainer")):
                    action.help = argparse.SUPPRESS
        shown = [group for group in self._action_groups if self.full_help or place(group) < order.index("trainer")]
        self._action_groups = sorted(shown, key=place)
        self.usage = f"{self.prog} --config YAML [--config YAML ...] [--KEY VALUE ...]"
        self.epilog = _EPILOG
        return super().format_help(formatter)


@contextmanager
def strictly() -> Iterator[None]:
    """While this lasts, jsonargparse keeps no argument of a class that was replaced, and refuses what `check_yaml` does."""
    typehints: Any = jsonargparse._typehints
    discard, load = typehints.discard_init_args_on_class_path_change, get_loader("yaml")
    typehints.discard_init_args_on_class_path_change = _discard_all
    _set_yaml_loader(lambda text: _load_strictly(load, text))
    try:
        yield
    finally:
        typehints.discard_init_args_on_class_path_change = discard
        _set_yaml_loader(load)


def _set_yaml_loader(load: Callable[[str], Any]) -> None:
    import yaml

    set_loader("yaml", load, (yaml.YAMLError,))


def _load_strictly(load: Callable[[str], Any], text: str) -> Any:
    if any(mark in text for mark in "{&\n"):  # else it can hold neither two keys nor an alias
        import yaml

        try:
            check_yaml(text, "a YAML file" if "\n" in text.strip() else f"the value {text[:60]}")
        except UsageError as error:
            if isinstance(error.__cause__, yaml.YAMLError):
                return load(text)  # perhaps it is none: a value that is a plain text
            raise
    content = load(text)
    _check_linked(content)
    return content


def _check_linked(content: Any) -> None:
    """Refuse an operator, a noise level or samples inside the model or the data: it would be passed over.

    A run's own config.yaml repeats them there, as they stand at its top.

    Raises:
        UsageError: naming the key.
    """
    if not isinstance(content, dict):
        return
    for part in ("model", "data"):
        inside = content.get(part)
        for key in _LINKED:
            if isinstance(inside, dict) and key in inside and inside[key] != content.get(key):
                raise UsageError(
                    f"{part}.{key} is given, and the {key} stands at the top of the configuration: write `{key}:` there"
                )


def options_of(parser: LightningArgumentParser) -> list[str]:
    """The options that a user may give: those of what stands at the top, and not where they are handed on to."""
    options = list(parser._option_string_actions)
    return [option for option in options if not ((match := _HANDED_ON.match(option)) and f"--{match[2]}" in options)]


def check_options(arguments: Sequence[str], options: Collection[str]) -> None:
    """Refuse what stands at the top at the places that it is handed on to, which jsonargparse takes for something else.

    Args:
        arguments: of the command line, as `--data.noise_std 0.1`.
        options: the options that there are.

    Raises:
        UsageError: naming the option and the right one.
    """
    for argument in arguments:
        match = _HANDED_ON.match(argument)
        if match and f"--{match[2]}" in options:
            wrong = argument.partition("=")[0]
            raise UsageError(f"there is no option {wrong}: write --{match[1]}, which holds for all that needs it")


def _discard_all(parser: Any, before: Any, after: Any) -> None:
    """In place of jsonargparse's own, which keeps what the new class takes as well."""
    arguments = before.get("init_args") if before else None
    if arguments and not _same_class(before["class_path"], after["class_path"]):
        (vars(arguments) if isinstance(arguments, Namespace) else arguments).clear()


def _same_class(one: str, other: str) -> bool:
    if one == other:
        return True
    try:
        classes = [jsonargparse._typehints.import_object(name) for name in (one, other)]
    except (ImportError, AttributeError, ValueError):
        return False
    return classes[0] is classes[1]


def classes_first(arguments: Sequence[str]) -> list[str]:
    """Options in an order in which a class comes before its arguments: `--model.sampler.steps 50 --model.sampler DPS`."""
    units: list[list[str]] = []
    for argument in arguments:
        if argument.startswith("--") or argument == "-c" or not units:
            units.append([argument])
        else:
            units[-1].append(argument)
    ordered: list[list[str]] = []
    for unit in units:
        option, equals, value = unit[0].partition("=")
        value = value if equals else " ".join(unit[1:])
        key = option.removesuffix(".class_path")
        place = len(ordered)
        if re.fullmatch(r"[A-Za-z_][\w.]*", value):  # a class's name: braces bring their arguments with them
            begin = 1 + max((n for n, other in enumerate(ordered) if _is_config(other)), default=-1)
            inside = (n for n in range(begin, len(ordered)) if ordered[n][0].startswith(f"{key}."))
            place = next(inside, place)
        ordered.insert(place, unit)
    return [argument for unit in ordered for argument in unit]


def _is_config(unit: list[str]) -> bool:
    return unit[0].partition("=")[0] in ("--config", "-c")


def check_numbers(config: Any, key: str = "") -> None:
    """Refuse NaN, infinity and numbers of processes that no machine has. Lightning's own settings are Lightning's business.

    Raises:
        UsageError: naming the key.
    """
    if isinstance(config, (Namespace, Mapping)):
        items = vars(config).items() if isinstance(config, Namespace) else config.items()
        for name, value in items:
            inside = f"{key}.{name}".lstrip(".").replace(".init_args", "")
            if inside in ("trainer.devices", "data.num_workers", "data.batch_size"):
                _check_count(inside, value)
            elif key != "trainer" and inside != "config":
                check_numbers(value, inside)
    elif isinstance(config, (list, tuple)):
        for place, value in enumerate(config):
            check_numbers(value, f"{key}[{place}]")
    elif isinstance(config, float) and not math.isfinite(config):
        raise UsageError(f"{key} is {config}: give a finite number")
    elif isinstance(config, float) and abs(config) > LARGEST:
        raise UsageError(f"{key} is {config:g}: give a number of at most {LARGEST:g}")
    elif isinstance(config, int) and abs(config) >= 2**63:
        raise UsageError(f"{key} is {config}: give a smaller number")


def _check_count(key: str, value: Any) -> None:
    cores = os.cpu_count() or 1
    least, most = {
        "trainer.devices": (-1, max(64, cores)),  # -1 is all
        "data.num_workers": (0, max(32, 4 * cores)),
        "data.batch_size": (1, 10**6),
    }[key]
    count = int(value) if isinstance(value, str) and re.fullmatch(r"-?\d+", value) else value
    if isinstance(count, int) and not least <= count <= most:
        raise UsageError(f"{key} is {count}: give {least} to {most}")
