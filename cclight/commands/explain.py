"""What jsonargparse complains of, in one line that a user can act on."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterable

import cclight
from cclight.errors import suggestion

_KEY = r'Parser key "([\w.]+)"'

# What a key takes, by its last word, and what a class is called that stands where another is taken.
_BASES = {
    "sampler": "Sampler",
    "operator": "Operator",
    "operators": "Operator",
    "prior": "Prior",
    "source": "Source",
    "reference": "Source",
    "mask": "Mask",
    "kernel": "Kernel",
    "path": "GaussianPath",
    "parameterization": "Parameterization",
    "per_image": "ImageMetric",
    "network": "Inception",
}
_NOUNS = {
    "Sampler": "sampler",
    "Operator": "operator",
    "Prior": "prior",
    "Source": "source",
    "Mask": "mask",
    "Kernel": "blur kernel",
    "GaussianPath": "path",
    "Parameterization": "parameterization",
    "ImageMetric": "metric",
    "Inception": "network",
}

# Where the settings of a class stand, and what other programs call an option that there is.
_PLACES = {"Sampler": "--model.sampler", "Prior": "--model.prior", "Source": "--data.source", "Operator": "--operator"}
_ELSEWHERE = {
    "seed": "--data.seed",
    "noise": "--noise_std",
    "sigma": "--noise_std",
    "sigma_y": "--noise_std",
    "nfe": "--model.sampler.steps",
    "size": "--data.image_size",
    "resolution": "--data.image_size",
    "workers": "--data.num_workers",
    "input": "--data.source ImageFolder --data.source.path",
    "folder": "--data.source ImageFolder --data.source.path",
    "path": "--data.source ImageFolder --data.source.path",
    "output": "--run.root",
    "out": "--run.root",
    "o": "--run.root",
    "device": "--trainer.accelerator",
    "cpu": "--trainer.accelerator cpu",
    "cuda": "--trainer.accelerator cuda",
    "gpus": "--trainer.devices",
    "fp16": "--trainer.precision 16-mixed",
    "bf16": "--trainer.precision bf16-mixed",
    "half": "--trainer.precision 16-mixed",
    "metrics": "--metrics.per_image",
    "task": "--config",
    "lr": "--model.learning_rate",
}


def explain(error: str, options: Iterable[str] = (), config: str = "sr.yaml") -> str:
    """A jsonargparse error as one line, with a suggestion where a name seems to be misspelt.

    Args:
        error: the message.
        options: what the command line takes, such as `--run.name`.
        config: a packaged configuration to begin with; empty where the command takes none.
    """
    line = " ".join(error.split())
    # Of an optional value's two complaints the second, that it is not None, is no news.
    union = r"Does not validate against any .*?Errors: - (.*?) - Expected a <class 'NoneType'>.*?Given value: "
    union += r"((?!Namespace)[^{\[(]{,60})?.*"
    line = re.sub(union, lambda match: match[1] + (f", got {match[2]}" if match[2] else ""), line)
    line = re.sub(r"Does not validate against any of the Union subtypes Subtypes: \[[^\]]*\] Errors: - ", "", line)
    line = re.sub(r"- Expected a path but (?!\S+\.(?:ya?ml|json)\b).*? either not accessible or invalid - ", "", line)
    line = line.removesuffix(", got NestedArg")
    while (shorter := re.sub(rf"{_KEY}: Problem with given class_path '[^']+': {_KEY}", r'Parser key "\1.\2"', line)) != line:
        line = shorter
    if match := re.search(r"unrecognized arguments: (-\S+)", line):
        option = match[1].partition("=")[0]
        longer = sorted((known for known in options if known.startswith(option)), key=len)
        one = longer and all(known.startswith(longer[0]) for known in longer)
        inside = [known for known in options if known.endswith(f".{option.lstrip('-')}")]
        best = _elsewhere(option, options) or (longer[0] if one else inside[0] if inside else _of_a_class(option, options))
        meant = f": did you mean {best}?" if best else suggestion(option, options, cutoff=0.75)
        return f"there is no option {option}{meant or ', `--help all` lists them'}"
    if match := re.search(r"unrecognized arguments: (\S+)", line):
        return f"{match[1]} stands without an option" + (f": did you mean --config {match[1]}?" if ".y" in match[1] else "")
    if match := re.search(r"the following arguments are required: (\w[\w.]*(?:, \w[\w.]*)*)", line):
        keys = [".".join([*re.findall(_KEY, line[: match.start()]), name]) for name in match[1].split(", ")]
        start = f"name a configuration (--config {config}), or " if config and keys == match[1].split(", ") else ""
        return f"{', '.join(keys)} {'are' if keys[1:] else 'is'} missing: {start}give --{keys[0]}"
    if match := re.search(r"Expected a <class 'float'>\. Got value: ([-+]?(?:nan|inf)\w*)$", line, re.IGNORECASE):
        return f"{'.'.join(re.findall(_KEY, line))} is {match[1]}: give a finite number"
    if match := re.search(r"- Expected a path but (\S+) either not accessible|Unable to load config '(.*?)'", line):
        key, file = ".".join(re.findall(_KEY, line[: match.start()])), match[1] or match[2]
        return f"{key}: there is no file {file}{_as_folder(file) if key == 'data' else ''}"
    if "codec can't decode" in line:
        return f"{'.'.join(re.findall(_KEY, line))}: the file is not UTF-8: save it as UTF-8"
    if match := re.search(r"Group '(\w+)' does not accept option '([\w.]+)'", line):
        option = f"{match[1]}.{match[2].partition('.')[0]}"
        known = [known.removeprefix("--") for known in options]
        return f"{option} is no setting of this command{suggestion(option, known, cutoff=0.75) or ', `--help` lists them'}"
    if match := re.search(r"Not a valid subclass of \w+(?:\. Got value: (.*?))? Subclass types expect", line):
        given = match[1] or line.rpartition(", got ")[2].partition(" - ")[0]
        return explain_class(given, ".".join(re.findall(_KEY, line[: match.start()])))
    if match := re.search(r"(?:Expected a dot import path string|Unexpected import path format):(?: ([^,\s]+))?", line):
        return explain_class(match[1] or "class without a name", ".".join(re.findall(_KEY, line[: match.start()])))
    if match := re.search(r"class_path 'cclight\.(?:\w+\.)*(\w+)': Option '(\w+)' is not accepted", line):
        known = list(inspect.signature(getattr(cclight, match[1])).parameters)
        key = ".".join([*re.findall(_KEY, line[: match.start()]), match[2]])
        other = " (--data.source ImageFolder chooses another)" if match[1] == "SamplePhotographs" else ""
        remedy = suggestion(match[2], known) or f": it takes {', '.join(known) or 'no arguments'}{other}"
        return f"{key} is no setting of {match[1]}{remedy}"
    return _wrong_type(line) or re.sub(rf"{_KEY}: ", r"\1: ", line)


def _elsewhere(option: str, options: Iterable[str]) -> str | None:
    """What this command calls an option that others call so."""
    if option.startswith("--trainer."):
        return None
    best = _ELSEWHERE.get(option.rpartition(".")[2].strip("-").replace("-", "_"))
    if best is None:
        return None
    place, _, setting = best.split()[-1 if best.startswith("--data.source") else 0].rpartition(".")
    of_a_class = "." in place and place in options
    return best if of_a_class or f"{place}.{setting}".lstrip(".") in options else None


def _of_a_class(option: str, options: Iterable[str]) -> str | None:
    """The option by which a class takes its setting of this name, `--model.sampler.steps`."""
    word = option.rpartition(".")[2].strip("-").replace("-", "_")
    public = [value for name in cclight.__all__ if isinstance(value := getattr(cclight, name), type)]
    for base, place in _PLACES.items():
        classes = [cls for cls in public if issubclass(cls, getattr(cclight, base))]
        if place in options and any(word in inspect.signature(cls).parameters for cls in classes):
            return f"{place}.{word}"
    return None


# How a value of a type is written, by what jsonargparse calls it.
_WRITTEN = {
    "<class 'int'>": "a whole number",
    "<class 'float'>": "a number",
    "<class 'bool'>": "true or false",
    "<class 'str'>": "a text",
    "<class 'list'>": "a list, as '[one, two]'",
    "<class 'tuple'>": "numbers, as '[1, 2, 3]'",
    "<class 'dict'>": "settings, as '{name: value}'",
}


def _wrong_type(line: str) -> str | None:
    """What a setting that was given a value of another type takes; None where the message says something else.

    Args:
        line: the message.
    """
    if match := re.search(r"argument (?:\S+ --> )?([\w.]+): invalid (\w+) value: '(.*)'$", line):
        key, kinds, value = match[1], [f"<class '{match[2]}'>"], match[3]
    else:
        key = ".".join(re.findall(_KEY, line))
        kinds = re.findall(r"Expected a (<class '\w+'>|typing\.Literal\[.*?\])", line)
        given = re.search(r"(?:Got value: |Given value: |, got )(.*)$", line)
        value = given[1] if given else ""
    takes = []
    for kind in kinds:
        if kind == "<class 'list'>" and key.endswith("per_image"):
            takes.append("a list, as '[PSNR, LPIPS]'")
        elif kind.startswith("typing"):
            takes += re.findall(r"[^\s',]+", kind.partition("[")[2][:-1])
        elif kind in _WRITTEN:
            takes.append("a path" if "Not of type Path" in line else _WRITTEN[kind])
    if not (key and takes and value):
        return None
    return f"{key} is {value}: give {', '.join(takes[:-1])}{' or ' if takes[1:] else ''}{takes[-1]}"


def explain_class(name: str, key: str) -> str:
    """Why no class of this name can stand under a key, and which can.

    Args:
        name: what was given.
        key: as `model.sampler`.
    """
    public = {word: value for word in cclight.__all__ if isinstance(value := getattr(cclight, word), type)}
    base = _BASES.get(key.rpartition(".")[2])
    if base is None:
        return f"{key or 'the command'} takes no {name}{suggestion(name, public)}"
    abstract = [cls for cls in public.values() if inspect.isabstract(cls)]
    fitting = [word for word, cls in public.items() if issubclass(cls, public[base]) and cls not in abstract]
    takes = f"{key} takes a {_NOUNS[base]}".replace("a op", "an op")
    if name in public:
        other = next((noun for kind, noun in _NOUNS.items() if issubclass(public[name], public[kind])), "part of another kind")
        return f"{takes}, and {name} is a {other}: choose {', '.join(fitting)}".replace("a op", "an op")
    if base == "ImageMetric" and (known := _of_samples(name)):
        return f"{key}: {known} is measured of several samples, unasked: leave it out and set samples (--samples 8)"
    if base == "Source" and re.search(r"[/\\.~]", name):
        return f"{takes}, not a place{_as_folder(name)}"
    return f"{takes}, and there is no {name}{suggestion(name, fitting) or ': choose ' + ', '.join(fitting)}"


def _as_folder(path: str) -> str:
    return f" (photographs of a folder: --data.source ImageFolder --data.source.path {path})"


def _of_samples(name: str) -> str | None:
    """The title of what is measured of samples together, if it goes by such a name."""
    from cclight.metrics.posterior import POSTERIOR

    def plain(text: str) -> str:
        return re.sub(r"[^a-z]", "", text.lower())

    return next((q.title for q in POSTERIOR if plain(name) in (plain(q.name), plain(q.title))), None)
