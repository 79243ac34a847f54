"""Real processes: two ranks under gloo, kills and full disks."""

import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from cclight.errors import RunError
from cclight.runs.folder import RunFolder
from tests import processes
from tests.callbacks.predict_script import arguments, predict

SCRIPT = Path(__file__).with_name("predict_script.py")
pytestmark = pytest.mark.slow


@pytest.fixture
def command(tmp_path, photographs_of):
    def make(*options, count=7, root="runs", fill=True):
        folder = photographs_of(count) if fill else tmp_path / f"photographs{count}"
        return [sys.executable, str(SCRIPT), str(folder), str(tmp_path / root), *map(str, options)]

    return make


@pytest.fixture
def run_apart(tmp_path, command):
    """Predict in processes of its own; returns the run's path, the restored indices by rank, and the process.

    `launch` leaves it to Lightning to start the other ranks, as at a desk; otherwise each is started as by a cluster.
    """

    def run(*options, count=7, root="runs", fails=False, fill=True, launch=False):
        line = command(*options, count=count, root=root, fill=fill)
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        if launch:
            process = subprocess.run(line, capture_output=True, text=True, timeout=300, env=environment, check=False)
        else:
            process = processes.run(line, env=environment, ranks=arguments(line[2:]).devices)
        assert (process.returncode != 0) == fails, process.stderr
        found = re.findall(r"rank (\d) restored (\[.*\])", process.stdout)
        return tmp_path / root / "run", {int(rank): json.loads(indices) for rank, indices in found}, process

    return run


def contents(path, besides=()):
    return {
        p.relative_to(path): p.read_bytes()
        for p in path.rglob("*")
        if p.is_file() and p.name not in besides and p.parent.name not in ("records", "rows", ".locks")
    }


def assert_same_results(one, two, besides=()):
    """All pictures are the same bytes, all metrics the same to 1e-6."""
    a, b = (contents(path, besides=("metrics.json", "metrics.csv", "config.yaml", *besides)) for path in (one, two))
    assert a.keys() == b.keys()
    assert all(a[path] == b[path] for path in a)
    m, n = (json.loads((path / "metrics.json").read_text()) for path in (one, two))
    assert m["images"] == n["images"]
    assert m["metrics"].keys() == n["metrics"].keys()
    for name, metric in m["metrics"].items():
        assert metric["mean"] == pytest.approx(n["metrics"][name]["mean"], abs=1e-6), name
        assert metric["interval"] == pytest.approx(n["metrics"][name]["interval"], abs=1e-6), name


@pytest.fixture
def whole(run_here):
    """The run in one process, which every other way must meet."""
    return run_here("--distances", root="whole")[0].path


@pytest.mark.parametrize("launch", [False, True])
def test_two_ranks_give_what_one_gives(whole, run_apart, launch):
    path, restored, _ = run_apart("--devices", 2, "--distances", launch=launch)
    assert restored == {0: [0, 2, 4, 6], 1: [1, 3, 5]}
    assert_same_results(path, whole)


def test_list_states_are_merged_where_shares_differ(run_here, run_apart, some_torch_home, monkeypatch):
    """SSIM and LPIPS, whose own states abort or give wrong numbers: two updates on one rank and one on the other, the last
    batch of one image."""
    monkeypatch.setenv("TORCH_HOME", str(some_torch_home))
    options = ("--lpips", "--batch-size", 2, "--image-size", 32)
    run, _, _ = run_here(*options, count=5, root="whole", size=32)
    path, restored, _ = run_apart(*options, "--devices", 2, count=5, fill=False)  # on the photographs made above
    assert restored == {0: [0, 2, 4], 1: [1, 3]}
    assert json.loads((path / "metrics.json").read_text())["metrics"]["lpips"]["images"] == 5
    assert_same_results(path, run.path)


def test_a_rank_without_images(run_here, run_apart):
    run, _, _ = run_here("--distances", count=1, root="whole")
    path, restored, _ = run_apart("--devices", 2, "--distances", count=1)
    assert restored == {0: [0], 1: []}
    expected, results = (json.loads((p / "metrics.json").read_text()) for p in (run.path, path))
    assert results == expected
    assert results["images"] == 1
    assert "needs 2 images" in results["metrics"]["fid"]["unavailable"]


def test_a_rank_with_nothing_left_to_do(whole, run_apart, tmp_path):
    shutil.copytree(whole, tmp_path / "runs" / "run")
    (tmp_path / "runs" / "run" / "metrics.json").unlink()
    (tmp_path / "runs" / "run" / "restored" / "00003_photo3.png").unlink()
    path, restored, _ = run_apart("--devices", 2, "--distances")
    assert restored == {0: [], 1: [3]}
    assert_same_results(path, whole)


