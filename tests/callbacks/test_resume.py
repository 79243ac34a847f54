import multiprocessing
import random

import pytest

from cclight.errors import RunError
from cclight.runs.folder import RunFolder
from tests.callbacks import predict_script
from tests.callbacks.predict_script import arguments, predict


def contents(run):
    return {p.relative_to(run.path): p.read_bytes() for p in run.path.rglob("*") if p.is_file() and p.parent.name != ".locks"}


@pytest.fixture
def interrupted(run_here):
    """A run that lost the pictures of images 2 and 5, the records of 4 and 5, and its end."""
    run, _, _ = run_here()
    whole = contents(run)
    for index in (2, 5):
        (run.path / "restored" / f"0000{index}_photo{index}.png").unlink()
    records = run.path / "records" / "00000.jsonl"
    lines = records.read_text().splitlines(keepends=True)
    records.write_text("".join(lines[:4] + lines[6:]) + '{"index": 4, "na')
    (run.path / "metrics.json").unlink()
    (run.path / "grid.png").unlink()
    return run, whole


@pytest.mark.parametrize("batch_size", [3, 2])
def test_only_what_is_missing_is_restored_and_the_end_is_the_same(run_here, interrupted, batch_size):
    run, whole = interrupted
    _, _, indices = run_here("--batch-size", batch_size)
    assert indices == [2, 4, 5]
    again = contents(run)
    for path in whole:
        if path.parts[0] != "records":
            assert again[path] == whole[path], path


def test_a_finished_run_is_not_touched_without_a_word(run_here):
    run, _, _ = run_here()
    whole = contents(run)
    with pytest.raises(RunError, match=r"already holds a finished run"):
        run_here()
    assert contents(run) == whole


def test_resume_of_a_finished_run_restores_nothing(run_here):
    run, _, _ = run_here()
    whole = contents(run)
    assert run_here("--resume")[2] == []
    assert contents(run) == whole


def test_overwrite_restores_everything(run_here):
    run, _, _ = run_here("--config", "seed: 1")
    whole = contents(run)
    assert run_here("--config", "seed: 2", "--overwrite")[2] == list(range(7))
    assert (run.path / "config.yaml").read_text() == "seed: 2"
    assert {p: c for p, c in contents(run).items() if p.name != "config.yaml"} == {
        p: c for p, c in whole.items() if p.name != "config.yaml"
    }


def test_a_failed_image_is_not_tried_again_and_still_listed(run_here):
    with pytest.warns(UserWarning, match="left out"):
        run, _, _ = run_here("--nan", "[3]")
    results = (run.path / "metrics.json").read_text()
    assert run_here("--resume")[2] == []
    assert (run.path / "metrics.json").read_text() == results


def unfinished(run):
    (run.path / "metrics.json").unlink()
    return {path.name: path.stat().st_ino for path in (run.path / "restored").iterdir()}


def assert_as_anew(run, run_here, count):
    """All that the run holds is what a run that began with this source holds."""
    fresh, _, _ = run_here(root="fresh", count=count)
    found, expected = contents(run), contents(fresh)
    assert {path for path in found if path.parts[0] != "records"} == {path for path in expected if path.parts[0] != "records"}
    assert all(found[path] == content for path, content in expected.items() if path.parts[0] != "records")


def test_a_picture_added_in_front_moves_the_others(run_here, photographs_of):
    run, _, _ = run_here(count=3)
    unfinished(run)
    folder = photographs_of(3)
    (folder / "a.png").write_bytes((folder / "photo2.png").read_bytes())
    with pytest.warns(UserWarning, match=r"3 of 3 finished images were made of other photographs .*photo0 \(number 0\)"):
        _, metrics, indices = run_here(count=3)
    assert indices == [0, 1, 2, 3]
    assert [record["name"] for record in metrics.records.values()] == ["a", "photo0", "photo1", "photo2"]
    assert_as_anew(run, run_here, 3)


def test_only_what_has_changed_is_restored_again(run_here, photographs_of):
    run, _, _ = run_here(count=4)
    before = unfinished(run)
    folder = photographs_of(4)
    (folder / "photo1.png").write_bytes((folder / "photo2.png").read_bytes())
    (folder / "photo3.png").unlink()
    (folder / "photo4.png").write_bytes((folder / "photo0.png").read_bytes())
    before_again = {name: before[name] for name in ("00000_photo0.png", "00002_photo2.png")}
    options = arguments([str(folder), str(run.path.parent)])
    with pytest.warns(UserWarning, match="2 of 4 finished images"):
        _, metrics, indices = predict(options)
    assert indices == [1, 3]
    after = {path.name: path.stat().st_ino for path in (run.path / "restored").iterdir()}
    assert before_again.items() <= after.items()
    assert sorted(after) == ["00000_photo0.png", "00001_photo1.png", "00002_photo2.png", "00003_photo4.png"]
    assert list(metrics.records) == [0, 1, 2, 3]


def test_a_finished_run_is_brought_up_to_date(run_here, photographs_of):
    run, _, _ = run_here(count=3)
    folder = photographs_of(3)
    (folder / "photo2.png").unlink()
    with pytest.warns(UserWarning, match="1 of 3 finished images"):
        _, metrics, indices = predict(arguments([str(folder), str(run.path.parent), "--resume"]))
    assert indices == []
    assert list(metrics.records) == [0, 1]
    assert sorted(path.name for path in (run.path / "clean").iterdir()) == ["00000_photo0.png", "00001_photo1.png"]


@pytest.mark.slow
def test_killed_again_and_again_at_random_moments(run_here, photographs_of, tmp_path):
    """Whatever a kill leaves, files are whole and finished images stay as they are; in the end nothing is missing."""
    whole, _, _ = run_here("--batch-size", 1, count=12, root="whole")
    command = [str(photographs_of(12)), str(tmp_path / "runs"), "--batch-size", "1", "--pause", "0.03"]
    processes = multiprocessing.get_context("forkserver")  # a fresh process each time, with all imports done
    processes.set_forkserver_preload([predict_script.__name__])
    run = RunFolder("run", root=str(tmp_path / "runs"))
    files, kills = {}, []
    while not (run.path / "metrics.json").exists():
        assert len(kills) < 100, kills
        process = processes.Process(target=predict_script.predict, args=(predict_script.arguments(command),))
        process.start()
        process.join(random.uniform(0, 0.1 * (1 + len(kills))))  # later and later, so that a slow machine gets on as well
        process.kill()
        process.join()
        kills.append(process.exitcode)
        assert kills[-1] in (0, -9), kills
        # Each start makes rows for the grid, some of images that the grid will not show.
        found = [path.relative_to(run.path) for path in run.path.rglob("[!.]*.png") if path.parent.name != "rows"]
        assert all((run.path / name).read_bytes() == (whole.path / name).read_bytes() for name in found)
        assert all(run.file("restored", index, name).stat().st_ino == inode for (index, name), inode in files.items())
        records = run.finished().values() if run.path.is_dir() else ()
        files = {(r["index"], r["name"]): run.file("restored", r["index"], r["name"]).stat().st_ino for r in records}
    assert kills.count(-9) > 1, kills
    again = contents(run)
    for path, content in contents(whole).items():
        if path.parts[0] != "records":
            assert again[path] == content, path
