"""Two nodes of one process each, as torchrun launches them, here on one machine: one results folder, or none that both see."""

import json
import os
import socket
import subprocess
import sys

import pytest

pytestmark = pytest.mark.slow


def launch(photographs, folders):
    """`cclight predict` on two nodes, each in its own folder; what became of each."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    running = []
    for node, folder in enumerate(folders):
        torchrun = (
            "-m", "torch.distributed.run", "--nnodes", "2", "--nproc-per-node", "1", "--node-rank", str(node),
            "--rdzv-backend", "static", "--master-addr", "127.0.0.1", "--master-port", str(port),
        )  # fmt: skip
        predict = (
            "-m", "cclight", "predict", "--config", "sr.yaml", "--data.source", "ImageFolder", "--data.source.init_args.path",
            str(photographs), "--data.image_size", "32", "--metrics.per_image", "[PSNR]", "--trainer.accelerator", "cpu",
            "--trainer.num_nodes", "2", "--trainer.devices", "1", "--trainer.enable_progress_bar", "false",
        )  # fmt: skip
        line = (sys.executable, *torchrun, *predict)
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        running.append(subprocess.Popen(line, cwd=folder, env=environment, stdout=-1, stderr=-1, text=True))
    told = [process.communicate(timeout=180) for process in running]
    return [(process.returncode, *streams) for process, streams in zip(running, told, strict=True)]


def test_nodes_that_share_the_folder_share_the_work(photographs_of, tmp_path):
    ends = launch(photographs_of(3, 32), [tmp_path, tmp_path])
    assert [code for code, *_ in ends] == [0, 0], ends
    run = tmp_path / "runs" / "sr"
    assert [len((run / "records" / f"0000{node}.jsonl").read_text().splitlines()) for node in (0, 1)] == [2, 1]
    assert json.loads((run / "metrics.json").read_text())["images"] == 3
    assert len(list((run / "restored").glob("*.png"))) == 3


def test_nodes_that_do_not_share_it_are_told_and_nobody_hangs(photographs_of, tmp_path):
    for node in ("a", "b"):
        (tmp_path / node).mkdir()
    ends = launch(photographs_of(3, 32), [tmp_path / "a", tmp_path / "b"])
    assert all(code != 0 for code, *_ in ends), ends
    assert "Rank 1 does not see the run folder" in ends[1][2]
    assert not list(tmp_path.rglob("metrics.json"))
