"""The run folder: whole files, records that survive a kill, and who may claim a name."""

import json
import signal
import time

import pytest
import torch
from PIL import Image

from cclight.errors import RunError
from cclight.runs.folder import RunFolder
from cclight.runs.records import read_lines
from tests.runs.conftest import CONFIG, finish, python, reopened


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
def test_a_picture_is_called_by_number_and_name(run, index, name, expected):
    assert run.file("restored", index, name) == run.path / "restored" / expected
    run.write_image("restored", index, name, torch.zeros(3, 2, 2))


class TestWriting:
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
        begun = time.monotonic()
        while not list((tmp_path / "sr" / "records").glob("0*.jsonl")) and time.monotonic() < begun + 60:
            time.sleep(0.05)
        time.sleep(0.3)
        process.send_signal(signal.SIGKILL)
        process.wait()
        run = RunFolder("sr", root=str(tmp_path))
        run.open("a: 1")  # at once: the killed process holds no lock
        assert not list(run.path.rglob("*.tmp"))
        pictures = sorted((run.path / "restored").iterdir())
        done = {run.file("restored", r["index"], "x") for r in read_lines(run.path / "records" / "00000.jsonl")}
        assert done  # records come beside the work, and never before their pictures
        assert done <= set(pictures)
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
        locks = run.path / ".locks"
        for file in locks.iterdir():
            file.chmod(0o444 if lock == "read only" else 0o644)
        for folder in (locks, run.path / "restored", run.path / "records", run.path):
            folder.chmod(0o555)
        with pytest.raises(RunError) as caught:
            RunFolder("sr", root=str(plain_users_folder), **options).open(CONFIG)
        assert "\n" not in str(caught.value)
        assert str(run.path) in str(caught.value)
        assert list(run.finished()) == [0]
        assert (run.path / "metrics.json").exists()
        for folder in (locks, run.path / "records", run.path):
            folder.chmod(0o755)
        for file in locks.iterdir():
            file.chmod(0o644)
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
            RunError, match=rf"Could not write .*/{kind}/0000.* \(Permission denied\): what is finished is kept"
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
        run.flush()
        assert list(run.finished()) == [4]

    def test_a_failed_image_is_finished(self, run):
        run.make("restored")
        run.append([{"index": 4, "name": "a", "failed": "NaN"}])
        run.flush()
        assert list(run.finished()) == [4]

    @pytest.mark.parametrize(
        "half",
        [
            '{"index": 9, "na',
            '{"index": 9',
            "{",
            "\x00\x00\x00",
            '{"index": 9}',
            "[9]",
            "9",
            '{"index": "9", "name": "a"}',
            "[" * 99999,
        ],
    )
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
                    run.flush()
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
        assert (run.path / "metrics.json").exists()  # still whole, should what comes next fail
        finish(again, 1)
        assert not (run.path / "metrics.json").exists()
        again.close()

    def test_overwrite_deletes_what_the_run_wrote_and_nothing_else(self, run):
        finish(run, 0)
        run.write_image("clean", 0, "photo0", torch.zeros(3, 4, 4))
        run.flush()
        (run.path / "metrics.json").write_text("{}")
        mine = ["my notes.txt", "clean/wedding.png", "restored/.hidden.tmp", "records/list.txt"]
        for name in mine:
            (run.path / name).write_text("keep")
        again = reopened(run, "model: {steps: 99}", overwrite=True)
        assert again.finished() == {}
        left = {
            str(path.relative_to(run.path)) for path in run.path.rglob("*") if path.is_file() and ".locks" not in path.parts
        }
        assert left == {"config.yaml", "records/files.json", *mine}
        again.close()

    @pytest.mark.parametrize("options", [{}, {"resume": True}, {"overwrite": True}], ids=str)
    @pytest.mark.parametrize("file", ["clean/wedding.jpg", "config.yaml", "metrics.json", "notes.txt"])
    def test_a_folder_that_is_no_run_is_refused_and_untouched(self, tmp_path, options, file):
        (tmp_path / "mine" / file).parent.mkdir(parents=True)
        (tmp_path / "mine" / file).write_text("keep")
        with pytest.raises(RunError, match=r"mine is no run of cclight and holds other files .*choose another run\.name"):
            RunFolder("mine", root=str(tmp_path), **options).open(CONFIG)
        assert [str(path.relative_to(tmp_path / "mine")) for path in (tmp_path / "mine").rglob("*") if path.is_file()] == [file]

    @pytest.mark.parametrize("name", ["../up", "..", ".", "", "/tmp/absolute", "a/../../b", "C:\\run", "..\\up"])
    def test_a_name_that_leads_elsewhere_is_refused(self, tmp_path, name):
        root = tmp_path / "root"
        with pytest.raises(RunError, match=r"run\.name names a folder inside run\.root, got"):
            RunFolder(name, root=str(root), overwrite=True).open(CONFIG)
        assert list(tmp_path.iterdir()) == []

    def test_names_may_be_nested(self, tmp_path):
        run = RunFolder("sr/first", root=str(tmp_path))
        run.open(CONFIG)
        run.close()
        assert (tmp_path / "sr" / "first" / "config.yaml").is_file()

    @pytest.mark.parametrize("failed", [False, True])
    def test_a_try_that_restored_nothing_claims_no_name(self, run, failed):
        if failed:
            run.write_image("measurement", 0, "a", torch.zeros(3, 4, 4))
            run.append([{"index": 0, "name": "a", "failed": "NaN"}])
        again = reopened(run, "model: {steps: 99}")
        assert (run.path / "config.yaml").read_text() == "model: {steps: 99}"
        assert again.finished() == {}
        assert not list(run.path.rglob("*.png"))
        again.close()

    def test_an_abandoned_try_leaves_nothing_unless_an_image_was_finished(self, run, tmp_path):
        run.abandon()
        assert list(tmp_path.iterdir()) == []
        again = reopened(run)
        finish(again, 0)
        again.abandon()
        assert list(again.finished()) == [0]
        reopened(again).close()

    def test_a_damaged_configuration_is_refused_in_a_line(self, run):
        finish(run, 0)
        (run.path / "config.yaml").write_text("!!python/object:x {")
        with pytest.raises(RunError, match=r"its config\.yaml cannot be read.*run\.overwrite") as caught:
            reopened(run)
        assert "\n" not in str(caught.value)

    def test_a_file_of_the_configuration_that_has_changed_is_refused_and_named(self, run, tmp_path):
        mask = tmp_path / "mask.png"
        mask.write_bytes(b"old")
        config = f"operator: {{masks: [{{path: {mask}}}]}}"
        again = reopened(run, config)
        finish(again, 0)
        mask.write_bytes(b"old")  # another time, the same content
        again = reopened(again, config)
        mask.write_bytes(b"new")
        with pytest.raises(RunError, match=rf"{mask} \(operator\.masks\.0\.path\) is no longer what it was"):
            reopened(again, config)
        reopened(again, config, overwrite=True).close()

    def test_what_does_not_fit_is_forgotten_with_its_pictures(self, run):
        finish(run, 0, 1, 2)
        run.write_image("clean", 3, "stale", torch.zeros(3, 4, 4))
        run.flush()
        (run.path / "clean" / "mine.png").write_text("keep")
        run.keep({0, 2})
        assert list(run.finished()) == [0, 2]
        left = sorted(path.name for path in run.path.rglob("*.png"))
        assert left == ["00000_photo0.png", "00002_photo2.png", "mine.png"]
        finish(run, 1)
        assert list(reopened(run).finished()) == [0, 1, 2]

    def test_json_of_a_refused_folder_is_untouched(self, run):
        (run.path / "metrics.json").write_text(json.dumps({"images": 3}))
        with pytest.raises(RunError):
            reopened(run)
        assert json.loads((run.path / "metrics.json").read_text()) == {"images": 3}
