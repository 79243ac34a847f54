"""benchmarks/throughput.py: every stage takes time, and the whole no less than the sampler within it."""

from __future__ import annotations

import numpy as np
from PIL import Image

from benchmarks.throughput import measure


def test_the_whole_takes_no_less_than_its_sampler_and_that_no_less_than_its_network(tmp_path):
    for index in range(2):
        Image.fromarray(np.full((24, 24, 3), 80 * index, np.uint8)).save(tmp_path / f"{index}.png")
    seconds = measure(str(tmp_path), milliseconds=40, limit=2, size=16)
    assert all(value > 0 for value in seconds.values())
    assert min(seconds["sampler"], seconds["predict"]) >= 0.04
    assert seconds["main thread beside the sampler"] < seconds["predict"]
