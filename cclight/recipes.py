"""Recipes: the operator, prior and sampler of a packaged configuration, for people who write Python.

operator, prior, sampler, noise_std = cclight.recipe("sr")
restored = sampler.sample(prior, operator, y, noise_std=noise_std).image
"""

from __future__ import annotations

from importlib import import_module
from typing import Any, NamedTuple

import yaml

import cclight
from cclight.configs import find_config, read_config
from cclight.errors import suggestion
from cclight.operators.base import Operator
from cclight.priors.base import Prior
from cclight.samplers.base import Sampler


class Recipe(NamedTuple):
    """What a configuration restores with.

    Attributes:
        operator: the degradation H.
        prior: the denoiser.
        sampler: with the settings that were found for this task.
        noise_std: σ_y, in units of [-1, 1] images.
    """

    operator: Operator
    prior: Prior
    sampler: Sampler
    noise_std: float


def recipe(name: str) -> Recipe:
    """The recipe of a configuration: the settings that `cclight predict --config` runs with.

    Args:
        name: as "sr" or "paper/sr"; or a YAML file's path.

    Raises:
        UsageError: where there is no such configuration, with the names that there are.
        ValueError: where it names no operator, prior or sampler, or a class that does not exist.
    """
    path = find_config(name if name.endswith((".yaml", ".yml")) else f"{name}.yaml")
    content = yaml.safe_load(read_config(path))
    model = content.get("model") or {}
    parts = {"operator": content.get("operator"), "prior": model.get("prior"), "sampler": model.get("sampler")}
    missing = [part for part, node in parts.items() if node is None]
    if missing:
        raise ValueError(f"{path} names no {' and no '.join(missing)}: choose a configuration of a task, as sr.")
    operator, prior, sampler = (build(node) for node in parts.values())
    return Recipe(operator, prior, sampler, float(content.get("noise_std") or 0.0))


def build(node: Any) -> Any:
    """What a node of YAML stands for: a class with its arguments, built inside out, or a plain value.

    Args:
        node: `{class_path, init_args}`, with a public name of cclight's or a dotted path; a list of such; or a value.

    Raises:
        ValueError: where there is no such class.
    """
    if isinstance(node, dict) and "class_path" in node:
        arguments = {key: build(value) for key, value in (node.get("init_args") or {}).items()}
        return _class(str(node["class_path"]))(**arguments)
    if isinstance(node, list):
        return [build(item) for item in node]
    return node


def _class(path: str) -> Any:
    room, _, name = path.rpartition(".")
    if room in ("", "cclight"):
        if name not in cclight.__all__:
            raise ValueError(
                f"cclight has no {name}{suggestion(name, cclight.__all__) or ': `cclight list` shows what it has'}"
            )
        return getattr(cclight, name)
    try:
        return getattr(import_module(room), name)
    except (ImportError, AttributeError) as error:
        raise ValueError(f"there is no {path} ({error}): put the folder that holds it on PYTHONPATH") from error