@pytest.mark.parametrize("devices", [1, 2])
def test_no_usable_photograph_is_an_error_on_every_rank_and_nobody_hangs(run_apart, photographs_of, devices):
    for file in photographs_of(3).iterdir():
        file.write_bytes(b"no picture")
    path, _, process = run_apart("--devices", devices, count=3, fill=False, fails=True)
    errors = [line for line in process.stderr.splitlines() if line.startswith("error: ")]
    assert errors
    assert all(line.startswith("error: None of the 3 photographs could be used; the first: ") for line in errors)
    assert not (path / "metrics.json").exists()


def test_a_metric_that_one_rank_lacks_is_unavailable_and_nobody_hangs(run_apart):
    path, _, _ = run_apart("--devices", 2, "--distances", "--unavailable-on", 1)
    metrics = json.loads((path / "metrics.json").read_text())["metrics"]
    assert metrics["fid"]["unavailable"] == metrics["kid"]["unavailable"] == "this rank has no weights"
    assert metrics["psnr"]["images"] == 7


def assert_the_same_command_finishes_it(options, before, run, whole, run_apart, told):
    """The run was killed: nothing of it is lost or done again, and the results are those of an unbroken one."""
    assert not (run.path / "metrics.json").exists(), told
    done = {index: run.file("restored", index, record["name"]) for index, record in run.finished().items()}
    assert before <= done.keys(), told
    files = {index: path.stat().st_ino for index, path in done.items()}
    _, restored, _ = run_apart(*options)
    assert sorted(restored[0] + restored[1]) == sorted(set(range(7)) - done.keys()), told
    assert files == {index: path.stat().st_ino for index, path in done.items()}, told
    assert_same_results(run.path, whole)


SLOWLY = ("--devices", 2, "--batch-size", 1, "--distances", "--pause", 0.4)  # rank 0 has work for 1.6 s, rank 1 for 1.2 s


@pytest.mark.parametrize("victim", [0, 1])
def test_one_rank_killed_at_a_random_moment_ends_the_run(whole, command, run_apart, tmp_path, victim):
    """Lightning's launcher ends the other one."""
    seconds = random.uniform(0.001, 0.6)
    line = command(*SLOWLY, "--kill-rank", victim, "--kill-after", seconds)
    process = subprocess.run(line, capture_output=True, timeout=120, check=False)
    told = f"killed {victim} after {seconds:.3f} seconds"
    assert process.returncode != 0, told
    run = RunFolder("run", root=str(tmp_path / "runs"))
    assert_the_same_command_finishes_it(SLOWLY, set(), run, whole, run_apart, told)


def test_all_ranks_killed_at_a_random_moment(whole, command, run_apart, tmp_path):
    seconds = random.uniform(0.001, 0.6)
    run = RunFolder("run", root=str(tmp_path / "runs"))
    ranks = processes.start_ranks(command(*SLOWLY), 2)
    while not any(run.path.glob("records/*.jsonl")):
        assert [rank.poll() for rank in ranks] == [None, None]
        time.sleep(0.01)
    time.sleep(seconds)
    before = set(run.finished())
    for rank in ranks:
        rank.send_signal(signal.SIGKILL)
    for rank in ranks:
        rank.communicate()
        assert rank.returncode == -signal.SIGKILL
    assert_the_same_command_finishes_it(SLOWLY, before, run, whole, run_apart, f"killed after {seconds:.3f} seconds")


def test_a_kill_in_the_middle_and_another_number_of_ranks(whole, run_apart):
    path, _, _ = run_apart("--batch-size", 2, "--pause", 0.3, "--kill-at", 5, fails=True)
    done = list(RunFolder("run", root=str(path.parent)).finished())
    assert done in ([0, 1], [0, 1, 2], [0, 1, 2, 3])  # the batch just before the kill may have been on its way to the disk
    _, restored, _ = run_apart("--devices", 2, "--distances")
    assert restored == {rank: [i for i in range(len(done), 7) if i % 2 == rank] for rank in (0, 1)}
    assert_same_results(path, whole)


def test_a_full_disk_is_one_line_and_loses_nothing_finished(whole, run_apart):
    # Files may not outgrow 1000 bytes: pictures still fit, the records do not for long.
    path, _, process = run_apart("--batch-size", 1, "--grid", 0, "--file-size-limit", 1000, fails=True)
    last = process.stderr.strip().splitlines()[-1]
    assert last.startswith("error: Could not write")
    assert "what is finished is kept" in last
    done = set(RunFolder("run", root=str(path.parent)).finished())
    assert 0 < len(done) < 7
    _, restored, _ = run_apart("--distances")
    assert set(restored[0]) == set(range(7)) - done
    assert_same_results(path, whole, besides=("grid.png",))  # its first rows were never made


