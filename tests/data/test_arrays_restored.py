"""Arrays from files to files: signals and volumes restored in their own units, measured, resumed and evaluated."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest
import torch
from lightning.pytorch import Trainer
from PIL import Image

import cclight
from cclight import (
    Arrays,
    CartesianLines,
    CircularBlur,
    ConjugateMoments,
    Denoising,
    FourierSampling,
    GaussianMixture,
    Inpainting,
    MultiCoil,
    RandomPixels,
    RandomProjection,
    RestorationDataModule,
    Restorer,
)
from cclight.callbacks.images import ImageWriter
from cclight.callbacks.metrics import MetricsCallback
from cclight.cli import main
from cclight.operators.own import OwnKernel, OwnMask
from cclight.pipeline import predict
from cclight.runs.folder import RunFolder
from tests.samplers.baselines import normal

SHAPES = {"signal": (2, 8), "image": (1, 4, 4), "many channels": (5, 2, 2), "volume": (1, 2, 3, 4)}
SAMPLERS = [name for name in cclight.__all__ if isinstance(getattr(cclight, name), type)]
SAMPLERS = [name for name in SAMPLERS if issubclass(getattr(cclight, name), cclight.Sampler) and name != "Sampler"]


def mixture(shape: tuple[int, ...]) -> GaussianMixture:
    return GaussianMixture(0.4 * normal(2, *shape), 0.02 * torch.ones(2, *shape, dtype=torch.float64))


def write(folder, shape, number=3):
    """Draws of the prior as values v = 50 + 10 x."""
    folder.mkdir()
    drawn = mixture(shape).sample(number, torch.Generator().manual_seed(0)).float()
    for place, image in enumerate(drawn):
        np.save(folder / f"a{place}.npy", (50 + 10 * image).numpy())
    return drawn


def restore(folder, runs, shape, noise_std=0.05, **settings):
    operator = RandomProjection(12, shape)
    run = RunFolder("out", str(runs), resume=True)
    run.open("{}")
    model = Restorer(mixture(shape), ConjugateMoments(8), operator, noise_std)
    data = RestorationDataModule(Arrays(folder, **settings), operator, noise_std, image_size=None, batch_size=2)
    trainer = Trainer(accelerator="cpu", logger=False, enable_progress_bar=False, enable_checkpointing=False)
    try:
        return predict(model, data, [ImageWriter(run), MetricsCallback(run)], trainer)
    finally:
        run.close()


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
def test_arrays_come_back_in_their_own_units(shape, tmp_path):
    drawn = write(tmp_path / "arrays", shape)
    results = restore(tmp_path / "arrays", tmp_path, shape, mean=50.0, std=10.0)
    assert results.summary["images"] == 3
    for place, image in enumerate(drawn):
        restored = np.load(tmp_path / "out" / "restored" / f"{place:05d}_a{place}.npy")
        clean = np.load(tmp_path / "out" / "clean" / f"{place:05d}_a{place}.npy")
        assert restored.shape == shape
        np.testing.assert_allclose(clean, (50 + 10 * image).numpy(), rtol=1e-5)
        error = np.linalg.norm(restored - clean) / np.linalg.norm(clean)
        assert results.values("nrmse")[place] == pytest.approx(error, rel=1e-3)
        assert error < 0.05


def test_what_cannot_be_measured_is_left_out_by_name_and_a_finished_run_is_gone_on_with(tmp_path):
    shape = SHAPES["signal"]
    write(tmp_path / "arrays", shape, 2)
    first = restore(tmp_path / "arrays", tmp_path, shape, mean=50.0, std=10.0)
    assert "not on arrays of 1 sides" in first.metrics["ssim"]["unavailable"]
    kept = tmp_path / "out" / "restored" / "00000_a0.npy"
    written = kept.stat().st_mtime_ns
    lost = tmp_path / "out" / "restored" / "00001_a1.npy"
    before = np.load(lost)
    lost.unlink()
    second = restore(tmp_path / "arrays", tmp_path, shape, mean=50.0, std=10.0)
    assert kept.stat().st_mtime_ns == written
    np.testing.assert_allclose(np.load(lost), before, rtol=1e-6)  # alone in its batch now
    assert second.mean("nrmse") == pytest.approx(first.mean("nrmse"), rel=1e-6)


class NeverAsked(GaussianMixture):
    """A prior that nothing bad may reach."""

    def forward(self, *_):
        raise AssertionError("a network call")


BAD = {
    "NaN in one": ({"on_error": "raise"}, r"arrays.a2.npy holds NaN or infinity; data.on_error: skip"),
    "NaN in all": ({}, r"None of the 3 arrays can be used; the first: .*a0.npy holds NaN or infinity"),
    "complex": ({}, r"None of the 3 arrays .*a0.npy: it holds complex numbers, and clean images are real: save real"),
    "sizes": ({"on_error": "raise"}, r"a2.npy: NeverAsked takes images of 2×8 .* got 2×7"),
    "noise map": ({"noise_std": 1 + torch.rand(3, 8)}, r"noise_std has the shape \(3, 8\), .*y's \(1, 2, 8\): give \(2, 8\)"),
}


@pytest.mark.parametrize("case", BAD)
def test_what_cannot_be_used_is_told_before_any_network_call(case, tmp_path):
    """Also of the last file of a folder."""
    settings, message = BAD[case]
    shape, folder = SHAPES["signal"], tmp_path / "arrays"
    write(folder, shape)
    for place in range(3):
        array = np.load(folder / f"a{place}.npy")
        if case == "NaN in all" or (case == "NaN in one" and place == 2):
            array[0, 3] = np.nan
        if case == "complex":
            array = array * 1j
        np.save(folder / f"a{place}.npy", array[:, :7] if case == "sizes" and place == 2 else array)
    prior = NeverAsked(0.4 * normal(2, *shape), torch.ones(2))
    data = RestorationDataModule(Arrays(folder, mean=50.0, std=10.0), Denoising(), **{"image_size": None, **settings})
    trainer = Trainer(accelerator="cpu", logger=False, enable_progress_bar=False, enable_checkpointing=False)
    with pytest.raises(ValueError, match=message):
        trainer.predict(Restorer(prior, ConjugateMoments(2), Denoising(), 0.1), data)


def test_given_measurements_without_the_array_of_their_operator_are_told_in_one_line(tmp_path):
    np.savez(tmp_path / "scan.npz", kspace=np.ones((3, 8, 8), np.complex64), maps=np.ones((3, 8, 8), np.complex64))
    source = Arrays(tmp_path, key="kspace")
    data = RestorationDataModule(source, MultiCoil(None, CartesianLines(2.0)), image_size=None, measurements=True)
    prior = NeverAsked(torch.zeros(1, 2, 8, 8), torch.ones(1))
    trainer = Trainer(accelerator="cpu", logger=False, enable_progress_bar=False, enable_checkpointing=False)
    with pytest.raises(ValueError, match=r"None of the 1 arrays .*scan.npz: scan has no array maps .*data.source.parameters"):
        trainer.predict(Restorer(prior, ConjugateMoments(2), data.operator), data)


def test_one_array_with_nan_is_left_out_and_values_far_outside_are_told_of(tmp_path):
    shape, folder = SHAPES["signal"], tmp_path / "arrays"
    write(folder, shape)
    np.save(folder / "a1.npy", np.full(shape, np.nan, np.float32))
    with pytest.warns(UserWarning, match="left out") as told:
        results = restore(folder, tmp_path, shape)
    told = [str(warning.message) for warning in told]
    assert sorted(results.records) == [0, 2]
    assert any("a1.npy holds NaN or infinity: left out" in line for line in told)
    assert any(
        "arrays') holds values from" in line and "far outside of -1 to 1: set data.source.value_range" in line for line in told
    )
    assert results.summary["left_out"][0]["reason"].endswith("a1.npy holds NaN or infinity")


def test_a_noise_map_is_refused_at_the_check(tmp_path):
    write(tmp_path / "arrays", SHAPES["signal"])
    std = 1 + torch.rand(2, 8)
    with pytest.raises(ValueError, match="noise_std of many numbers needs a LinearOperator, and Quantization is none"):
        RestorationDataModule(Arrays(tmp_path / "arrays"), cclight.Quantization(), std).setup("predict")
    photographs = RestorationDataModule(cclight.SamplePhotographs(), cclight.AveragePooling(4), std, image_size=32)
    with pytest.raises(ValueError, match=r"\(2, 8\), which does not broadcast to y's \(1, 3, 8, 8\): give \(3, 8, 8\)"):
        photographs.setup("predict")


@pytest.mark.parametrize(("axis", "shape"), [(-1, (4, 4, 2)), (1, (4, 2, 4)), (None, (4, 4))])
def test_measurements_are_written_with_the_axes_of_their_source(axis, shape, tmp_path):
    """Those that were given come back as they were; those that were made lie as the clean arrays do."""
    (tmp_path / "arrays").mkdir()
    array = np.random.default_rng(0).uniform(-0.5, 0.5, shape).astype(np.float32)
    np.save(tmp_path / "arrays" / "a0.npy", array)
    channels = 1 if axis is None else 2
    prior = GaussianMixture(torch.zeros(1, channels, 4, 4), torch.ones(1))
    for given in (True, False):
        run = RunFolder(f"given{given}", str(tmp_path))
        run.open("{}")
        source = Arrays(tmp_path / "arrays", channel_axis=axis)
        data = RestorationDataModule(source, Denoising(), image_size=None, measurements=given)
        trainer = Trainer(accelerator="cpu", logger=False, enable_progress_bar=False, enable_checkpointing=False)
        try:
            predict(Restorer(prior, ConjugateMoments(2), Denoising()), data, [ImageWriter(run), MetricsCallback(run)], trainer)
        finally:
            run.close()
        written = np.load(tmp_path / f"given{given}" / "measurement" / "00000_a0.npy")
        np.testing.assert_allclose(written, array, rtol=1e-6)


def test_a_damaged_record_is_told_in_one_line(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "arrays", SHAPES["signal"])
    restore(tmp_path / "arrays", tmp_path / "runs", SHAPES["signal"], mean=50.0, std=10.0)
    records = tmp_path / "runs" / "out" / "records" / "00000.jsonl"
    before = records.read_text()
    for old, new, line in (
        ('"scale": 10.0', '"scale": "ten"', "the record of image 0 is damaged, its units are"),
        ('"channel_axis": 0', '"channel_axis": 7', "has no channel axis 7"),
    ):
        records.write_text(before.replace(old, new))
        assert main(["evaluate", "runs/out"]) == 2
        (told,) = capsys.readouterr().err.strip().splitlines()
        assert line in told
        assert "with --run.resume true" in told


@pytest.mark.parametrize("shape", [SHAPES["signal"], SHAPES["volume"]], ids=["signal", "volume"])
@pytest.mark.parametrize("name", [n for n in SAMPLERS if n not in ("DDRM", "FromNoise", "LATINO", "InLatents")])
@pytest.mark.parametrize("noise_std", [0.0, 0.1])
def test_every_sampler_takes_any_number_of_dimensions(name, shape, noise_std):
    """As it takes the same numbers as an image of one row; those that ask for singular values stay out."""
    if name in ("ConjugateTilt", "DDNM") and noise_std:
        pytest.skip("needs a SpectralOperator")
    flat = (1, 1, int(np.prod(shape)))
    sampler = getattr(cclight, name)()
    sampler = getattr(cclight, name)(**({"steps": 4} if hasattr(sampler, "steps") and name != "GuidedODE" else {}))
    noise, images = normal(2, *shape, seed=3), []
    for form in (shape, flat):
        means, variances = 0.4 * normal(2, *shape), 0.02 * torch.ones(2, *shape, dtype=torch.float64)
        prior = GaussianMixture(means.view(2, *form), variances.view(2, *form))
        operator = RandomProjection(5, form)
        y = operator(prior.sample(2, torch.Generator().manual_seed(0)))
        images.append(sampler.sample(prior, operator, y, noise.view(2, *form), noise_std=noise_std).image)
    torch.testing.assert_close(images[0].flatten(1), images[1].flatten(1), rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("shape", [SHAPES["signal"], SHAPES["volume"]], ids=["signal", "volume"])
@pytest.mark.parametrize("name", [n for n in SAMPLERS if n not in ("FromNoise", "LATINO", "InLatents")])
@pytest.mark.parametrize(("kind", "noise_std"), [("mask", 0.0), ("mask", 0.1), ("denoising", 0.1)])
def test_every_sampler_takes_spectral_operators_of_any_number_of_dimensions(name, shape, kind, noise_std):
    flat, sides = (shape[0], 1, int(np.prod(shape[1:]))), shape[1:]
    sampler = getattr(cclight, name)()
    sampler = getattr(cclight, name)(**({"steps": 4} if hasattr(sampler, "steps") and name != "GuidedODE" else {}))
    noise, kept = normal(2, *shape, seed=3), RandomPixels(0.4)(shape)
    images = []
    for form in (shape, flat):
        means, variances = 0.4 * normal(2, *shape), 0.02 * torch.ones(2, *shape, dtype=torch.float64)
        prior = GaussianMixture(means.view(2, *form), variances.view(2, *form))
        operator = Inpainting(kept.view(1, *form[1:])) if kind == "mask" else Denoising()
        y = operator(prior.sample(2, torch.Generator().manual_seed(0)))
        images.append(sampler.sample(prior, operator, y, noise.view(2, *form), noise_std=noise_std).image)
    assert images[0].shape == (2, shape[0], *sides)
    torch.testing.assert_close(images[0].flatten(1), images[1].flatten(1), rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("kind", ["mask", "maps", "kernel"])
def test_what_lies_beside_each_image_reaches_its_operator(kind, tmp_path):
    """Noiseless and more steps than it takes: each restoration meets what its own operator measured."""
    shape = (2 if kind == "maps" else 1, 8, 8)
    (tmp_path / "scans").mkdir()
    images = mixture(shape).sample(2, torch.Generator().manual_seed(0))
    own = []
    for place, image in enumerate(images):
        draw = np.random.default_rng(place)
        beside = {
            "mask": (draw.random((8, 8)) < 0.5).astype(np.float32),
            "maps": (draw.normal(size=(3, 8, 8)) + 1j * draw.normal(size=(3, 8, 8))).astype(np.complex64),
            "kernel": draw.random((3, 3)).astype(np.float32),
        }[kind]
        own.append(torch.from_numpy(beside))
        np.savez(tmp_path / "scans" / f"s{place}.npz", image=image.float().numpy(), **{kind: beside})
    operator = {
        "mask": FourierSampling(OwnMask("mask")),
        "maps": MultiCoil(None, CartesianLines(2.0)),
        "kernel": CircularBlur(OwnKernel("kernel")),
    }[kind]
    source = Arrays(tmp_path / "scans", key="image", parameters=[kind])
    data = RestorationDataModule(source, operator, image_size=None, batch_size=2)
    trainer = Trainer(accelerator="cpu", logger=False, enable_progress_bar=False, enable_checkpointing=False)
    run = RunFolder("out", str(tmp_path))
    run.open("{}")
    try:
        results = predict(Restorer(mixture(shape), ConjugateMoments(6), operator), data, [MetricsCallback(run)], trainer)
    finally:
        run.close()
    assert len(results.records) == 2
    of_each = [operator.of(f"s{place}", {kind: array}) for place, array in enumerate(own)]
    a, b = (one(images[:1].float()) for one in of_each)
    assert not torch.allclose(a, b)
    assert all(value < 0.02 for value in results.values("consistency").values())


def test_pictures_among_arrays_go_through_the_command_line(tmp_path, monkeypatch):
    """Values in [0, 4095]: a picture and an array of each, and `evaluate` measures the arrays."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "scans").mkdir()
    for place in range(2):
        scan = np.random.default_rng(place).uniform(500, 3000, (3, 8, 8)).repeat(4, 1).repeat(4, 2).astype(np.float32)
        np.save(tmp_path / "scans" / f"s{place}.npy", scan)
    source = "{class_path: Arrays, init_args: {path: scans, value_range: [0, 4095]}}"
    arguments = ["--data.source", source, "--run.name", "scans", "--data.image_size", "null"]
    assert main(["predict", "--config", "sr.yaml", *arguments, "--model.sampler.init_args.steps", "2"]) == 0
    run = tmp_path / "runs" / "scans"
    restored, clean = (np.load(run / kind / "00000_s0.npy") for kind in ("restored", "clean"))
    assert restored.shape == (3, 32, 32)
    assert (run / "restored" / "00000_s0.png").is_file()
    error = np.linalg.norm(restored - clean) / np.linalg.norm(clean)
    assert 1e-3 < error < 0.4
    before = json.loads((run / "metrics.json").read_text())["metrics"]
    assert main(["evaluate", "runs/scans"]) == 0
    after = json.loads((run / "metrics.json").read_text())["metrics"]
    assert after["psnr"]["mean"] == pytest.approx(before["psnr"]["mean"], abs=1e-3)
    assert after["nrmse"]["mean"] == pytest.approx(before["nrmse"]["mean"], rel=1e-4)


