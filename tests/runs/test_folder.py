import json
import os
import signal
import subprocess
import sys
import tempfile
import textwrap
import time
from pathlib import Path

import pytest
import torch
from PIL import Image

from cclight.errors import RunError
from cclight.runs.files import write_whole
from cclight.runs.folder import RunFolder
from cclight.runs.pictures import encode_picture, read_png, to_uint8

CONFIG = "model: {steps: 5}\nmetrics: {}\ntrainer: {devices: 1, precision: 32-true}\ndata: {batch_size: 4, seed: 0}\n"


@pytest.fixture
def run(tmp_path):
    run = RunFolder("sr", root=str(tmp_path))
    run.open(CONFIG)
    yield run
    run.close()


def reopened(run, config=CONFIG, **options):
    run.close()
    other = RunFolder(run.path.name, root=str(run.path.parent), **options)
    other.open(config)
    return other


def python(code, *arguments):
    """Another process that runs the code with sys.argv[1:] = arguments."""
    return subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(code), *map(str, arguments)], stdout=-1, stderr=-1, text=True
    )


def finish(run, *indices):
    for index in indices:
        run.write_image("restored", index, f"photo{index}", torch.zeros(3, 4, 4))
    run.append({"index": index, "name": f"photo{index}", "psnr": 20.0 + index} for index in indices)


@pytest.fixture
def plain_users_folder():
    """An empty folder and a user who is not root, for the length of a test: root may write everywhere."""
    root = os.geteuid() == 0
    with tempfile.TemporaryDirectory() as folder:
        if root:
            os.chown(folder, 65534, 65534)
            os.seteuid(65534)
        try:
            yield Path(folder)
        finally:
            if root:
                os.seteuid(0)


