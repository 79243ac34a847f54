"""cclight/priors/download.py: against a real server on loopback."""

import socket
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from cclight.priors.checkpoints import CheckpointError
from cclight.priors.download import download
from tests.priors.conftest import CONTENT, SHA256


def test_a_broken_download_resumes_where_it_stopped(server, tmp_path):
    server.breaks = [100_000]
    target = download(server.url, tmp_path / "new" / "weights.pt", SHA256)
    assert target.read_bytes() == CONTENT
    assert server.requests == [0, 100_000]


def test_a_later_call_resumes_what_an_earlier_one_left(server, tmp_path):
    server.breaks = [100_000]
    target = tmp_path / "weights.pt"
    with pytest.raises(
        CheckpointError, match=r"broke after 100000 of 300000 bytes\): run again to continue, or save the file by"
    ):
        download(server.url, target, SHA256, attempts=1)
    assert not target.exists()
    assert download(server.url, target, SHA256).read_bytes() == CONTENT
    assert server.requests == [0, 100_000]


def test_a_server_without_ranges_starts_over(server, tmp_path):
    server.breaks, server.ranges = [100_000], False
    assert download(server.url, tmp_path / "weights.pt", SHA256).read_bytes() == CONTENT


def test_a_part_that_is_already_whole_is_taken(server, tmp_path):
    (tmp_path / "weights.pt.part").write_bytes(CONTENT)
    assert download(server.url, tmp_path / "weights.pt", SHA256).read_bytes() == CONTENT
    assert server.requests == [len(CONTENT)]


def test_a_part_longer_than_the_file_starts_over(server, tmp_path):
    (tmp_path / "weights.pt.part").write_bytes(CONTENT + b"more")
    assert download(server.url, tmp_path / "weights.pt", SHA256).read_bytes() == CONTENT


def test_a_wrong_checksum_is_refused_and_leaves_no_file(server, tmp_path):
    with pytest.raises(
        CheckpointError, match=rf"has the sha256 {SHA256}, its publisher says 0+: it is damaged .* fetch it again"
    ):
        download(server.url, tmp_path / "weights.pt", "0" * 64)
    assert [path.name for path in tmp_path.iterdir() if path.suffix != ".lock"] == []


def test_a_refusal_is_final(server, tmp_path):
    with pytest.raises(CheckpointError, match="404"):
        download(server.url + "x", tmp_path / "weights.pt")
    assert len(server.requests) == 1


def test_without_a_network_one_attempt_is_enough(tmp_path):
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        began = time.monotonic()
        with pytest.raises(CheckpointError, match=r"cannot be fetched .*or save the file by hand as"):
            download(f"http://127.0.0.1:{unused.getsockname()[1]}/weights.pt", tmp_path / "weights.pt")
    assert time.monotonic() - began < 2


def test_racing_processes_fetch_once(server, tmp_path):
    target = tmp_path / "weights.pt"
    with ThreadPoolExecutor(4) as pool:
        files = list(pool.map(lambda _: download(server.url, target, SHA256), range(4)))
    assert {file.read_bytes() for file in files} == {CONTENT}
    assert server.requests == [0]
