"""Configurations are found by name, and what a parser would take silently or never finish with is refused by name and line."""

from __future__ import annotations

import shutil
import time

import pytest

from cclight.configs import check_yaml, find_config, packaged_configs, read_config, with_packaged_configs
from cclight.errors import UsageError

GOOD = "noise_std: 0.1\nmodel:\n  sampler: {class_path: DPS}\n"


def test_a_packaged_config_is_found_by_each_of_its_names(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    packaged = str(packaged_configs() / "sr.yaml")
    for arguments in (["--config", "sr.yaml"], ["-c", "sr.yaml"], ["-c", "configs/sr.yaml"]):
        assert with_packaged_configs([*arguments, "--noise_std", "0"]) == ["--config", packaged, "--noise_std", "0"]
    assert with_packaged_configs(["--config=sr.yaml"]) == [f"--config={packaged}"]


def test_a_file_here_goes_before_a_packaged_one_and_a_line_says_so(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "sr.yaml").write_text(GOOD)
    (tmp_path / "mine.yaml").write_text(GOOD)
    assert with_packaged_configs(["--config", "sr.yaml", "--config", "mine.yaml"])[1::2] == ["sr.yaml", "mine.yaml"]
    assert capsys.readouterr().err == "cclight: sr.yaml of this folder is taken, not the packaged sr.yaml\n"
    monkeypatch.setenv("LOCAL_RANK", "1")  # the first device has said it
    with_packaged_configs(["--config", "sr.yaml"])
    monkeypatch.delenv("LOCAL_RANK")
    monkeypatch.chdir(packaged_configs().parent)  # a checkout: the file here is the packaged one
    with_packaged_configs(["--config", "configs/sr.yaml"])
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is empty"),
        (b"# only a comment\n", "is empty"),
        (b"- a\n- b\n", "holds a list"),
        (b"hello\n", "holds a text"),
        (GOOD.encode("utf-16"), "is UTF-16: save it as UTF-8"),
        ("a: 1\nb: blé\n".encode("latin-1"), r"is not UTF-8 \(line 2\): save it as UTF-8"),
        (bytes(range(256)), "is not UTF-8"),
        (b"a: 1\nb:\n  c: 2\na: 3\n", "the key a stands twice, in lines 1 and 4"),
        (b"a:\n  b: 1\n  b: 2\n", "the key b stands twice, in lines 2 and 3"),
        (b"a: &x\n  b: *x\n", "line 1: an anchor .* holds itself"),
        (b"a: &x [1, [*x]]\n", "line 1: an anchor .* holds itself"),
        (b"a: !foo 3\n", "line 1: unknown tag !foo"),
        (b"a: !!python/object/apply:os.system ['true']\n", "line 1: unknown tag"),
        (b"a:\n\tb: 1\n", "is no YAML in line 2"),
        (b"a: [1, 2\n", "is no YAML in line"),
        (b"a: *nowhere\n", "is no YAML in line 1"),
    ],
)
def test_what_is_no_configuration_is_named(tmp_path, content, message):
    path = tmp_path / "mine.yaml"
    path.write_bytes(content)
    with pytest.raises(UsageError, match=f"mine.yaml.*{message}") as caught:
        read_config(path)
    assert "\n" not in str(caught.value)


def test_a_byte_order_mark_and_shared_anchors_are_fine(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_bytes(b"\xef\xbb\xbfa: &x {b: 1}\nc: *x\nd: {<<: *x, b: 2}\n")
    assert read_config(path).startswith("a:")


def test_aliases_that_unfold_without_end_and_deep_nesting_are_refused_at_once():
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]" for i in range(1, 20)]
    begin = time.monotonic()
    with pytest.raises(UsageError, match="unfold to more than 100000 values"):
        check_yaml("\n".join(lines), "bomb.yaml")
    with pytest.raises(UsageError, match=r"deep.yaml is .*nest"):
        check_yaml("a: " + "[" * 5000 + "]" * 5000, "deep.yaml")
    assert time.monotonic() - begin < 5


def test_a_folder_and_an_unknown_name_are_told(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine").mkdir()
    with pytest.raises(UsageError, match="takes a YAML file, and mine is a folder"):
        find_config("mine")
    with pytest.raises(UsageError, match=r"no configuration nothing.json: packaged are .*sr.yaml"):
        find_config("nothing.json")
    with pytest.raises(UsageError, match=r"no configuration \(an empty name\)"):
        find_config("")
    shutil.copy(packaged_configs() / "sr.yaml", tmp_path / "mine" / "sr.yaml")
    assert find_config("mine/sr.yaml").as_posix() == "mine/sr.yaml"


@pytest.mark.parametrize("path", sorted(packaged_configs().rglob("*.yaml")), ids=lambda path: path.name)
def test_packaged_configurations_are_read(path):
    assert read_config(path)
