"""benchmarks/precision.py: half precision errs a little, float16 less than bfloat16, also where the residual is small."""

from __future__ import annotations

import torch

from benchmarks.precision import HALVES, errors
from cclight import SmallPrior


def test_half_precision_errs_a_little():
    prior = SmallPrior().eval().requires_grad_(False)
    clean = torch.randn(1, 3, 32, 32, generator=torch.Generator().manual_seed(0)).clamp(-1, 1)
    bf16, fp16 = (torch.tensor(errors(prior, clean, 0.3, dtype)) for dtype in HALVES.values())
    assert (fp16 > 0).all()
    assert (fp16 < bf16).all()
    assert (bf16 < 0.05).all()
