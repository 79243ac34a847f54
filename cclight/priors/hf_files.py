"""Files of pipelines in the layout of diffusers, in a folder or on the Hugging Face hub, and what is made of them.

Only settings (JSON) and weights are read: diffusers' own loading of a whole pipeline runs, in some versions, Python files that
lie beside them.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import torch

from cclight.errors import one_line
from cclight.priors.checkpoints import CheckpointError, fill, load_state

# How old files name the parts of an attention block, and how diffusers calls them today.
_TODAY = {"query": "to_q", "key": "to_k", "value": "to_v", "proj_attn": "to_out.0"}
_ATTENTION = re.compile(r"(?<=\.)(query|key|value|proj_attn)(?=\.(weight|bias)$)")
_WEIGHTS = "diffusion_pytorch_model"
_SHARDS = ".safetensors.index.json"
_FLOW = "FlowMatchEulerDiscreteScheduler"


def diffusers_for(prior: str, extra: str) -> Any:
    """The package diffusers.

    Args:
        prior: who needs it.
        extra: the extra of cclight that brings all that the prior needs.

    Raises:
        ImportError: where it is not installed, with the remedy.
    """
    try:
        import diffusers
    except ImportError as error:
        raise ImportError(f"{prior} needs the package diffusers: pip install 'cclight[{extra}]'.") from error
    return diffusers


def pipeline_file(repo: str, *names: str) -> Path:
    """The first of some files that a folder or a repository of the hub has.

    Raises:
        CheckpointError: where it has none of them or cannot be reached.
    """
    remedy = "give owner/repository of the hub, or a folder with model_index.json"
    if Path(repo).is_dir():
        for name in names:
            if (Path(repo) / name).is_file():
                return Path(repo) / name
        raise CheckpointError(f"{repo} is no diffusers pipeline that can be loaded (it has no {names[0]}): {remedy}.")
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import EntryNotFoundError, HfHubHTTPError, HFValidationError

    reason: Exception = FileNotFoundError(names[0])
    for name in names:
        try:
            return Path(hf_hub_download(repo, name))
        except (OSError, HfHubHTTPError, HFValidationError) as error:  # noqa: PERF203 - a download costs more
            reason = error
            if not isinstance(error, EntryNotFoundError):
                break
    raise CheckpointError(f"{repo} is no diffusers pipeline that can be loaded ({one_line(reason)}): {remedy}.") from reason


def settings_of(file: Path) -> dict[str, Any]:
    """The settings in a JSON file.

    Raises:
        CheckpointError: for a file that holds none.
    """
    try:
        settings = json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise CheckpointError(f"{file} holds no JSON ({one_line(error)}): fetch the pipeline again.") from error
    if not isinstance(settings, dict):
        raise CheckpointError(f"{file} holds a {type(settings).__name__}, not settings: fetch the pipeline again.")
    return settings


def kinds_of(repo: str) -> dict[str, tuple[Any, ...]]:
    """The parts that a pipeline names in its model_index.json: (library, class) of each.

    Raises:
        CheckpointError: as `pipeline_file` and `settings_of` do.
    """
    index = settings_of(pipeline_file(repo, "model_index.json"))
    return {name: tuple(kind) for name, kind in index.items() if name[:1] != "_" and isinstance(kind, list) and any(kind)}


def said(kind: tuple[Any, ...]) -> str:
    """A part's kind in words, or "missing"."""
    return " of ".join(str(part) for part in reversed(kind) if part) or "missing"


def scheduler_class(diffusers: Any, kind: tuple[Any, ...]) -> Any:
    """The class of diffusers that a pipeline names as its scheduler, or None where it is none.

    Args:
        diffusers: the package.
        kind: (library, class), see `kinds_of`.
    """
    library, name = kind or (None, None)
    found = getattr(diffusers, str(name), None) if library == "diffusers" else None
    return found if isinstance(found, type) and issubclass(found, diffusers.SchedulerMixin) else None


