"""What `cclight restore` restores with: the task's packaged configuration, or what the command line makes of it.

Options in predict's words (`--config`, `--model.prior`, `--model.sampler`, `--operator`) are read as predict reads them. Where
there are none, neither Lightning nor jsonargparse is imported: the command starts at once.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import yaml

from cclight.configs import packaged_configs
from cclight.errors import UsageError

# Settings of a configuration that are predict's own business.
_OTHERS = ("data", "run", "images", "metrics", "trainer", "seed_everything", "model.compile", "model.channels_last")


@dataclass(frozen=True)
class Model:
    """What the command line names, not built yet: nodes of YAML.

    Attributes:
        prior: the prior.
        sampler: the sampler.
        operator: the operator, where no task says what was done.
        noise_std: σ_y, where the operator's configuration gives it.
        packaged: the sampler that the task's configuration has.
        samples: restorations of each picture, where the configuration gives their number.
    """

    prior: Any
    sampler: Any
    operator: Any = None
    noise_std: float | None = None
    packaged: Any = None
    samples: int | None = None


def read_model(options: argparse.Namespace) -> Model:
    """The model that a command line names.

    Args:
        options: the command line.

    Raises:
        UsageError: for what cannot be read, in one line.
    """
    packaged: dict[str, Any] = {}
    files: list[str] = []
    if options.task is not None:
        # The packaged one, whatever lies in the current folder.
        file = packaged_configs() / f"{options.task}.yaml"
        packaged, files = yaml.safe_load(file.read_text(encoding="utf-8"))["model"], [f"--config={file}"]
    if options.model:
        content = parse([*files, *_shortcuts(options), *options.model])
        model = content["model"]
        if options.task is not None:
            return Model(model["prior"], model["sampler"], packaged=packaged["sampler"], samples=content["samples"])
        if content["operator"] is None:
            raise UsageError("what was done to the pictures? Give --task, --operator NAME or a --config that names an operator")
        given = content["operator"], content["noise_std"]
        return Model(model["prior"], model["sampler"], *given, samples=content["samples"])
    prior, sampler = dict(packaged["prior"]), dict(packaged["sampler"])
    if options.prior is not None:
        prior["init_args"] = {"weights": options.prior}
    if options.steps is not None:
        sampler["init_args"] = {**sampler["init_args"], "steps": options.steps}
    return Model(prior, sampler, packaged=packaged["sampler"])


def _shortcuts(options: argparse.Namespace) -> list[str]:
    """`--prior` and `--steps` in predict's words."""
    words = []
    for name, target in (("prior", "model.prior"), ("steps", "model.sampler.steps")):
        if getattr(options, name) is None:
            continue
        if any(word.partition("=")[0].replace(".init_args", "").startswith(f"--{target}") for word in options.model):
            raise UsageError(f"--{name} and --{target} are two ways to say one thing: give one of them")
        words += ["--model.prior=SmallPrior", f"--model.prior.weights={options.prior}"] if name == "prior" else []
        words += [f"--{target}={options.steps}"] if name == "steps" else []
    return words


def parse(arguments: Sequence[str]) -> dict[str, Any]:
    """Options in predict's words, as nodes of YAML: "model" with "prior" and "sampler", "operator", "noise_std" and "samples".

    Args:
        arguments: options, each in one word with its value or followed by it.

    Raises:
        UsageError: in one line.
    """
    from jsonargparse import ArgumentError, ArgumentParser

    from cclight.commands.explain import explain
    from cclight.commands.lightning import import_public_names
    from cclight.commands.parsing import check_numbers, classes_first, strictly
    from cclight.operators.base import Operator
    from cclight.priors.base import Prior
    from cclight.samplers.base import Sampler

    import_public_names()
    parser = ArgumentParser("cclight restore", exit_on_error=False, allow_abbrev=False)
    parser.add_argument("--config", action="config")
    parser.add_subclass_arguments(Prior, "model.prior", required=False)
    parser.add_subclass_arguments(Sampler, "model.sampler", required=True)
    parser.add_subclass_arguments(Operator, "operator", required=False)
    parser.add_argument("--noise_std", type=float | None, default=None)
    parser.add_argument("--samples", type=int | None, default=None)
    for name in _OTHERS:
        parser.add_argument(f"--{name}", type=Any, default=None)
    try:
        with strictly():
            config = parser.parse_args(classes_first(arguments))
    except ArgumentError as error:
        taken = [option for option in parser._option_string_actions if option.lstrip("-") not in _OTHERS]
        raise UsageError(explain(str(error), taken)) from error
    content: dict[str, Any] = config.as_dict()
    found: dict[str, Any] = {key: content.get(key) for key in ("model", "operator", "noise_std", "samples")}
    check_numbers(found)
    found["model"]["prior"] = found["model"]["prior"] or {"class_path": "SmallPrior"}
    return found