class TestPictures:
    def test_rounds_to_the_nearest_level(self):
        levels = torch.arange(256, dtype=torch.float64) / 127.5 - 1
        off = 0.49 / 127.5
        assert torch.equal(to_uint8(levels + off), torch.arange(256, dtype=torch.uint8))
        assert torch.equal(to_uint8(levels - off), torch.arange(256, dtype=torch.uint8))
        assert to_uint8(torch.tensor([-1.7, 1.7])).tolist() == [0, 255]

    @pytest.mark.parametrize("channels", [1, 3])
    def test_what_is_read_is_what_was_written(self, run, channels):
        image = torch.randint(0, 256, (channels, 5, 7), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
        assert torch.equal(read_png(run.write_image("clean", 3, "a", image)), image)

    def test_other_channels_lie_side_by_side(self, tmp_path):
        (tmp_path / "two.png").write_bytes(encode_picture(torch.tensor([[[0, 1]], [[2, 3]]], dtype=torch.uint8)))
        assert read_png(tmp_path / "two.png").tolist() == [[[0, 1, 2, 3]]]

    @pytest.mark.parametrize(
        ("index", "name", "expected"),
        [
            (7, "astronaut", "00007_astronaut.png"),
            (7, "astronaut.JPG", "00007_astronaut.png"),
            (123456, "../../etc/passwd", "123456_passwd.png"),
            (0, "a b/c:d", "00000_c_d.png"),
            (1, "v1.5", "00001_v1.5.png"),
            (2, "", "00002.png"),
            (3, "ü" * 300, f"00003_{'ü' * 60}.png"),
        ],
    )
    def test_names(self, run, index, name, expected):
        assert run.file("restored", index, name) == run.path / "restored" / expected
        run.write_image("restored", index, name, torch.zeros(3, 2, 2))


class TestWriting:
    def test_replaces_and_leaves_nothing_else(self, tmp_path):
        write_whole(tmp_path / "a", b"old")
        write_whole(tmp_path / "a", b"new")
        assert [(p.name, p.read_bytes()) for p in tmp_path.iterdir()] == [("a", b"new")]

    def test_a_full_disk_keeps_what_is_there(self, tmp_path):
        # A limit on the size of files fails in the middle of a write, as a full disk does.
        code = """
            import resource, sys
            from pathlib import Path
            from cclight.errors import RunError
            from cclight.runs.files import write_whole
            path = Path(sys.argv[1])
            write_whole(path, b"old")
            resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
            try:
                write_whole(path, bytes(5000))
            except RunError as error:
                print(error)
        """
        out, err = python(code, tmp_path / "a").communicate(timeout=60)
        assert "Could not write" in out, err
        assert "finished images are kept" in out
        assert out.count("\n") == 1
        assert [(p.name, p.read_bytes()) for p in tmp_path.iterdir()] == [("a", b"old")]

    def test_a_kill_leaves_whole_files_only(self, tmp_path):
        code = """
            import sys, torch
            from cclight.runs.folder import RunFolder
            run = RunFolder("sr", root=sys.argv[1])
            run.open("a: 1")
            print("ready", flush=True)
            image = torch.randint(0, 256, (3, 200, 200), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
            for index in range(100000):
                run.write_image("restored", index, "x", image)
                run.append([{"index": index, "name": "x", "filler": "y" * 2000}])
        """
        process = python(code, tmp_path)
        assert process.stdout.readline() == "ready\n"
        time.sleep(0.4)
        process.send_signal(signal.SIGKILL)
        process.wait()
        run = RunFolder("sr", root=str(tmp_path))
        run.open("a: 1")  # at once: the killed process holds no lock
        assert not list(run.path.rglob("*.tmp"))
        done = run.finished()
        pictures = sorted((run.path / "restored").iterdir())
        assert 0 < len(done) <= len(pictures) <= len(done) + 1
        for path in pictures:
            with Image.open(path) as picture:
                picture.load()
        run.close()

    def test_an_unwritable_root_is_named(self, tmp_path):
        (tmp_path / "file").write_text("")
        with pytest.raises(RunError, match=r"Could not make the folder .*file/sr.*run\.root"):
            RunFolder("sr", root=str(tmp_path / "file")).open(CONFIG)

    def test_a_root_without_permission_is_named(self, plain_users_folder):
        plain_users_folder.chmod(0o555)
        with pytest.raises(RunError, match=r"Could not make the folder .*/sr \(Permission denied\): set run\.root"):
            RunFolder("sr", root=str(plain_users_folder)).open(CONFIG)

    @pytest.mark.parametrize("options", [{}, {"resume": True}, {"overwrite": True}], ids=str)
    @pytest.mark.parametrize("lock", ["writable", "read only"])
    def test_a_run_that_became_read_only_is_kept(self, plain_users_folder, options, lock):
        run = RunFolder("sr", root=str(plain_users_folder))
        run.open(CONFIG)
        finish(run, 0)
        (run.path / "metrics.json").write_text("{}")
        run.close()
        (run.path / ".lock").chmod(0o444 if lock == "read only" else 0o644)
        for folder in (run.path / "restored", run.path / "records", run.path):
            folder.chmod(0o555)
        with pytest.raises(RunError) as caught:
            RunFolder("sr", root=str(plain_users_folder), **options).open(CONFIG)
        assert "\n" not in str(caught.value)
        assert str(run.path) in str(caught.value)
        assert list(run.finished()) == [0]
        assert (run.path / "metrics.json").exists()
        run.path.chmod(0o755)
        (run.path / ".lock").chmod(0o644)
        again = RunFolder("sr", root=str(plain_users_folder), resume=True)
        again.open(CONFIG)  # the refusal holds no lock
        again.close()

    @pytest.mark.parametrize("kind", ["restored", "records"])
    def test_a_folder_that_becomes_read_only_on_the_way(self, plain_users_folder, kind):
        run = RunFolder("sr", root=str(plain_users_folder))
        run.open(CONFIG)
        run.make("restored")
        (run.path / kind).chmod(0o555)
        with pytest.raises(
            RunError, match=rf"Could not write .*/{kind}/0000.* \(Permission denied\): finished images are kept"
        ):
            finish(run, 0)
        run.close()

    def test_a_disk_that_is_full_from_the_start(self, small_disk):
        (small_disk / "sr").mkdir()
        with pytest.raises(OSError, match="No space"):
            (small_disk / "filler").write_bytes(bytes(2**20 + 1))
        with pytest.raises(RunError, match=r"Could not write .*/sr/.* \(No space left on device\)"):
            RunFolder("sr", root=str(small_disk)).open(CONFIG)
        (small_disk / "filler").unlink()
        run = RunFolder("sr", root=str(small_disk))
        run.open(CONFIG)
        run.close()


class TestRecords:
    def test_survive_closing(self, run):
        finish(run, 2, 0)
        assert list(reopened(run).finished().items()) == [
            (0, {"index": 0, "name": "photo0", "psnr": 20.0}),
            (2, {"index": 2, "name": "photo2", "psnr": 22.0}),
        ]

    def test_an_image_without_its_picture_is_not_finished(self, run):
        finish(run, 0, 1)
        run.file("restored", 0, "photo0").unlink()
        assert list(run.finished()) == [1]

    def test_without_any_pictures_the_record_is_enough(self, run):
        run.append([{"index": 4, "name": "a"}])
        assert list(run.finished()) == [4]

    def test_a_failed_image_is_finished(self, run):
        run.make("restored")
        run.append([{"index": 4, "name": "a", "failed": "NaN"}])
        assert list(run.finished()) == [4]

    @pytest.mark.parametrize("half", ['{"index": 9, "na', '{"index": 9', "{", "\x00\x00\x00", '{"index": 9}', "[9]", "9"])
    def test_half_a_line_is_ignored_and_closed_off(self, run, half):
        finish(run, 0)
        run.close()
        with open(run.path / "records" / "00000.jsonl", "a") as file:
            file.write(half)
        again = reopened(run)
        assert list(again.finished()) == [0]
        finish(again, 1)
        assert list(again.finished()) == [0, 1]
        again.close()

    def test_cut_anywhere_loses_only_the_last(self, run):
        finish(run, 0, 1)
        path = run.path / "records" / "00000.jsonl"
        whole = path.read_bytes()
        first = whole.index(b"\n") + 1
        for length in range(first, len(whole) - 1):
            path.write_bytes(whole[:length])
            assert list(run.finished()) == [0]

    def test_a_full_disk_loses_nothing_finished(self, tmp_path):
        code = """
            import resource, sys
            from cclight.errors import RunError
            from cclight.runs.folder import RunFolder
            run = RunFolder("sr", root=sys.argv[1])
            run.open("a: 1")
            resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
            try:
                for index in range(100):
                    run.append([{"index": index, "name": "x" * 50}])
            except RunError as error:
                print(index, error)
            run.close()
            print("closed")
        """
        out, err = python(code, tmp_path).communicate(timeout=60)
        assert "Could not write" in out, err
        assert "closed" in out, err
        run = RunFolder("sr", root=str(tmp_path))
        run.open("a: 1")
        assert list(run.finished()) == list(range(int(out.split()[0])))
        run.close()


class TestClaim:
    def test_keeps_the_configuration(self, run):
        assert (run.path / "config.yaml").read_text() == CONFIG

    def test_the_same_configuration_resumes(self, run):
        finish(run, 0)
        assert list(reopened(run).finished()) == [0]

    def test_what_changes_no_result_may_change(self, run):
        other = """
            model: {steps: 5}
            metrics: {distances: {class_path: FeatureDistances}}
            trainer: {devices: 8, precision: 32-true}
            data: {batch_size: 1, seed: 0, num_workers: 4}
            images: {grid: 3}
        """
        reopened(run, other).close()

    @pytest.mark.parametrize(
        ("old", "new", "key"),
        [
            ("steps: 5", "steps: 10", "model.steps is 5 there, 10 here"),
            ("seed: 0", "seed: 1", "data.seed is 0 there, 1 here"),
            ("32-true", "bf16-mixed", "trainer.precision is '32-true' there, 'bf16-mixed' here"),
            ("steps: 5", "steps: 5, guidance: 2.0", "model.guidance is None there, 2.0 here"),
        ],
    )
    def test_what_changes_results_is_refused_and_named(self, run, old, new, key):
        finish(run, 0)
        with pytest.raises(RunError) as caught:
            reopened(run, CONFIG.replace(old, new))
        assert key in str(caught.value)
        assert "run.overwrite" in str(caught.value)
        assert "\n" not in str(caught.value)
        assert list(run.finished()) == [0]

    def test_a_finished_run_is_refused_with_the_remedies(self, run):
        finish(run, 0)
        (run.path / "metrics.json").write_text("{}")
        with pytest.raises(RunError, match=r"already holds a finished run.*run\.name.*run\.overwrite.*run\.resume"):
            reopened(run)
        assert list(run.finished()) == [0]
        again = reopened(run, resume=True)
        assert list(again.finished()) == [0]
        assert not (run.path / "metrics.json").exists()
        again.close()

    def test_overwrite_deletes_results_and_nothing_else(self, run):
        finish(run, 0)
        (run.path / "metrics.json").write_text("{}")
        (run.path / "my notes.txt").write_text("keep")
        again = reopened(run, "model: {steps: 99}", overwrite=True)
        assert again.finished() == {}
        assert sorted(p.name for p in run.path.iterdir()) == [".lock", "config.yaml", "my notes.txt", "records"]
        again.close()

    def test_results_of_unknown_origin_are_refused(self, run):
        finish(run, 0)
        (run.path / "config.yaml").unlink()
        with pytest.raises(RunError, match=r"without their config\.yaml.*run\.overwrite"):
            reopened(run)

    def test_json_of_a_refused_folder_is_untouched(self, run):
        (run.path / "metrics.json").write_text(json.dumps({"images": 3}))
        with pytest.raises(RunError):
            reopened(run)
        assert json.loads((run.path / "metrics.json").read_text()) == {"images": 3}


HOLDER = """
    import os, sys, time
    from cclight.runs.folder import RunFolder
    run = RunFolder("sr", root=sys.argv[1])
    rank = int(sys.argv[2])
    run.open("a: 1") if rank == 0 else run.join(rank)
    print("ready", flush=True)
    while True:
        time.sleep(0.2)
        if rank > 0:
            run.append([{"index": 1000 + rank, "name": "x"}])
"""


@pytest.fixture
def holder(tmp_path):
    """Start a process that holds the folder as some rank until it is killed."""
    processes = []

    def start(rank=0):
        process = python(HOLDER, tmp_path, rank)
        processes.append(process)
        assert process.stdout.readline() == "ready\n", process.stderr.read()
        return process

    yield start
    for process in processes:
        process.kill()
        process.communicate()


class TestLock:
    def test_two_runs_in_one_folder_are_refused(self, tmp_path, holder):
        process = holder()
        with pytest.raises(RunError, match=rf"in use by process {process.pid} on .*: wait .* run\.name"):
            RunFolder("sr", root=str(tmp_path), overwrite=True).open("a: 1")

    def test_two_runs_of_one_process_too(self, run):
        with pytest.raises(RunError, match="in use"):
            RunFolder("sr", root=str(run.path.parent)).open(CONFIG)
        # ... and the refusal has not let go of the first one's lock.
        code = """
            import sys
            from cclight.errors import RunError
            from cclight.runs.folder import RunFolder
            try:
                RunFolder("sr", root=sys.argv[1]).open("a: 1")
            except RunError as error:
                print(error)
        """
        assert f"in use by process {os.getpid()}" in python(code, run.path.parent).communicate(timeout=60)[0]

    def test_a_killed_run_does_not_block(self, tmp_path, holder):
        process = holder()
        process.send_signal(signal.SIGKILL)
        process.wait()
        run = RunFolder("sr", root=str(tmp_path))
        run.open("a: 1")
        run.close()

    def test_ranks_that_outlive_rank_0_stop_and_are_waited_for(self, tmp_path, holder):
        first, second = holder(), holder(rank=1)
        first.send_signal(signal.SIGKILL)
        first.wait()
        time.sleep(0.5)
        assert second.poll() is None  # what it still does counts
        run = RunFolder("sr", root=str(tmp_path))
        run.open("a: 1")
        assert second.wait(timeout=10) != 0
        assert list(run.finished()) == [1001]
        assert f"Rank 1 stops: process {os.getpid()}" in second.stderr.read()
        run.close()

    def test_a_rank_that_does_not_share_the_folder_is_told(self, tmp_path):
        with pytest.raises(RunError, match=r"Rank 3 does not see the run folder .* file system that all"):
            RunFolder("sr", root=str(tmp_path)).join(3)

    def test_a_worker_process_neither_keeps_nor_frees_it(self, run):
        worker = os.fork()
        if worker == 0:
            os._exit(0)  # its descriptors close with it
        os.waitpid(worker, 0)
        code = """
            import sys
            from cclight.runs.folder import RunFolder
            RunFolder("sr", root=sys.argv[1]).open("a: 1")
        """
        assert "in use" in python(code, run.path.parent).communicate(timeout=60)[1]