def write_mixture(path, shape):
    prior = mixture(shape)
    np.savez(path, means=prior.means.view(2, *shape).numpy(), covariances=prior.variances.view(2, *shape).numpy())


OWN = """
operator: {class_path: Inpainting, init_args: {mask: {class_path: RandomPixels, init_args: {missing: 0.5}}}}
noise_std: 0.05
model:
  prior: {class_path: GaussianMixture, init_args: {means: prior.npz}}
  sampler: {class_path: ConjugateMoments, init_args: {steps: 6}}
data:
  source: {class_path: Arrays, init_args: {path: arrays, mean: 50, std: 10}}
"""


@pytest.mark.parametrize("kind", ["signal", "volume"])
def test_signals_and_volumes_go_through_the_command_line(kind, tmp_path, monkeypatch, capsys):
    """A configuration, a prior from a file: restored, measured, compared, reported and evaluated, closer than the mean is."""
    monkeypatch.chdir(tmp_path)
    shape = SHAPES[kind]
    drawn = write(tmp_path / "arrays", shape)
    write_mixture("prior.npz", shape)
    (tmp_path / "own.yaml").write_text(OWN)
    assert main(["predict", "--config", "own.yaml"]) == 0
    assert main(["predict", "--config", "own.yaml", "--run.name", "ddrm", "--model.sampler", "DDRM"]) == 0
    for place, image in enumerate(drawn):
        restored, other = (np.load(f"runs/{run}/restored/{place:05d}_a{place}.npy") for run in ("own", "ddrm"))
        assert restored.shape == other.shape == shape
        assert np.sqrt(np.mean((restored - (50 + 10 * image.numpy())) ** 2)) < 2.5
    before = json.loads((tmp_path / "runs/own/metrics.json").read_text())["metrics"]
    assert main(["evaluate", "runs/own"]) == 0
    after = json.loads((tmp_path / "runs/own/metrics.json").read_text())["metrics"]
    for name in ("psnr", "nrmse"):
        assert after[name]["mean"] == pytest.approx(before[name]["mean"], rel=1e-5)
    capsys.readouterr()
    assert main(["compare", "runs/own", "runs/ddrm"]) == 0
    assert "NRMSE" in capsys.readouterr().out
    assert main(["table", "runs/own", "runs/ddrm"]) == 0
    assert f"{before['nrmse']['mean']:.4f}" in capsys.readouterr().out
    assert main(["report", "runs/own", "runs/ddrm"]) == 0
    assert "NRMSE" in (tmp_path / "runs" / "report.html").read_text()


