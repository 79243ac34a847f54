"""The bibliography of runs: well-formed entries, each once, of what was used."""

import re

import pytest

import cclight
from cclight.cli import UsageError
from cclight.workbench.cite import DATA_SETS, METRICS, entries, key, main, references, split
from cclight.workbench.results import Run

CLASSES = [
    getattr(cclight, name)
    for name in cclight.__all__
    if getattr(getattr(cclight, name), "reference", "") and name.isidentifier()
]


@pytest.mark.parametrize(
    "text", [*(c.reference for c in CLASSES if isinstance(c.reference, str)), *DATA_SETS.values(), *METRICS.values()]
)
def test_references_are_bibtex(text):
    for entry in split(text):
        assert re.match(r"@(article|inproceedings|misc|book|phdthesis)\{\w+,\n", entry)
        assert entry.count("{") == entry.count("}")
        fields = re.findall(r"^\s+(\w+) = ", entry, flags=re.MULTILINE)
        assert {"title", "author", "year"} <= set(fields)
        assert len(set(fields)) == len(fields)


def test_a_key_means_one_paper():
    """Two classes may share a paper; then they share its text."""
    texts = [c.reference for c in CLASSES if isinstance(c.reference, str)]
    found = {}
    for entry in (entry for text in [*texts, *DATA_SETS.values(), *METRICS.values()] for entry in split(text)):
        assert found.setdefault(key(entry), entry) == entry


def test_every_sampler_cites_its_paper():
    missing = [
        name
        for name in cclight.__all__
        if isinstance(getattr(cclight, name), type) and issubclass(getattr(cclight, name), cclight.Sampler)
        if name != "Sampler" and not getattr(cclight, name).reference
    ]
    assert missing == []


def test_two_runs_cite_their_samplers_and_the_paper_once(run, other_run, capsys):
    main([str(run), str(other_run)])
    printed = capsys.readouterr().out
    keys = re.findall(r"^@\w+\{(\w+),", printed, flags=re.MULTILINE)
    assert len(set(keys)) == len(keys)
    assert {"pandey2024fast", "song2023pseudoinverse"} <= set(keys)


def test_data_sets_metrics_and_nested_classes_are_cited():
    config = {
        "model": {"prior": {"class_path": "cclight.priors.adm.ADM", "init_args": {"checkpoint": "ffhq"}}},
        "data": {"source": {"class_path": "cclight.data.sources.HFDataset", "init_args": {"path": "merkol/ffhq-256"}}},
    }
    keys = {key(entry) for entry in entries([Run(None, config, {"metrics": {"fid": {"mean": 1.0}}}, {})])}
    assert {"pandey2024fast", "dhariwal2021diffusion", "karras2019style", "heusel2017gans"} <= keys
    nested = {"class_path": "cclight.priors.retimed.Retimed", "init_args": {"prior": config["model"]["prior"]}}
    assert any("dhariwal" in text for text in references(nested))


def test_a_class_that_is_not_there_is_named():
    with pytest.raises(UsageError, match=r"my_parts\.Mine cannot be imported"):
        references({"class_path": "my_parts.Mine"})
