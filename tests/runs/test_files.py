"""Files that are there whole or not at all."""

from cclight.runs.files import write_whole
from tests.runs.conftest import python


def test_replaces_and_leaves_nothing_else(tmp_path):
    write_whole(tmp_path / "a", b"old")
    write_whole(tmp_path / "a", b"new")
    assert [(p.name, p.read_bytes()) for p in tmp_path.iterdir()] == [("a", b"new")]


def test_a_full_disk_keeps_what_is_there(tmp_path):
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
    assert "what is finished is kept" in out
    assert out.count("\n") == 1
    assert [(p.name, p.read_bytes()) for p in tmp_path.iterdir()] == [("a", b"old")]
