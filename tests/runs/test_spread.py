"""What an image's samples say together, made of saved files."""

import io
from dataclasses import asdict

import numpy as np
import pytest
import torch
from PIL import Image

from cclight.data.units import Units
from cclight.metrics.image import PSNR
from cclight.metrics.posterior import posterior_metrics
from cclight.runs import spread
from cclight.runs.folder import RunFolder
from cclight.runs.pictures import read_png

SCANS = Units(centre=500.0, scale=200.0, channel_axis=None)


@pytest.fixture
def folder(tmp_path):
    run = RunFolder("run", root=str(tmp_path))
    run.open("a: 1")
    yield run
    run.close()


def saved(run, samples, units, clean=None):
    """Save samples, (K, C, ...), as a run does; their records."""
    records = []
    for k, values in enumerate(samples):
        record = {"index": 3, "name": "scan", "psnr": 20.0 + k, **({"sample": k} if k else {})}
        if units is None:
            run.write_image("restored", 3, "scan", values, sample=k)
        else:
            record["units"] = asdict(units)
            run.write_array("restored", 3, "scan", units.stored(units.values(values)), k)
        records.append(record)
    if clean is not None:
        run.write_array("clean", 3, "scan", units.stored(units.values(clean)))
    run.flush()
    return records


@pytest.fixture
def volume():
    g = torch.Generator().manual_seed(0)
    return torch.randn(5, 1, 3, 4, 5, generator=g, dtype=torch.float64) / 4


def test_images_are_pooled_before_they_are_compared_with_the_ideal():
    """Each image's curve is off, to either side, and their mean is the nominal one; ratios of sums, not their mean."""
    nominal = [n / 10 for n in range(1, 10)]
    records = {
        index: {
            "samples": 4,
            "whole": 4,
            "error": error,
            "variance": 1.0,
            "spread_error": 1.25 / error,
            "calibration_error": 0.05,
            "coverage": [level + off for level in nominal],
        }
        for index, (error, off) in enumerate([(0.5, 0.05), (2.0, -0.05)])
    }
    found = {summary.quantity.name: summary for summary in spread.summarize_together([], records)}
    assert found["spread_error"].mean == pytest.approx(1.25 * 2 / 2.5)
    assert found["calibration_error"].mean == pytest.approx(0, abs=1e-12)
    assert found["calibration_error"].images == 2


def test_arrays_of_any_shape_in_their_units(folder, volume):
    samples, clean = volume[:4], volume[4]
    record = spread.together(folder.path, saved(folder, samples, SCANS, clean), [PSNR().quantity])
    values = SCANS.values(samples)[:, 0]
    np.testing.assert_allclose(np.load(folder.array("mean", 3, "scan")), values.mean(0), rtol=1e-6)
    np.testing.assert_allclose(np.load(folder.array("std", 3, "scan")), values.std(0), rtol=1e-6)
    assert not folder.file("std", 3, "scan").exists()  # there is no picture of a volume
    assert record["samples"] == record["whole"] == 4
    assert record["psnr_best"] == 23.0
    expected = posterior_metrics(samples, clean, 2.0)
    assert {name: record[name] for name in expected} == pytest.approx(expected)


def test_arrays_without_a_range_have_that_of_the_clean_one(folder, volume):
    units = Units(centre=1.0, scale=3.0, ranged=False, channel_axis=None)
    record = spread.together(folder.path, saved(folder, volume[:4], units, volume[4]), [])
    expected = posterior_metrics(volume[:4], volume[4], float(volume[4].max() - volume[4].min()))
    assert {name: record[name] for name in expected} == pytest.approx(expected)


def test_memory_holds_a_few_pixels_of_all_samples(folder, volume, monkeypatch):
    records = saved(folder, volume[:4], SCANS, volume[4])
    whole = spread.together(folder.path, records, [])
    seen = []
    monkeypatch.setattr(spread, "evidence", lambda x, *rest, call=spread.evidence: seen.append(x.numel()) or call(x, *rest))
    monkeypatch.setattr(spread, "_HELD", 28)
    parts = spread.together(folder.path, records, [])
    assert seen == [28] * 8 + [4 * 4]
    assert {key: value for key, value in parts.items() if isinstance(value, float)} == pytest.approx(
        {key: value for key, value in whole.items() if isinstance(value, float)}
    )


def test_fewer_than_two_say_nothing(folder, volume):
    one, failed, lost = saved(folder, volume[:3], SCANS)
    folder.array("restored", 3, "scan", 2).unlink()
    assert spread.together(folder.path, [one, {**failed, "failed": "NaN"}, lost], []) is None
    assert not (folder.path / "std").exists()


def test_a_failed_sample_is_left_out(folder, volume):
    records = saved(folder, volume[:4], SCANS, volume[4])
    records[1] = {"index": 3, "name": "scan", "sample": 1, "failed": "NaN", "units": records[1]["units"]}
    record = spread.together(folder.path, records, [PSNR().quantity])
    assert (record["samples"], record["whole"], record["psnr_best"]) == (4, 3, 23.0)
    np.testing.assert_allclose(np.load(folder.array("std", 3, "scan")), SCANS.values(volume[[0, 2, 3]])[:, 0].std(0), rtol=1e-6)


def test_sixteen_bits_stay(folder):
    for k in range(2):
        folder.write_image("restored", 3, "scan", torch.full((3, 4, 4), 0.3 + k / 1000), 16, k)
    folder.flush()
    spread.together(folder.path, [{"index": 3, "name": "scan"}, {"index": 3, "name": "scan", "sample": 1}], [])
    mean = read_png(folder.file("mean", 3, "scan"))
    assert mean.dtype == torch.uint16
    assert abs(int(mean[0, 0, 0]) - round((0.3005 + 1) / 2 * 65535)) <= 1
    assert np.load(folder.array("std", 3, "scan")).mean() == pytest.approx(0.001 / 2**0.5, rel=0.05)


def test_one_colour_is_one_deviation_in_every_picture_of_deviations():
    shown, largest = spread.deviation(torch.tensor([[[3.0, 0.0]], [[4.0, 0.0]]]))
    assert largest == pytest.approx(12.5**0.5)
    assert shown[:, 0, 0].tolist() == [1, 1, 1]
    assert shown[:, 0, 1].tolist() == [-1, -1, -1]
    nothing, largest = spread.deviation(torch.zeros(3, 2, 2))
    assert largest == 0
    assert (nothing == -1).all()


def test_the_colour_bar_runs_from_black_to_white():
    picture = Image.open(io.BytesIO(spread.encode_deviation(torch.rand(3, 300, 200))))
    pixels = np.asarray(picture).astype(int)
    assert pixels.shape[0] == 600
    column = pixels[30:-30, 400 + 25 + 12].sum(-1)  # through the bar
    assert column[0] > 700
    assert column[-1] < 60
    assert (np.diff(column) <= 0).all()


@pytest.mark.parametrize("shape", [(), (5,), (2, 3, 4)])
def test_moments_are_those_of_all_at_once(shape):
    images = torch.randn(7, *shape, dtype=torch.float64) + 100
    mean, std = spread.moments(iter(images))
    torch.testing.assert_close(mean, images.mean(0))
    torch.testing.assert_close(std, images.std(0))
