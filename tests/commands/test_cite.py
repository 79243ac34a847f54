"""The bibliography of runs: well-formed entries, each once, of what was used."""

import re

import pytest

import cclight
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
    samplers = [c for c in CLASSES if isinstance(c, type) and issubclass(c, cclight.Sampler) and c is not cclight.Sampler]
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


def test_a_class_that_is_not_there_is_named_and_left_out(capsys):
    config = {"operator": {"class_path": "my_parts.Mine"}}
    assert keys(citations([Run(None, config, {"metrics": {}}, {})])) == ["pandey2024fast"]
    assert "my_parts.Mine cannot be imported" in capsys.readouterr().err