def refusal(repo: str, reason: str, wanted: str) -> CheckpointError:
    """The error for a pipeline of another kind.

    Args:
        repo: the repository or folder.
        reason: what is wrong with it.
        wanted: what to choose instead.
    """
    return CheckpointError(f"{repo} cannot be used: {reason}. Choose {wanted}.")


def weights_of(repo: str, *places: str) -> tuple[dict[str, Any], Path]:
    """The weights of one part of a pipeline, in one file or in several, under today's names; and the file that they come from.

    Args:
        repo: the repository or folder.
        places: the folders in it to look into, each with its slash; an empty one is the repository's own.

    Raises:
        CheckpointError: for files that cannot be had or read.
    """
    ends = (".safetensors", _SHARDS, ".fp16.safetensors", ".bin")
    file = pipeline_file(repo, *(f"{place}{_WEIGHTS}{end}" for end in ends for place in places))
    state: dict[str, Any] = {}
    if file.name.endswith(_SHARDS):
        parts = settings_of(file).get("weight_map")
        if not isinstance(parts, dict):
            raise CheckpointError(f"{file} has no weight_map: fetch the pipeline again.")
        for name in sorted({Path(str(part)).name for part in parts.values()}):
            state |= load_state(pipeline_file(repo, *(place + name for place in places)))
    else:
        state = load_state(file)
    return {_ATTENTION.sub(lambda match: _TODAY[match[0]], key): value for key, value in state.items()}, file


def network_of(kind: Any, settings: dict[str, Any], state: dict[str, Any], source: Path) -> Any:
    """A network of diffusers with its weights, in float32 and frozen.

    Args:
        kind: its class.
        settings: its settings.
        state: its weights, and
        source: the file that they come from, see `weights_of`.

    Raises:
        CheckpointError: for weights that do not fit.
        Exception: whatever a wrong setting leads to.
    """
    with torch.device("meta"):
        network = kind.from_config(settings)
    # Fixed tables (the positions of some transformers) are computed when a network is made, and stand in no file.
    if {name for name, _ in network.named_buffers()} - set(network.state_dict()):
        with torch.random.fork_rng(devices=[]):
            network = kind.from_config(settings)
    fill(network, state, source)
    return network


def flow_transformer(repo: str, prior: str, kind: str, wanted: str) -> tuple[Any, float]:
    """The transformer of a flow-matching pipeline of latents, and how its scheduler counts the time of pure noise.

    Args:
        repo: the repository or folder.
        prior: who needs it.
        kind: the transformer's class in diffusers.
        wanted: what to choose instead, for the error.

    Raises:
        ImportError: where diffusers is not installed.
        CheckpointError: for a pipeline that cannot be had or is of another kind.
    """
    diffusers = diffusers_for(prior, "latent")
    if not hasattr(diffusers, kind):
        raise ImportError(f"{prior} needs a diffusers that has {kind}: pip install --upgrade diffusers.")
    found = kinds_of(repo).get("transformer", ())
    if found != ("diffusers", kind):
        raise refusal(repo, f"its transformer is {said(found)}, not a {kind} of diffusers", wanted)
    scheduler = settings_of(pipeline_file(repo, "scheduler/scheduler_config.json"))
    if scheduler.get("_class_name") != _FLOW and scheduler.get("prediction_type") != "flow_prediction":
        raise refusal(repo, f"its scheduler {scheduler.get('_class_name')} does no flow matching", wanted)
    settings = settings_of(pipeline_file(repo, "transformer/config.json"))
    state, source = weights_of(repo, "transformer/")
    try:
        network = network_of(getattr(diffusers, kind), settings, state, source)
    except CheckpointError:
        raise
    except Exception as error:  # whatever a wrong setting leads to
        raise refusal(repo, f"its settings make no network ({one_line(error)})", wanted) from error
    return network, float(scheduler.get("num_train_timesteps", 1000))
