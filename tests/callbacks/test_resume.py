import pytest

from cclight.runs import RunError


def contents(run):
    return {p.relative_to(run.path): p.read_bytes() for p in run.path.rglob("*") if p.is_file() and p.name != ".lock"}


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
