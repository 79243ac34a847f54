"""The implementations that benchmarks/operators.py times are the same operators."""

from __future__ import annotations

import pytest
import torch

from cclight import BicubicDownsampling, GaussianBlur
from tests.benchmarks.test_benchmarks import load


@pytest.mark.parametrize("operator", [BicubicDownsampling(4), GaussianBlur(3.0, 61)])
@pytest.mark.parametrize("kind", ["dense", "svd"])
def test_the_plain_implementations_are_our_operators(operator, kind):
    module = load("operators")
    plain = getattr(module, kind)(operator, 32)
    x = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(plain.project(x), operator.project(x), rtol=1e-3, atol=1e-3)
    if kind == "dense":
        torch.testing.assert_close(plain.forward(x), operator(x), rtol=1e-3, atol=1e-4)
        torch.testing.assert_close(plain.pinv(operator(x)), operator.pinv(operator(x)), rtol=1e-2, atol=1e-2)
