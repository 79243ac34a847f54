"""What a prompt is to a prior of latents: embeddings, made once by the pipeline's own text encoders or read from a file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from cclight.errors import one_line
from cclight.priors.checkpoints import CheckpointError, load_state


def encoded(
    repo: str, prompt: str, tokenizer: str, encoder: str, place: str = "", length: int | None = None
) -> tuple[Any, Tensor]:
    """What a text encoder of a pipeline, which is not kept, makes of a prompt.

    Args:
        repo: a repository on the Hugging Face hub or a folder made by `save_pretrained`.
        prompt: the prompt.
        tokenizer: the tokenizer's class in transformers.
        encoder: the text encoder's class in transformers.
        place: what follows the names of the folders `tokenizer` and `text_encoder`.
        length: tokens to pad or cut to; None for as many as the tokenizer says.

    Returns:
        The output of transformers, with all hidden states, and the mask of the tokens that are the prompt's, (1, L).

    Raises:
        ImportError: where transformers is not installed.
        CheckpointError: where the pipeline has no such encoder, or it cannot read the prompt.
    """
    try:
        import transformers
    except ImportError as error:
        raise ImportError(
            "Reading a prompt needs transformers: pip install 'cclight[latent]', or give prompt_embeds."
        ) from error
    try:
        tokens = getattr(transformers, tokenizer).from_pretrained(repo, subfolder=f"tokenizer{place}", padding_side="right")
        network = getattr(transformers, encoder).from_pretrained(repo, subfolder=f"text_encoder{place}", use_safetensors=True)
        length = length or tokens.model_max_length
        given = tokens(prompt, padding="max_length", max_length=length, truncation=True, return_tensors="pt")
        # Only Gemma's layers are told which tokens count: the others were trained on padded prompts as they are.
        told = {"attention_mask": given.attention_mask} if encoder == "Gemma2Model" else {}
        with torch.no_grad():
            output = network.float().eval()(given.input_ids, output_hidden_states=True, **told)
    except Exception as error:  # the hub, the file system and transformers raise classes of their own
        raise CheckpointError(
            f"The text encoder of {repo} cannot read the prompt ({one_line(error)}): fetch tokenizer{place} and "
            f"text_encoder{place} of the pipeline too, or give prompt_embeds."
        ) from error
    return output, given.attention_mask


def stored(file: str, *names: str) -> list[Tensor]:
    """Embeddings from a torch or safetensors file of a dictionary.

    Args:
        file: the file.
        names: the embeddings wanted.

    Raises:
        CheckpointError: for a file that is missing or lacks one.
    """
    if not Path(file).is_file():
        raise CheckpointError(f"No embeddings at {file}: save {' and '.join(names)} there, or leave prompt_embeds out.")
    state = load_state(Path(file))
    missing = [name for name in names if not isinstance(state.get(name), Tensor)]
    if missing:
        raise CheckpointError(f"{file} holds no {' and no '.join(missing)}: save a dictionary of {' and '.join(names)}.")
    return [state[name] for name in names]


def check_width(name: str, embeds: Tensor, shape: tuple[int | str, ...], repo: str) -> None:
    """Refuse embeddings that a network cannot take.

    Args:
        name: what they are.
        embeds: the embeddings.
        shape: the shape wanted; a letter stands for any number.
        repo: the network's pipeline.

    Raises:
        CheckpointError: naming both shapes and the remedy.
    """
    fits = embeds.ndim == len(shape) and all(isinstance(b, str) or a == b for a, b in zip(embeds.shape, shape, strict=True))
    if not fits:
        wanted = ", ".join(map(str, shape))
        raise CheckpointError(
            f"{name} have the shape {tuple(embeds.shape)}, and the network of {repo} takes ({wanted}): take embeddings of "
            f"its own text encoder."
        )
