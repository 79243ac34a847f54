"""Two nodes of one process each, as torchrun launches them, here on one machine: one results folder, or one on each node."""

import contextlib
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from cclight.commands.evaluate import main as evaluate
from cclight.runs.folder import RunFolder
from cclight.runs.results import Run

pytestmark = pytest.mark.slow


def start(photographs, folders, *options):
    """`cclight predict` on nodes of one process each, each in its own folder."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    running = []
    nodes = str(len(folders))
    for node, folder in enumerate(folders):
        folder.mkdir(exist_ok=True)
        torchrun = (
            "-m", "torch.distributed.run", "--nnodes", nodes, "--nproc-per-node", "1", "--node-rank", str(node),
            "--rdzv-backend", "static", "--master-addr", "127.0.0.1", "--master-port", str(port),
        )  # fmt: skip
        predict = (
            "-m", "cclight", "predict", "--config", "sr.yaml", "--data.source", "ImageFolder", "--data.source.init_args.path",
            str(photographs), "--data.image_size", "32", "--data.batch_size", "1", "--metrics.per_image", "[PSNR]",
            "--trainer.accelerator", "cpu", "--trainer.num_nodes", nodes, "--trainer.devices", "1",
            "--trainer.enable_progress_bar", "false",
        )  # fmt: skip
        line = (sys.executable, *torchrun, *predict, *options)
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONFAULTHANDLER": "1"}
        running.append(subprocess.Popen(line, cwd=folder, env=environment, stdout=-1, stderr=-1, text=True))
    return running


def launch(photographs, folders, *options, fails=False):
    """The same to its end; what each has said."""
    running = start(photographs, folders, *options)
    with ThreadPoolExecutor(len(running)) as readers:
        told = list(readers.map(read_to_the_end, running))
    assert all((process.returncode != 0) == fails for process in running), "\n".join(told)
    return told


def read_to_the_end(process, patience=180):
    """What a node says. One that does not end is made to, and then says where it was."""
    try:
        return "".join(process.communicate(timeout=patience))
    except subprocess.TimeoutExpired:
        workers = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
        for pid in (*map(int, workers), process.pid):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGABRT)
        return f"Ended after {patience} s:\n" + "".join(process.communicate())


def pictures(run, kinds=("restored", "samples", "measurement", "clean", "mean", "std", "rows")):
    return {str(p.relative_to(run)): p.read_bytes() for kind in kinds for p in sorted((run / kind).glob("*"))}


def inodes(*runs):
    return {path: path.stat().st_ino for run in runs for path in (run / "restored").iterdir()}


def put_together(*runs):
    """The folders of nodes, copied beside the first one and merged as rank 0 says."""
    copies = [shutil.copytree(run, runs[0].parent / f"copy{number}") for number, run in enumerate(runs[1:])]
    whole = runs[0].parent / "whole"
    evaluate([str(path) for path in (runs[0], *copies)] + ["--into", str(whole)])
    return Run.read(whole)


def assert_same(one, two):
    """Two runs hold the same pictures and numbers, but for times."""
    assert pictures(one.path) == pictures(two.path)
    assert one.lines.keys() == two.lines.keys()
    for key, line in one.lines.items():
        assert {k: v for k, v in line.items() if k != "seconds"} == {k: v for k, v in two.lines[key].items() if k != "seconds"}
    assert one.metrics.keys() == two.metrics.keys()
    for name in one.metrics.keys() - {"seconds"}:
        assert one.metrics[name] == two.metrics[name]


@pytest.fixture
def nodes(tmp_path):
    return [tmp_path / "a", tmp_path / "b"]


@pytest.fixture
def runs(nodes):
    return [folder / "runs" / "sr" for folder in nodes]


def test_nodes_that_share_the_folder_share_the_work(photographs_of, tmp_path):
    told = launch(photographs_of(3, 32), [tmp_path, tmp_path])
    run = tmp_path / "runs" / "sr"
    assert [len((run / "records" / f"0000{node}.jsonl").read_text().splitlines()) for node in (0, 1)] == [2, 1]
    assert list(Run.read(run).records) == [0, 1, 2]
    assert len(list((run / "restored").glob("*.png"))) == 3
    assert not any("warning" in text for text in told)


def test_nodes_that_share_none_have_a_run_each_which_go_together(photographs_of, tmp_path, nodes, runs):
    photographs = photographs_of(5, 32)
    told = launch(photographs, nodes)
    assert [list(Run.read(run).records) for run in runs] == [[0, 2, 4], [1, 3]]
    for run in runs:
        found = Run.read(run)
        assert found.metrics["psnr"]["images"] == len(found.records)
        assert found.mean("psnr") == pytest.approx(sum(found.values("psnr").values()) / len(found.records))
        assert (run / "grid.png").is_file()
    host = socket.gethostname()
    lacking = re.search(r"runs/sr lacks (\d) of the run's (\d) images, (.*), which lie on .*: 2 in (\S+)\. Copy", told[0])
    assert lacking.groups() == ("2", "5", "1 (photo1), 3 (photo3)", f"{host}:{runs[1]}")
    assert "cclight evaluate runs/sr FOLDER --into runs/sr-whole" in told[0]
    assert f"Rank 1 sees no run folder of another rank: what it restores goes to {host}:{runs[1]}" in told[1]
    launch(photographs, [tmp_path / "one", tmp_path / "one"])
    assert_same(put_together(*runs), Run.read(tmp_path / "one" / "runs" / "sr"))


def test_nodes_that_were_killed_go_on_with_what_neither_of_them_has(photographs_of, tmp_path, nodes, runs):
    photographs = photographs_of(8, 32)
    steps = ("--model.sampler.init_args.steps", "40")
    running = start(photographs, nodes, *steps)
    folders = [RunFolder("sr", root=str(run.parent)) for run in runs]
    while not all(folder.finished() for folder in folders):
        assert [process.poll() for process in running] == [None, None]
        time.sleep(0.01)
    for folder in folders:  # torchrun keeps its processes in groups of their own, and the lock knows them
        os.kill(int(re.match(r"process (\d+) ", folder.lock.holder())[1]), signal.SIGKILL)
    for process in running:
        process.communicate()
        assert process.returncode != 0
    done = [set(folder.finished()) for folder in folders]
    before = inodes(*runs)
    kept = {path: inode for path, inode in before.items() if int(path.name[:5]) in done[0] | done[1]}
    assert 2 <= len(kept) < 8
    # The other way round: each has the share of the other, and restores of it what the other has not done.
    launch(photographs, nodes[::-1], *steps)
    assert kept == {path: inode for path, inode in inodes(*runs).items() if path in kept}
    shares = [set(Run.read(run).records) for run in runs]
    assert shares[0] >= done[0]
    assert shares[1] >= done[1]
    assert shares[0] | shares[1] == set(range(8))
    assert not shares[0] & shares[1]
    told = launch(photographs, nodes, *steps, fails=True)
    assert "already holds a finished run" in told[0]
    launch(photographs, [tmp_path / "one", tmp_path / "one"], *steps)
    assert_same(put_together(*runs), Run.read(tmp_path / "one" / "runs" / "sr"))


def test_two_of_three_nodes_share_a_folder_and_a_run_goes_on_with_more_samples(photographs_of, tmp_path, nodes, runs):
    photographs = photographs_of(4, 32)
    a, b = nodes
    launch(photographs, [a, b, b], "--samples", "2")
    assert [list(Run.read(run).records) for run in runs] == [[0, 3], [1, 2]]
    assert sorted(path.name for path in (runs[1] / "records").glob("0*")) == ["00001.jsonl", "00002.jsonl"]
    assert len(list((runs[1] / "std").glob("*.npy"))) == 2
    # Now both ranks have half of what they had: an image lies in one folder, with all of its samples.
    launch(photographs, [a, b], "--samples", "3", "--run.resume", "true")
    assert [list(Run.read(run).records) for run in runs] == [[0, 2], [1, 3]]
    launch(photographs, [tmp_path / "one", tmp_path / "one"], "--samples", "3")
    assert_same(put_together(*runs), Run.read(tmp_path / "one" / "runs" / "sr"))


def test_a_node_without_images_has_a_run_of_none(photographs_of, nodes, runs):
    told = launch(photographs_of(1, 32), nodes)
    assert "lacks" not in told[0]
    assert [list(Run.read(run).records) for run in runs] == [[0], []]
    assert list(put_together(*runs).records) == [0]


def test_a_folder_that_a_node_cannot_use_is_told_on_all_and_nobody_hangs(photographs_of, nodes, runs):
    runs[1].mkdir(parents=True)
    (runs[1] / "notes.txt").write_text("mine")
    told = launch(photographs_of(2, 32), nodes, fails=True)
    for text in told:
        assert f"Rank 1 on {socket.gethostname()}: runs/sr is no run of cclight and holds other files (notes.txt)" in text
    assert not runs[0].exists()
    assert [path.name for path in runs[1].iterdir()] == ["notes.txt"]
