"""The bibliography of runs: well-formed entries, each once, of what was used."""

import inspect
import re
import shutil
import sys

import pytest
import yaml

import cclight.cli
from cclight.commands.cite import DATASETS, METRICS, citations, main
from cclight.runs.results import Run

CLASSES = [getattr(cclight, name) for name in cclight.__all__]
REFERENCES = [c.reference for c in CLASSES if isinstance(getattr(c, "reference", None), str) and c.reference]
TEXTS = [*REFERENCES, *DATASETS.values(), *METRICS.values()]


def split(text):
    return [entry.strip() for entry in re.split(r"^(?=@)", text, flags=re.MULTILINE) if entry.strip()]


def keys(texts):
    return re.findall(r"^@\w+\{(\w+),", "\n".join(texts), flags=re.MULTILINE)


@pytest.mark.parametrize("text", TEXTS)
def test_references_are_bibtex(text):
    for entry in split(text):
        assert re.match(r"@(article|inproceedings|misc|book|phdthesis)\{\w+,\n", entry)
        assert entry.count("{") == entry.count("}")
        fields = re.findall(r"^\s+(\w+) = ", entry, flags=re.MULTILINE)
        assert {"title", "author", "year"} <= set(fields)
        assert len(set(fields)) == len(fields)


def test_a_key_means_one_paper():
    """Two classes may share a paper; then they share its text."""
    found = {}
    for entry in (entry for text in TEXTS for entry in split(text)):
        (key,) = keys([entry])
        assert found.setdefault(key, entry) == entry


def test_every_sampler_cites_its_paper():
    samplers = [c for c in CLASSES if isinstance(c, type) and issubclass(c, cclight.Sampler) and not inspect.isabstract(c)]
    assert [sampler.__name__ for sampler in samplers if not sampler.reference] == []


def test_two_runs_cite_their_samplers_and_the_paper_once(run, other_run, capsys):
    main([str(run), str(other_run)])
    printed = keys([capsys.readouterr().out])
    assert len(set(printed)) == len(printed)
    assert {"pandey2024fast", "song2023pseudoinverse"} <= set(printed)


def test_data_sets_metrics_and_nested_classes_are_cited():
    prior = {"class_path": "cclight.priors.adm.ADM", "init_args": {"checkpoint": "ffhq"}}
    config = {
        "model": {"prior": {"class_path": "cclight.priors.retimed.Retimed", "init_args": {"prior": prior}}},
        "data": {"source": {"class_path": "cclight.data.sources.HFDataset", "init_args": {"path": "merkol/ffhq-256"}}},
    }
    found = keys(citations([Run(None, config, {"metrics": {"fid": {"mean": 1.0}}}, {})]))
    assert {"pandey2024fast", "dhariwal2021diffusion", "karras2019style", "heusel2017gans"} <= set(found)


def test_what_a_run_names_from_elsewhere_is_not_imported(run, tmp_path, monkeypatch, capsys):
    """A foreign run beside a module: cited is what is cclight's own, and nothing of the module runs."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "planted.py").write_text(
        "import pathlib\npathlib.Path('ran').touch()\nclass DPS: reference = '@misc{evil,\\n}'\n"
    )
    folder = shutil.copytree(run, tmp_path / "foreign")
    config = yaml.safe_load((folder / "config.yaml").read_text())
    config["model"]["sampler"]["class_path"] = "planted.DPS"
    config["model"]["prior"] = {"class_path": "cclight.Retimed", "init_args": {"prior": {"class_path": "planted.Prior"}}}
    config["operator"] = {"class_path": "os.system"}
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    assert cclight.cli.main(["cite", "foreign"]) == 0
    printed = capsys.readouterr()
    assert {"pandey2024fast", "wang2004image"} <= set(keys([printed.out]))
    assert "evil" not in printed.out
    for name in ("planted.DPS", "planted.Prior", "os.system"):
        assert f"{name} is none of cclight's own" in printed.err
    assert not (tmp_path / "ran").exists()
    assert "planted" not in sys.modules
