r"""Guided: classifier-free guidance, a prior with labels that follows the label more (or less) closely than it was trained to.

    N = N_∅ + w (N_c - N_∅)

with N_c the prior's output for the image's label and N_∅ the one without a label: w = 0 ignores the label, w = 1 is the prior
as it was trained, w > 1 goes further from what images without that label look like. As x̂_0 is linear in N, the denoised
estimates are mixed in the same way. Both outputs come from one call with the images twice in the batch; it costs two
evaluations.

Reference:
    Ho and Salimans, Classifier-Free Diffusion Guidance, NeurIPS 2021 workshop, https://arxiv.org/abs/2207.12598.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from cclight.priors.base import NO_LABEL, Prior


class Guided(Prior):
    """Classifier-free guidance for any prior that knows labels and images without one.

    Args:
        prior: the prior.
        weight: w of the module's docstring; 1 is the prior itself.
        class_label: the class to restore towards where the images bring no labels of their own; None takes the prior's.

    Raises:
        ValueError: for a prior without labels, or without a notion of no label; a weight that is no number; an unknown label.
    """

    reference = """@inproceedings{ho2021classifierfree,
  title = {Classifier-Free Diffusion Guidance},
  author = {Ho, Jonathan and Salimans, Tim},
  booktitle = {NeurIPS Workshop on Deep Generative Models and Downstream Applications},
  year = {2021},
}"""

    def __init__(self, prior: Prior, weight: float, class_label: int | None = None) -> None:
        super().__init__(prior.path, prior.parameterization)
        name = type(prior).__name__
        if not prior.labels:
            raise ValueError(f"Guided needs a prior with labels, and this {name} has none: leave Guided out.")
        if prior.needs_label:
            raise ValueError(
                f"Guided needs a prior that knows images without a label, and {name} knows none: leave Guided out."
            )
        if not math.isfinite(weight):
            raise ValueError(f"weight is {weight}: give a finite number, 1 for the prior as it was trained.")
        self.prior = prior
        self.weight = weight
        self.speak_for(prior)
        self.image_shape = prior.image_shape
        self.needs_label = True
        self.evaluations = 2 * prior.evaluations
        self.default_label(prior.class_label if class_label is None else class_label)

    def forward(self, x_t: Tensor, t: Tensor, label: Tensor | None = None) -> Tensor:
        label = self.label_of(label, x_t)
        assert label is not None
        labels = torch.cat([label, torch.full_like(label, NO_LABEL)])
        labelled, without = self.prior(torch.cat([x_t, x_t]), torch.cat([t, t]), labels).chunk(2)
        return without + self.weight * (labelled - without)