def test_a_disk_that_fills_up(whole, small_disk, run_apart, run_here, tmp_path):
    (tmp_path / "runs").symlink_to(small_disk)
    (small_disk / "filler").write_bytes(bytes(2**20 - 20 * 4096))
    # The pause: records follow pictures, and the disk is full soon.
    path, _, process = run_apart("--batch-size", 1, "--grid", 0, "--pause", 0.3, fails=True)
    last = process.stderr.strip().splitlines()[-1]
    assert last.startswith("error: Could not write")
    assert "(No space left on device): what is finished is kept" in last
    assert not list(path.rglob("*.tmp"))
    done = set(RunFolder("run", root=str(path.parent)).finished())
    assert 0 < len(done) < 7
    (small_disk / "filler").unlink()
    assert set(run_here("--distances")[2]) == set(range(7)) - done
    assert_same_results(path, whole, besides=("grid.png",))


def test_a_second_run_in_the_folder_is_refused_and_the_first_unharmed(whole, command, run_here, tmp_path):
    go = tmp_path / "go"
    first = processes.start(command("--batch-size", "1", "--hold", go, "--distances"))
    while not (tmp_path / "runs" / "run" / "records" / "00000.jsonl").exists():
        assert first.poll() is None
        time.sleep(0.05)
    with pytest.raises(RunError, match=f"is in use by process {first.pid}"):
        run_here("--overwrite")
    go.touch()
    _, errors = first.communicate()
    assert first.returncode == 0, errors
    assert_same_results(tmp_path / "runs" / "run", whole)


def test_two_ranks_agree_on_what_has_changed(run_here, run_apart, photographs_of, tmp_path):
    """A source that grew in front, lost a picture, and had one edited: the end is that of a run that began with it."""
    run, _, _ = run_here("--devices", 1)
    (run.path / "metrics.json").unlink()
    folder = photographs_of(7)
    (folder / "photo3.png").write_bytes((folder / "photo0.png").read_bytes())
    (folder / "photo6.png").unlink()
    path, restored, process = run_apart("--devices", 2, "--distances", fill=False)
    assert process.stderr.count("2 of 7 finished images were made of other photographs") == 1
    assert restored == {0: [], 1: [3]}
    fresh, _, _ = predict(arguments([str(folder), str(tmp_path / "fresh"), "--distances"]))
    assert_same_results(path, fresh.path)


SAMPLES = ("--samples", 3, "--batch-size", 2)


@pytest.fixture
def sampled(run_here):
    """The run of several samples in one process."""
    return run_here(*SAMPLES, root="sampled", count=5)[0].path


def test_two_ranks_make_the_samples_that_one_makes(sampled, run_apart):
    path, restored, _ = run_apart(*SAMPLES, "--devices", 2, count=5)
    assert restored == {rank: [[index, k] for index in range(rank, 5, 2) for k in range(3)] for rank in (0, 1)}
    assert_same_results(path, sampled)


def test_samples_survive_a_kill_of_all_ranks(sampled, command, run_apart, tmp_path):
    seconds = random.uniform(0.001, 0.6)
    options = (*SAMPLES, "--devices", 2, "--pause", 0.2)
    run = RunFolder("run", root=str(tmp_path / "runs"))
    ranks = processes.start_ranks(command(*options, count=5), 2)
    while not any(run.path.glob("records/*.jsonl")):
        assert [rank.poll() for rank in ranks] == [None, None]
        time.sleep(0.01)
    time.sleep(seconds)
    for rank in ranks:
        rank.send_signal(signal.SIGKILL)
    for rank in ranks:
        rank.communicate()
    told = f"killed after {seconds:.3f} seconds"
    done = [list(key) for key in run.samples() if key[1] >= 0]
    files = {path: path.stat().st_ino for folder in ("restored", "samples") for path in run.path.glob(f"{folder}/*.png")}
    _, restored, _ = run_apart(*SAMPLES, "--devices", 1, count=5)  # and another number of ranks
    assert sorted(restored[0] + done) == [[index, k] for index in range(5) for k in range(3)], told
    kept = [run.file("restored", i, f"photo{i}", k) for i, k in done]
    assert [path.stat().st_ino for path in kept] == [files[path] for path in kept], told
    assert_same_results(run.path, sampled)
