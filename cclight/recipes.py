"""Recipes: the operator, prior and sampler of a packaged configuration, for people who write Python.

operator, prior, sampler, noise_std = cclight.recipe("sr")
restored = sampler.sample(prior, operator, y, noise_std=noise_std).image
"""

from __future__ import annotations

from typing import Any, NamedTuple

import yaml

import cclight
from cclight.configs import find_config
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
        ValueError: where it names no operator, prior or sampler.
    """
    path = find_config(name if name.endswith((".yaml", ".yml")) else f"{name}.yaml")
    content = yaml.safe_load(path.read_text(encoding="utf-8")) or {}
    model = content.get("model") or {}
    parts = {"operator": content.get("operator"), "prior": model.get("prior"), "sampler": model.get("sampler")}
    missing = [part for part, node in parts.items() if node is None]
    if missing:
        raise ValueError(f"{path} names no {' and no '.join(missing)}: choose a configuration of a task, as sr.")
    operator, prior, sampler = (_build(node) for node in parts.values())
    return Recipe(operator, prior, sampler, float(content.get("noise_std") or 0.0))


def _build(node: Any) -> Any:
    """What a node of YAML stands for: a class of cclight's with its arguments, built inside out, or a plain value."""
    if isinstance(node, dict) and "class_path" in node:
        arguments = {key: _build(value) for key, value in (node.get("init_args") or {}).items()}
        return getattr(cclight, str(node["class_path"]).rpartition(".")[2])(**arguments)
    if isinstance(node, list):
        return [_build(item) for item in node]
    return node
