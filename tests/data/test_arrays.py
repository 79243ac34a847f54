"""Arrays: every format, a folder and a stack, units and axes, parameters, and what is refused."""

import json
from dataclasses import asdict

import h5py
import numpy as np
import pytest
import scipy.io
import torch
from safetensors.numpy import save_file

from cclight import Arrays
from cclight.data.array_files import open_arrays, tensor_of
from cclight.data.units import Units
from cclight.operators.pixelwise import AveragePooling


def numbers(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def write(path, **arrays):
    path.parent.mkdir(exist_ok=True)
    match path.suffix:
        case ".npy":
            np.save(path, arrays["image"])
        case ".npz":
            np.savez(path, **arrays)
        case ".pt":
            torch.save({name: torch.from_numpy(array) for name, array in arrays.items()}, path)
        case ".safetensors":
            save_file(arrays, path)
        case ".mat":
            scipy.io.savemat(path, arrays)
        case ".h5":
            with h5py.File(path, "w") as file:
                for name, array in arrays.items():
                    file[name] = array
    return path


def loaded(source):
    return [entry.load() for entry in source]


@pytest.mark.parametrize("suffix", [".npy", ".npz", ".pt", ".safetensors", ".mat", ".h5"])
@pytest.mark.parametrize("shape", [(2, 9), (4, 5, 6), (1, 3, 4, 5)])
def test_every_format_and_number_of_dimensions(tmp_path, suffix, shape):
    folder = tmp_path / "arrays"
    held = [numbers(*shape, seed=seed) for seed in range(3)]
    for place, array in enumerate(held):
        write(folder / f"a{place}{suffix}", image=array)
    source = Arrays(folder)
    assert len(source) == 3
    for place, (values, array) in enumerate(zip(loaded(source), held, strict=True)):
        assert (values.index, values.name) == (place, f"a{place}")
        assert values.values.dtype == torch.float32
        assert np.array_equal(values.values.numpy(), array)
    stack = Arrays(write(tmp_path / f"stack{suffix}", image=np.stack(held)))
    assert [values.name for values in loaded(stack)] == ["stack_0", "stack_1", "stack_2"]
    assert all(np.array_equal(v.values.numpy(), array) for v, array in zip(loaded(stack), held, strict=True))
    assert len({entry.fingerprint() for entry in stack}) == 3


@pytest.mark.parametrize("suffix", [".npz", ".pt", ".safetensors", ".mat", ".h5"])
def test_further_arrays_travel_with_the_image(tmp_path, suffix):
    stack = {"image": numbers(3, 1, 8), "mask": numbers(3, 8, seed=1), "kernel": numbers(5, 1, seed=2), "other": numbers(2, 2)}
    source = Arrays(write(tmp_path / f"s{suffix}", **stack), key="image", parameters=["mask", "kernel"])
    values = loaded(source)[1]
    assert set(values.parameters) == {"mask", "kernel"}
    assert np.array_equal(values.parameters["mask"].numpy(), stack["mask"][1])
    assert np.array_equal(values.parameters["kernel"].numpy(), stack["kernel"])
    before = [entry.fingerprint() for entry in source]
    stack["mask"][1] += 1
    after = [entry.fingerprint() for entry in Arrays(write(tmp_path / f"s{suffix}", **stack), "image", parameters=["mask"])]
    assert before[1] != after[1]


def test_matlab_7_3_counts_its_axes_backwards(tmp_path):
    array = numbers(2, 3, 4)
    with h5py.File(tmp_path / "v.mat", "w", userblock_size=512) as file:
        file["image"] = array.T
        file["kspace"] = np.rec.fromarrays([array.T, 2 * array.T], names="real,imag")
    with open(tmp_path / "v.mat", "r+b") as file:  # the header by which scipy knows the version
        file.write(b"MATLAB 7.3 MAT-file".ljust(124) + b"\x00\x02IM")
    (first, _) = loaded(Arrays(tmp_path / "v.mat", key="image"))
    assert np.array_equal(first.values.numpy(), array[0])
    (first, _) = loaded(Arrays(tmp_path / "v.mat", key="kspace"))
    assert np.array_equal(first.values.numpy(), (array + 2j * array)[0])


def test_the_shapes_of_matlab_files_are_known_without_their_numbers(tmp_path, monkeypatch):
    array = numbers(2, 30, 40)
    parts = {"image": array, "mask": array[0] > 0, "name": "x", "cell": np.array([{}, 1], object), "whole": np.int16([[3, 4]])}
    file = tmp_path / "a.mat"
    scipy.io.savemat(file, parts)
    monkeypatch.setattr(scipy.io, "loadmat", lambda *_, **__: pytest.fail("read"))
    held = open_arrays(file)
    assert {name: (one.shape, one.dtype.kind) for name, one in held.items()} == {
        "image": ((2, 30, 40), "f"),
        "mask": ((30, 40), "u"),
        "whole": ((1, 2), "i"),
    }
    monkeypatch.undo()
    np.testing.assert_array_equal(held["image"][1], array[1])
    np.testing.assert_array_equal(tensor_of(held["mask"]).numpy(), array[0] > 0)


def test_complex_measurements(tmp_path):
    array = (numbers(2, 4, 5) + 1j * numbers(2, 4, 5, seed=1)).astype(np.complex64)
    for suffix in (".npy", ".h5"):
        (values,) = loaded(Arrays(write(tmp_path / suffix[1:] / f"k{suffix}", image=array).parent))
        assert values.values.dtype == torch.complex64
        assert np.array_equal(values.values.numpy(), array)


@pytest.mark.parametrize(("axis", "shape"), [(None, (6, 7)), (-1, (6, 7, 3)), (0, (3, 6, 7)), (1, (6, 3, 7))])
def test_channel_axes_there_and_back(tmp_path, axis, shape):
    array = numbers(*shape)
    source = Arrays(write(tmp_path / "a" / "a.npy", image=array).parent, channel_axis=axis)
    (values,) = loaded(source)
    assert tuple(values.values.shape) == (1 if axis is None else 3, 6, 7)
    assert np.array_equal(source.units.stored(values.values).numpy(), array)
    assert torch.equal(source.units.channels_first(source.units.stored(values.values)), values.values)


def test_units_of_values_and_of_what_was_measured():
    for units in (Units(40.0, 60.0), Units(-3.0, 0.5, ranged=False)):
        values = torch.randn(2, 1, 8, 8) * 30
        image, operator = units.image(values), AveragePooling(2)
        torch.testing.assert_close(units.values(image), values)
        measured = operator(values)
        torch.testing.assert_close(units.measurement(measured, operator), operator(image), atol=1e-4, rtol=1e-4)
        torch.testing.assert_close(units.measured(operator(image), operator), measured, atol=1e-4, rtol=1e-4)
    assert Arrays("x", value_range=(-1000, 3000)).units == Units(1000, 2000)
    assert Arrays("x", mean=2, std=3).units == Units(2, 3, ranged=False)


@pytest.mark.parametrize(
    "written",
    [
        {"centre": 0.0, "scale": "ten"},
        {"centre": 0.0, "scale": 0.0},
        {"centre": float("nan"), "scale": 1.0},
        {"scale": 1.0, "channel_axis": 0.5},
        {"scale": 1.0, "ends": "yes"},
        {"unit": 1},
        "units",
        None,
    ],
)
def test_damaged_units_are_refused(written):
    with pytest.raises(ValueError, match="its units are"):
        Units.read(written)


def test_units_go_through_a_record():
    units = Units(-3.0, 0.5, False, False, None)
    assert Units.read(json.loads(json.dumps(asdict(units)))) == units


@pytest.mark.parametrize(
    ("units", "low", "high", "said"),
    [
        (Units(), -1.5, 1.2, ""),
        (Units(), 0, 255, "values from 0 to 255, far outside of -1 to 1: set data.source.value_range, or mean and std"),
        (Units(), 0.0, 0.9, "values from 0 to 0.9, and images begin at -1: set data.source.value_range to [0, 1]"),
        (Units(), -0.1, 0.9, ""),
        (Units(500, 500), 0, 1000, ""),
        (Units(500, 500), 0, 4095, "values from 0 to 4095, far outside of 0 to 1000"),
        (Units(0, 1, False), -1000, 1000, ""),
        (Units(), float("inf"), -float("inf"), ""),
    ],
)
def test_values_that_cannot_be_meant_are_doubted(units, low, high, said):
    found = units.doubt(low, high)
    assert found.startswith(said)
    assert bool(found) == bool(said)


REFUSED = {
    "whole numbers": ("a.npy", {"image": np.zeros((1, 4), np.int16)}, {}, r"a.npy holds numbers of type int16.*value_range"),
    "empty array": ("a.npy", {"image": np.zeros((1, 0), np.float32)}, {}, r"a.npy holds an empty array"),
    "which": ("a.npz", {"x": numbers(1, 4), "y": numbers(1, 4)}, {}, r"a.npz holds 2 arrays.*\(it holds x, y\).*key"),
    "missing": ("a.npz", {"image": numbers(1, 4)}, {"key": "imag"}, r"a.npz holds no array 'imag': did you mean image\?"),
    "parameter": (
        "a.npz",
        {"x": numbers(1, 4)},
        {"parameters": ["maps"]},
        r"a.npz holds no array 'maps' for param.*holds x",
    ),
    "axis": ("a.npy", {"image": numbers(4, 4)}, {"channel_axis": 2}, r"a.npy holds images of 2 dimensions.*channel_axis is 2"),
    "objects": ("a.npy", {"image": np.array([{}], object)}, {}, r"a.npy .*Python objects, which are never unpickled"),
    "object inside": ("a.npz", {"image": np.array([{}], object)}, {}, r"a.npz holds objects .*nothing is unpickled"),
    "text": ("a.npy", {"image": np.array(["a"])}, {}, r"a.npy holds objects of type <U1"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_used_is_refused_by_name(tmp_path, case):
    name, arrays, arguments, message = REFUSED[case]
    with pytest.raises(ValueError, match=message):
        next(iter(Arrays(write(tmp_path / "f" / name, **arrays).parent, **arguments)))


@pytest.mark.parametrize("suffix", [".npy", ".npz", ".pt", ".safetensors", ".mat", ".h5"])
@pytest.mark.parametrize("content", [b"", b"no array at all, but words and more words" * 9])
def test_files_that_are_none(tmp_path, suffix, content):
    (tmp_path / f"a{suffix}").write_bytes(content)
    with pytest.raises(ValueError, match=rf"a\{suffix} cannot be read"):
        next(iter(Arrays(tmp_path)))


def test_dimensions_that_differ_and_numbers_that_are_none(tmp_path):
    write(tmp_path / "a.npy", image=numbers(1, 4))
    write(tmp_path / "b.npy", image=numbers(1, 6))
    assert [tuple(values.values.shape) for values in loaded(Arrays(tmp_path))] == [(1, 4), (1, 6)]
    write(tmp_path / "b.npy", image=np.full((1, 4), np.nan))
    entries = list(Arrays(tmp_path))
    with pytest.raises(ValueError, match=r"b.npy holds NaN or infinity"):
        entries[1].load()
    write(tmp_path / "c.npy", image=numbers(1, 4, 4))
    with pytest.raises(ValueError, match=r"c.npy has 3 dimensions and a.npy 2"):
        len(Arrays(tmp_path))
    with pytest.raises(FileNotFoundError, match="Arrays finds no"):
        len(Arrays(tmp_path / "none"))


@pytest.mark.parametrize(
    "arguments",
    [
        {"value_range": (1, 1)},
        {"mean": 1},
        {"std": 1},
        {"mean": 0, "std": 1, "value_range": (0, 1)},
        {"mean": 0, "std": 0},
        {"ends": True},
    ],
)
def test_units_that_are_none(arguments):
    with pytest.raises(ValueError, match="Arrays"):
        Arrays("x", **arguments)


def test_nothing_is_unpickled_from_torch_files(tmp_path):
    class Evil:
        def __reduce__(self):
            return (print, ("run",))

    torch.save({"image": Evil()}, tmp_path / "a.pt")
    with pytest.raises(ValueError, match=r"a.pt cannot be read"):
        next(iter(Arrays(tmp_path)))
