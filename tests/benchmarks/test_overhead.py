"""benchmarks/overhead.py: what it counts, and that every sampler of its tables runs on its network."""

from __future__ import annotations

import pytest
import torch

from benchmarks.overhead import SAMPLERS, STEPS, Free, counted, launches, works


def test_what_calculates_is_a_launch_and_a_view_is_none():
    x = torch.ones(4, 3)
    assert counted(lambda: x.T[1:].reshape(8), torch.device("cpu")) == (1, 0)  # the copy that the reshape needs
    assert counted(lambda: x.view(3, 4), torch.device("cpu")) == (0, 0)
    assert counted(lambda: float((2 * x).sum()), torch.device("cpu")) == (2, 1)
    assert counted(lambda: x[x > 0], torch.device("cpu")) == (2, 1)  # whose shape the host has to know


def test_every_sampler_is_counted_beyond_the_network():
    found = launches(torch.device("cpu"), 32, 1)
    assert list(found) == ["network", *SAMPLERS]
    assert found["network"][0] > 100
    for name in SAMPLERS:
        assert 0 < found[name][0] < 60
        assert found[name][1] == 0


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_gpu_counts_kernels_and_copies():
    device = torch.device("cuda")
    x = torch.ones(4, device=device)
    assert counted(lambda: float((2 * x).sum()), device) == (2, 1)
    assert launches(device, 32, 1)["network"][0] > 50


def test_every_sampler_of_the_tables_runs():
    _, samplers = works(Free(), 16, 2, peers=False)
    assert samplers.keys() == SAMPLERS.keys()
    for work in samplers.values():
        assert work().nfe == STEPS