@pytest.mark.parametrize("samples", [1, 2])
def test_of_volumes_the_slice_in_the_middle_is_shown_and_of_signals_nothing(samples, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for kind in ("signal", "volume"):
        write(tmp_path / "arrays", SHAPES[kind], 2)
        write_mixture("prior.npz", SHAPES[kind])
        (tmp_path / "own.yaml").write_text(OWN)
        assert main(["predict", "--config", "own.yaml", "--run.name", kind, "--samples", str(samples)]) == 0
        shutil.rmtree("arrays")
    assert not list((tmp_path / "runs" / "signal").rglob("*.png"))
    run = tmp_path / "runs" / "volume"
    assert (run / "grid.png").is_file()
    for part in ("restored", "clean", *(("mean",) if samples == 2 else ())):
        array = (np.load(run / part / "00001_a1.npy") - 50) / 10 / 3  # three standard deviations are black and white
        expected = np.clip(np.round((array[0, 1] + 1) / 2 * 255), 0, 255)
        picture = np.asarray(Image.open(run / part / "00001_a1.png")).astype(float)
        assert picture.shape[:2] == (3, 4)
        assert np.abs(picture.reshape(3, 4, -1) - expected[..., None]).max() <= 1
    if samples == 2:
        assert np.load(run / "std" / "00001_a1.npy").shape == SHAPES["volume"]
        assert (run / "std" / "00001_a1.png").is_file()


WRONG = {
    "NaN": (["--data.on_error", "raise"], "arrays/a1.npy holds NaN or infinity"),
    "objects": (["--data.source.path", "objects"], "o.npy cannot be read (it holds Python objects, which are never unpickled"),
    "complex": (["--data.source.path", "complex"], "c.npy: it holds complex numbers, and clean images are real"),
    "zeros in a noise map": (["--noise_std", "zeros.npy"], "noise_std zeros.npy: 16 of 16 numbers are no standard deviations"),
    "another noise map": (
        ["--noise_std", "short.npy"],
        "noise_std has the shape (3,), which does not broadcast to y's (1, 2, 8)",
    ),
    "nonlinear": (["--noise_std", "std.npy", "--operator", "HDR"], "noise_std of many numbers needs a LinearOperator, and HDR"),
    "no mixture": (["--model.prior.means", "none.npz"], "There is no mixture none.npz: give an array file"),
    "rows": (
        ["--operator", "AveragePooling"],
        "AveragePooling looks at rows and columns, and the images here have the shape (2, 8)",
    ),
    "pictures": (
        ["--model.prior", "{class_path: SmallPrior}"],
        "SmallPrior takes images of 2 sides, (C, H, W), got the shape (2, 8)",
    ),
}


@pytest.mark.parametrize("case", WRONG)
def test_bad_input_gets_one_line_and_leaves_nothing(case, tmp_path, monkeypatch, capsys):
    """As a user meets it: before any restoration, without a traceback or a run folder."""
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "arrays", SHAPES["signal"])
    write_mixture("prior.npz", SHAPES["signal"])
    (tmp_path / "own.yaml").write_text(OWN)
    if case == "NaN":
        np.save("arrays/a1.npy", np.full(SHAPES["signal"], np.nan))
    for name, array in {"objects/o": np.array([{}, 1], object), "complex/c": np.ones((2, 8), complex)}.items():
        (tmp_path / name).parent.mkdir()
        np.save(f"{name}.npy", array, allow_pickle=True)
    for name, array in {"zeros": np.zeros((2, 8)), "short": np.ones(3), "std": np.linspace(0.1, 0.2, 16).reshape(2, 8)}.items():
        np.save(f"{name}.npy", array)
    arguments, line = WRONG[case]
    assert main(["predict", "--config", "own.yaml", *arguments]) in (1, 2)
    told = [words for words in capsys.readouterr().err.splitlines() if words.startswith("cclight predict: ")]
    assert len(told) == 1
    assert line in told[0]
    assert not (tmp_path / "runs").is_dir() or not list((tmp_path / "runs").iterdir())


@pytest.mark.slow
def test_a_search_looks_at_the_metrics_of_arrays(tmp_path, monkeypatch, capsys):
    pytest.importorskip("optuna", reason="needs optuna: pip install 'cclight[tune]'")
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "arrays", SHAPES["signal"])
    write_mixture("prior.npz", SHAPES["signal"])
    (tmp_path / "own.yaml").write_text(OWN)
    space = "model.sampler.init_args.guidance: {low: 0.5, high: 2.0}"
    (tmp_path / "search.yaml").write_text(f"{{trials: 2, objective: nrmse, space: {{{space}}}}}")
    assert main(["tune", "--config", "own.yaml", "--search", "search.yaml"]) == 0
    assert "NRMSE" in capsys.readouterr().out


def test_complex_measurements_go_through_the_command_line(tmp_path, monkeypatch):
    """Frequencies as a scanner gave them: what comes back is nearly the best there is, and they are kept."""
    monkeypatch.chdir(tmp_path)
    shape, std = (2, 8, 8), 0.02
    write_mixture("prior.npz", shape)
    images = mixture(shape).sample(2, torch.Generator().manual_seed(0)).float()
    operator = FourierSampling(CartesianLines(2.0), complex_images=True)
    y = operator(images)
    y = y + std * torch.view_as_complex(normal(*y.shape, 2).float()) / 2**0.5
    (tmp_path / "kspace").mkdir()
    for place in range(2):
        np.save(f"kspace/k{place}.npy", y[place].numpy())
    lines = "{class_path: CartesianLines, init_args: {acceleration: 2.0}}"
    (tmp_path / "mri.yaml").write_text(f"""
operator: {{class_path: FourierSampling, init_args: {{mask: {lines}, complex_images: true}}}}
noise_std: {std}
model:
  prior: {{class_path: GaussianMixture, init_args: {{means: prior.npz}}}}
  sampler: {{class_path: ConjugateMoments, init_args: {{steps: 8}}}}
data:
  source: {{class_path: Arrays, init_args: {{path: kspace}}}}
  measurements: true
""")
    assert main(["predict", "--config", "mri.yaml"]) == 0
    exact = mixture(shape).posterior(operator, y, std).mean
    for place in range(2):
        restored = torch.from_numpy(np.load(f"runs/mri/restored/{place:05d}_k{place}.npy"))
        assert restored.shape == shape
        assert (restored - images[place]).norm() < 1.5 * (exact[place] - images[place]).norm()
        kept = np.load(f"runs/mri/measurement/{place:05d}_k{place}.npy")
        np.testing.assert_array_equal(kept, y[place].numpy())
